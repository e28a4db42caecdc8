"""The catalogue on the device: what f_mat and f_sim need to know about pairs of items.

Two representations give the same values. `PairTables` holds every pair, computed on the host: a vote gathers one
number for each history item. It takes N^2 x 8 bytes. Where that is too much, `ItemFeatures` holds each item's
keywords, embedding and categories, and computes pairs when they are needed.
"""

from dataclasses import dataclass
from typing import Literal

import chex
import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from jaxsim.chunking import in_chunks, map_where
from jaxsim.errors import InputError
from jaxsim.keyword_matching import count_common_bits, is_shared, pack_members, shared_table
from jaxsim.similarity import NO_COSINE, cosine_table, cosines, in_millionths, unit_vectors

CatalogueKind = Literal["auto", "tables", "features"]
TABLE_BUDGET_BYTES = 4 << 30
SIDES = ("neg", "pos")  # the polarity axis: 0 is the negative polarity and 1 the positive
_KEYWORDS = tuple(f"item_{side}_keywords" for side in SIDES)
# A pair takes 32 bits: 21 for the cosine (counted from NO_COSINE), 10 for shared keywords, 1 for the category.
_COSINE_BITS, _SHARED_BITS = 21, 10
_COSINE_MASK, _SHARED_MASK = (1 << _COSINE_BITS) - 1, (1 << _SHARED_BITS) - 1
_ROWS_AT_ONCE = 1024
# The embeddings that 16 sessions gather for their histories fit in a CPU's cache.
_SESSIONS_AT_ONCE = 16
_NEEDED_AT_ONCE = 16  # history items whose embeddings are read at a time, if not all are needed
# Use bit sets when the vocabulary needs at most 4 words per keyword: comparing two lists of K keywords costs K^2
# comparisons, comparing two bit sets one operation for each word.
_WORDS_PER_KEYWORD = 4


@struct.dataclass
class Pairs:
    """What f_mat and f_sim need to know about pairs of items, in one polarity s for each pair.

    Attributes:
        same_category: bool[...], whether the two items share a category name.
        shared: int32[...], |D_s(c) & D_s(i)|, number of shared keywords (Eq. 1, 2).
        cosine: int32[...], cos(E_s(c), E_s(i)) in millionths (Eq. 6, 7); NO_COSINE if either item has no keyword
            of that polarity.
    """

    same_category: jax.Array
    shared: jax.Array
    cosine: jax.Array


@struct.dataclass
class PairTables:
    """Every pair of N items, computed on the host. On axes of length 2, 0 is the negative polarity.

    Attributes:
        codes: int32[N, 2, N]; the three values of `Pairs` in one number, so that a vote is one gather.
        keywords: int32[N, 2, K], -1 pads, for `Decision.reasons`.
    """

    codes: jax.Array
    keywords: jax.Array

    @property
    def num_items(self) -> int:
        """N."""
        return self.codes.shape[0]

    def same_category(self, item: jax.Array, others: jax.Array, side: jax.Array) -> jax.Array:
        """`compare(item, others, side).same_category`."""
        return self.compare(
            item, others, side
        ).same_category  # in one program the gather is done once

    def compare(
        self,
        item: jax.Array,
        others: jax.Array,
        side: jax.Array,
        needed: jax.Array | None = None,
    ) -> Pairs:
        """An item int32[] with others int32[...], each in its polarity int32[...]: `Pairs` [...].

        `needed` is that of `ItemFeatures.compare`. Here all pairs are known.
        """
        return _decode(self.codes[item, side, others])

    def compare_all(self, item: jax.Array, side: jax.Array) -> Pairs:
        """An item int32[] with all items, in one polarity int32[]: `Pairs` [N]."""
        return _decode(self.codes[item, side])


