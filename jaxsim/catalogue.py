"""The catalogue on the device: what f_mat and f_sim ask of a pair of items, tabled once on the host.

Cosines are integers, millionths, computed in float64: two of them tie exactly when these integers are equal,
on every device.
"""

import chex
import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from scipy import sparse

from jaxsim.cli import InputError

NO_COSINE = np.int32(
    np.iinfo(np.int32).min
)  # "maximum over nothing", and pairs that Eq. 6 and 7 skip
COSINE_UNIT = 1_000_000
TABLE_BUDGET_BYTES = 4 << 30
_ROWS_AT_ONCE = 4096


@struct.dataclass
class Catalogue:
    """Item-pair tables of N items. On the axis of length 2, 0 is the negative polarity and 1 the positive.

    Attributes:
        overlap: uint8 or int32[N, 2, N]; [c, s, i] is |D_s(c) & D_s(i)|, shared keywords (Eq. 1, 2).
        cosine: int32[N, 2, N]; cos(E_s(c), E_s(i)) in millionths (Eq. 6, 7); NO_COSINE where either item
            has no keyword of that polarity.
        same_category: bool[N, N]; the two items share a category name.
    """

    overlap: jax.Array
    cosine: jax.Array
    same_category: jax.Array

    @property
    def num_items(self) -> int:
        """N."""
        return self.same_category.shape[-1]


def build_catalogue(arrays: dict[str, np.ndarray]) -> Catalogue:
    """Table the item pairs of a packed dataset's arrays (see `jaxsim.Dataset`).

    Raises:
        InputError: the tables would take more than TABLE_BUDGET_BYTES.
    """
    num_items = len(arrays["item_categories"])
    needed = num_items**2 * 11  # 2 x 1 byte of overlap, 2 x 4 of cosine, 1 of category
    if needed > TABLE_BUDGET_BYTES:
        raise InputError(
            f"item-pair tables of {num_items:,} items take {needed / 2**30:.1f} GiB, more than the budget of "
            f"{TABLE_BUDGET_BYTES / 2**30:.0f} GiB: use fewer items"
        )
    sides = ("neg", "pos")
    overlaps = [_shared(arrays[f"item_{side}_keywords"]) for side in sides]
    cosines = [_cosines(arrays[f"item_{side}_embedding"]) for side in sides]
    return Catalogue(
        overlap=jnp.asarray(_narrow(np.stack(overlaps, axis=1))),
        cosine=jnp.asarray(np.stack(cosines, axis=1)),
        same_category=jnp.asarray(_shared(arrays["item_categories"]) > 0),
    )


def _shared(members: np.ndarray) -> np.ndarray:
    """Size of the intersection of each pair of rows of int32[N, K] (-1 pads), int32[N, N]."""
    rows, columns = np.nonzero(members >= 0)
    values = members[rows, columns]
    width = int(values.max(initial=0)) + 1
    ones = np.ones(len(rows), np.int32)
    incidence = sparse.csr_array((ones, (rows, values)), shape=(len(members), width))
    return (incidence @ incidence.T).toarray()


def _narrow(counts: np.ndarray) -> np.ndarray:
    return counts.astype(np.uint8 if counts.max(initial=0) <= 255 else np.int32)


def _cosines(vectors: np.ndarray) -> np.ndarray:
    """Cosine of each pair of rows of float32[N, D] in millionths, int32[N, N]; NO_COSINE for zero rows."""
    exact = vectors.astype(np.float64)
    norms = np.linalg.norm(exact, axis=1, keepdims=True)
    known = norms[:, 0] > 0
    unit = np.divide(exact, norms, out=np.zeros_like(exact), where=norms > 0)
    cosines = np.empty((len(unit), len(unit)), np.int32)
    for start in range(0, len(unit), _ROWS_AT_ONCE):
        rows = slice(start, start + _ROWS_AT_ONCE)
        cosines[rows] = np.rint(unit[rows] @ unit.T * COSINE_UNIT)
    # A matrix product need not be symmetric in its last bit; ties must be.
    cosines = np.maximum(cosines, cosines.T)
    cosines[~known] = NO_COSINE
    cosines[:, ~known] = NO_COSINE
    return cosines


def history_in_category(
    catalogue: Catalogue, candidate: jax.Array, items: jax.Array, valid: jax.Array
) -> jax.Array:
    """h_C: the history items in the candidate's category, or all of them if none is, bool[H].

    Args:
        catalogue: item-pair tables.
        candidate: int32[].
        items: int32[H] of the history; anything where not valid.
        valid: bool[H].
    """
    chex.assert_rank([candidate, items, valid], [0, 1, 1])
    chosen = valid & catalogue.same_category[candidate, jnp.maximum(items, 0)]
    return jnp.where(chosen.any(), chosen, valid)
