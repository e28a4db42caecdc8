"""What a network may know of the items before training: vectors from keywords, or from all that the dataset has.

Nothing is read from the simulator: every recommender has the same keywords, categories, years and training logs.
"""

import jax.numpy as jnp
import numpy as np
import scipy.sparse
import scipy.special
from scipy.sparse.linalg import svds
from sklearn.decomposition import PCA

from agents.algorithms.networks import ItemStart
from agents.evaluation.baselines import smoothed, training_counts
from jaxsim import Dataset, InputError
from jaxsim.dataset import TRAIN
from jaxsim.taste_kernel import part_features, weighted_features

# How much a user's taste varies by each part: the variances with which the search for the taste model's weights
# starts, too.
_VARIANCES = {
    "constant": 0.06, "category": 0.05, "year": 0.05, "pros": 0.10, "cons": 0.05, "covariance": 0.03,
}  # fmt: skip
_COVARIANCE_RANK = 16
_SMALLEST_RATE = 1e-4


def item_start(dataset: Dataset, item_embedding: str, width: int) -> ItemStart | None:
    """What embeddings start from; None for random numbers.

    Args:
        dataset: the dataset; of its interactions only the training split is read.
        item_embedding: of `AlgorithmConfig`.
        width: of the vectors.

    Raises:
        InputError: the dataset lacks what they should start from.
    """
    if item_embedding == "learned":
        return None
    if item_embedding == "keywords":
        return ItemStart(jnp.asarray(keyword_vectors(dataset, width)))
    return log_start(dataset, width)


def log_start(dataset: Dataset, width: int) -> ItemStart:
    """Vectors and log-odds of the items from keywords, categories, years and the training interactions.

    Inner products of the vectors are the prior covariance of a user's liking of two items, as in the taste model
    (`jaxsim.taste_kernel`), cut to the leading `width` components.

    Args:
        dataset: the dataset.
        width: number of components; if there are fewer, the rest are zero.
    """
    counts, likes = training_counts(dataset)
    rate = smoothed(likes, counts, likes.sum() / counts.sum())
    # If everything was liked, or nothing, the rates are 1 or 0, and their log-odds infinite.
    rate = np.clip(rate, _SMALLEST_RATE, 1 - _SMALLEST_RATE)
    years = np.full(dataset.num_items, np.nan, np.float32)
    if dataset.taste is not None:
        years = dataset.taste["item_year"]
    parts = part_features(dataset.arrays, years, covariance_factors(dataset, rate))
    features = weighted_features(parts, _VARIANCES, dataset.num_items)
    _, directions = np.linalg.eigh(features.T @ features)  # ascending
    vectors = features @ directions[:, ::-1][:, :width]
    padded = np.pad(vectors, [(0, 0), (0, width - vectors.shape[1])])
    return ItemStart(
        jnp.asarray(padded, jnp.float32), jnp.asarray(scipy.special.logit(rate), jnp.float32)
    )


def covariance_factors(dataset: Dataset, rate: np.ndarray) -> np.ndarray:
    """Which items the same people like more, or less, than others do: float64[N, R], mean square 1 by interaction.

    Args:
        dataset: the dataset; only its training interactions are read.
        rate: float64[N], like rates of the items.
    """
    train = dataset.arrays["interaction_split"] == TRAIN
    user, item = dataset.interaction_user()[train], dataset.arrays["interaction_item"][train]
    residual = dataset.arrays["interaction_label"][train] - rate[item]
    shape = (dataset.num_users, dataset.num_items)
    rank = min(_COVARIANCE_RANK, min(shape) - 1)
    if rank < 1 or not residual.any():
        return np.zeros((dataset.num_items, 0), np.float64)
    matrix = scipy.sparse.csr_matrix((residual, (user, item)), shape)
    # A fixed start, because the solver draws one otherwise.
    _, size, vectors = svds(matrix, k=rank, v0=np.ones(min(shape), np.float64))
    factors = vectors.T * size
    square = np.mean((factors[item] ** 2).sum(axis=1))
    return factors / np.sqrt(square)


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