@struct.dataclass
class ItemFeatures:
    """Keywords, embeddings and categories of N items, from which pairs are computed on the fly.

    Attributes:
        keywords: int32[N, 2, K], -1 pads.
        keyword_bits: uint32[N, 2, words], the same keywords as bit sets; None if comparing lists is cheaper.
        embedding: float32[N, 2, D], E_neg and E_pos at unit length (Eq. 4, 5); zero without a keyword.
        categories: uint32[N, words], the category names as bit sets.
    """

    keywords: jax.Array
    keyword_bits: jax.Array | None
    embedding: jax.Array
    categories: jax.Array

    @property
    def num_items(self) -> int:
        """N."""
        return self.keywords.shape[0]

    def same_category(self, item: jax.Array, others: jax.Array, side: jax.Array) -> jax.Array:
        """`compare(item, others, side).same_category`, without the rest."""
        categories = self.categories[others]
        own = jnp.broadcast_to(self.categories[item], categories.shape)
        return (own & categories).any(axis=-1)

    def compare(
        self,
        item: jax.Array,
        others: jax.Array,
        side: jax.Array,
        needed: jax.Array | None = None,
    ) -> Pairs:
        """An item int32[] with others int32[...], each in its polarity int32[...]: `Pairs` [...].

        Args:
            item, others, side: see above.
            needed: bool[...], the pairs whose cosine is wanted; in others it may be any number. A CPU reads only
                the embeddings of these. `others` then has one axis.
        """
        # The results are integers, so no gradient is lost; a batch in chunks could not pass one.
        features = jax.lax.stop_gradient(self)
        if needed is None:
            return _compare_in_chunks(features, item, others, side)
        return _compare_needed_in_chunks(features, item, others, side, needed)

    def compare_all(self, item: jax.Array, side: jax.Array) -> Pairs:
        """An item int32[] with all items, in one polarity int32[]: `Pairs` [N]."""
        positive = side > 0
        # Both polarities are compared and one is chosen: under vmap, taking one first would copy all embeddings
        # for each item, which takes ten times as long.
        both = cosines(self.embedding[item, side][None], self.embedding)[..., 0]
        everyone = jnp.where(positive, self.words[:, 1], self.words[:, 0])
        same = (self.categories[item][None] & self.categories[:]).any(axis=-1)
        cosine = jnp.where(positive, both[:, 1], both[:, 0])
        return self._pairs(same, self.words[item, side][None], everyone, cosine)

    @property
    def words(self) -> jax.Array:
        """The keyword sets in the form that is compared: bit sets if there are any, otherwise lists."""
        return self.keywords if self.keyword_bits is None else self.keyword_bits

    def _compare(self, item: jax.Array, others: jax.Array, side: jax.Array) -> Pairs:
        return self._compare_rest(item, others, side, self._cosine(item, others, side))

    def _compare_needed(
        self, item: jax.Array, others: jax.Array, side: jax.Array, needed: jax.Array
    ) -> Pairs:
        cosine = map_where(
            lambda rows: self._cosine(item, *rows),
            needed,
            (others, side),
            _NEEDED_AT_ONCE,
            NO_COSINE,
        )
        return self._compare_rest(item, others, side, cosine)

    def _cosine(self, item: jax.Array, others: jax.Array, side: jax.Array) -> jax.Array:
        # One product with both polarities of the item reads the gathered embeddings only once.
        both = cosines(self.embedding[item], self.embedding[others, side])
        return jnp.where(side > 0, both[..., 1], both[..., 0])

    def _compare_by_sums(
        self,
        item: jax.Array,
        others: jax.Array,
        side: jax.Array,
        needed: jax.Array | None = None,
    ) -> Pairs:
        """`compare` with sums of products, which a GPU's compiler fuses with the gathers."""
        positive = (side > 0)[..., None]
        own = jnp.where(positive, self.embedding[item, 1], self.embedding[item, 0])
        product = jnp.sum(own * self.embedding[others, side], axis=-1)
        return self._compare_rest(item, others, side, in_millionths(product))

    def _compare_rest(
        self, item: jax.Array, others: jax.Array, side: jax.Array, cosine: jax.Array
    ) -> Pairs:
        own = jnp.where((side > 0)[..., None], self.words[item, 1], self.words[item, 0])
        same = self.same_category(item, others, side)
        return self._pairs(same, own, self.words[others, side], cosine)

    def _pairs(
        self, same_category: jax.Array, own: jax.Array, others: jax.Array, cosine: jax.Array
    ) -> Pairs:
        if self.keyword_bits is None:
            shared = is_shared(own, others).sum(axis=-1, dtype=jnp.int32)
            have_keywords = (own[..., 0] >= 0) & (others[..., 0] >= 0)
        else:
            shared = count_common_bits(own, others)
            have_keywords = own.any(axis=-1) & others.any(axis=-1)
        return Pairs(same_category, shared, jnp.where(have_keywords, cosine, NO_COSINE))


