"""Item vectors from keywords, as initial item embeddings."""

import numpy as np
from sklearn.decomposition import PCA

from jaxsim import Dataset, InputError


def keyword_vectors(dataset: Dataset, width: int) -> np.ndarray:
    """Principal components of the items' keyword vectors, pros and cons, float32[N, width].

    Args:
        dataset: the dataset, with the keyword embeddings E_pos and E_neg (Eq. 4 and 5).
        width: number of components; if there are fewer, the rest are zero.

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
    count = min(width, *both.shape)
    components = PCA(count, svd_solver="full" if both.size < 1 << 24 else "covariance_eigh")
    vectors = components.fit_transform(both.astype(np.float64))
    return np.pad(vectors, [(0, 0), (0, width - count)]).astype(np.float32)
