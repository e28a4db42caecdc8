"""Item vectors from the keywords, for embeddings to start from."""

import numpy as np
from sklearn.decomposition import PCA

from jaxsim import Dataset, InputError


def keyword_vectors(dataset: Dataset, width: int) -> np.ndarray:
    """Principal components of the items' keyword vectors, pros and cons, float32[N, width].

    Args:
        dataset: its E_pos and E_neg (Eq. 4 and 5) are read.
        width: components kept; where the vectors have fewer, the rest are zero.

    Raises:
        InputError: no item has any keyword.
    """
    arrays = dataset.arrays
    both = np.concatenate([arrays["item_pos_embedding"], arrays["item_neg_embedding"]], axis=1)
    if not both.any():
        raise InputError(
            f"{dataset.name}: no item has a keyword, so embeddings cannot start from keywords; use "
            "--item-embedding learned"
        )
    kept = min(width, *both.shape)
    components = PCA(kept, svd_solver="full" if both.size < 1 << 24 else "covariance_eigh")
    found = components.fit_transform(both.astype(np.float64))
    return np.pad(found, [(0, 0), (0, width - kept)]).astype(np.float32)