_compare_in_chunks = in_chunks(
    ItemFeatures._compare, _SESSIONS_AT_ONCE, elsewhere=ItemFeatures._compare_by_sums
)
_compare_needed_in_chunks = in_chunks(
    ItemFeatures._compare_needed, _SESSIONS_AT_ONCE, elsewhere=ItemFeatures._compare_by_sums
)


Catalogue = PairTables | ItemFeatures


def _decode(code: jax.Array) -> Pairs:
    return Pairs(
        same_category=code < 0,  # the highest bit
        shared=(code >> _COSINE_BITS) & _SHARED_MASK,
        cosine=(code & _COSINE_MASK) + NO_COSINE,
    )


@dataclass(frozen=True)
class CatalogueBytes:
    """Size of each representation of a catalogue on the device, in bytes."""

    tables: int
    features: int


def catalogue_bytes(arrays: dict[str, np.ndarray]) -> CatalogueBytes:
    """Size of each representation of a packed dataset's items."""
    num_items = len(arrays["item_categories"])
    keywords = 2 * 4 * num_items * _list_width(arrays)
    bits = 2 * 4 * num_items * _words(arrays, *_KEYWORDS) if _use_bits(arrays) else 0
    embedding = 2 * 4 * num_items * arrays["item_pos_embedding"].shape[1]
    categories = 4 * num_items * _words(arrays, "item_categories")
    return CatalogueBytes(
        tables=8 * num_items**2 + keywords, features=keywords + bits + embedding + categories
    )


def build_catalogue(
    arrays: dict[str, np.ndarray], budget: int = TABLE_BUDGET_BYTES, kind: CatalogueKind = "auto"
) -> Catalogue:
    """Put a packed dataset's items on the device.

    Args:
        arrays: of a `jaxsim.Dataset`.
        budget: bytes that pair tables may take.
        kind: "tables", "features", or "auto" for tables if they fit the budget.

    Raises:
        InputError: `kind` is "tables" but they do not fit, or an embedding contradicts Eq. 4 and 5.
    """
    _check_embeddings(arrays)
    needed = catalogue_bytes(arrays).tables
    most = _list_width(arrays)
    problem = None
    if needed > budget:
        problem = (
            f"item-pair tables of {len(arrays['item_categories']):,} items take {needed:,} bytes, more than the "
            f"table_budget of {budget:,}: raise it"
        )
    elif most > _SHARED_MASK:
        problem = (
            f"an item has {most:,} keywords, and item-pair tables hold {_SHARED_MASK:,}: keep fewer"
        )
    if kind == "tables" and problem:
        raise InputError(f'{problem}, or use catalogue="features"')
    use_tables = kind == "tables" or (kind == "auto" and problem is None)
    return _pair_tables(arrays) if use_tables else _item_features(arrays)


def _num_members(arrays: dict[str, np.ndarray], *names: str) -> int:
    return 1 + max(int(arrays[name].max(initial=-1)) for name in names)


def _words(arrays: dict[str, np.ndarray], *names: str) -> int:
    return max(1, -(-_num_members(arrays, *names) // 32))


def _list_width(arrays: dict[str, np.ndarray]) -> int:
    """K, the most keywords of an item in a polarity; at least 1."""
    return max(1, *(int((arrays[name] >= 0).sum(axis=1).max(initial=0)) for name in _KEYWORDS))


def _use_bits(arrays: dict[str, np.ndarray]) -> bool:
    return _words(arrays, *_KEYWORDS) <= _WORDS_PER_KEYWORD * _list_width(arrays)


def _pair_tables(arrays: dict[str, np.ndarray]) -> PairTables:
    num_items = len(arrays["item_categories"])
    codes = np.empty((num_items, 2, num_items), np.int32)
    same = shared_table(arrays["item_categories"]) > 0
    for side, name in enumerate(SIDES):
        shared = shared_table(arrays[f"item_{name}_keywords"])
        cosine = cosine_table(arrays[f"item_{name}_embedding"])
        for start in range(0, num_items, _ROWS_AT_ONCE):
            rows = slice(start, start + _ROWS_AT_ONCE)
            code = (cosine[rows] - NO_COSINE) | (shared[rows] << _COSINE_BITS)
            codes[rows, side] = np.where(same[rows], code | np.iinfo(np.int32).min, code)
    return PairTables(codes=jnp.asarray(codes), keywords=jnp.asarray(_keyword_lists(arrays)))


def _item_features(arrays: dict[str, np.ndarray]) -> ItemFeatures:
    shape = arrays["item_pos_embedding"].shape
    embedding = np.empty((shape[0], 2, shape[1]), np.float32)
    for side, name in enumerate(SIDES):
        for start in range(0, shape[0], _ROWS_AT_ONCE):
            rows = slice(start, start + _ROWS_AT_ONCE)
            embedding[rows, side] = unit_vectors(arrays[f"item_{name}_embedding"][rows])
    categories = arrays["item_categories"]
    return ItemFeatures(
        keywords=jnp.asarray(_keyword_lists(arrays)),
        keyword_bits=jnp.asarray(_keyword_bits(arrays)) if _use_bits(arrays) else None,
        embedding=jnp.asarray(embedding),
        categories=jnp.asarray(pack_members(categories, _num_members(arrays, "item_categories"))),
    )


def _keyword_lists(arrays: dict[str, np.ndarray]) -> np.ndarray:
    """int32[N, 2, K]; pads come last."""
    width = _list_width(arrays)
    lists = np.full((len(arrays[_KEYWORDS[0]]), 2, width), -1, np.int32)
    for side, name in enumerate(_KEYWORDS):
        rows = arrays[name]
        pads_last = np.take_along_axis(rows, np.argsort(rows < 0, axis=1, kind="stable"), axis=1)
        lists[:, side, : min(width, rows.shape[1])] = pads_last[:, :width]
    return lists


def _keyword_bits(arrays: dict[str, np.ndarray]) -> np.ndarray:
    size = _num_members(arrays, *_KEYWORDS)
    return np.stack([pack_members(arrays[name], size) for name in _KEYWORDS], axis=1)


def _check_embeddings(arrays: dict[str, np.ndarray]) -> None:
    """Check that exactly the items with a keyword have an embedding: otherwise Eq. 6 and 7 are undefined."""
    for name in SIDES:
        embedding = arrays[f"item_{name}_embedding"]
        finite = np.isfinite(embedding).all(axis=1)
        if not finite.all():
            raise InputError(
                f"item_{name}_embedding of item {int(np.argmin(finite))} is not finite: build the dataset again"
            )
        has_keyword = np.asarray((arrays[f"item_{name}_keywords"] >= 0).any(axis=1))
        wrong = np.flatnonzero(has_keyword != embedding.any(axis=1))
        if len(wrong):
            item = int(wrong[0])
            has, lacks = ("keywords", "zero") if has_keyword[item] else ("no keyword", "not zero")
            raise InputError(
                f"item {item} has {has} ({name}), but its item_{name}_embedding is {lacks}: "
                "build the dataset again"
            )


def history_in_category(same_category: jax.Array, valid: jax.Array) -> jax.Array:
    """h_C: the history items in the candidate's category, or all of them if none is, bool[H].

    Args:
        same_category: bool[H], whether each history item shares the candidate's category.
        valid: bool[H], False for padding; `same_category` is not read there.
    """
    chex.assert_equal_shape([same_category, valid])
    chosen = valid & same_category
    return jnp.where(chosen.any(), chosen, valid)
