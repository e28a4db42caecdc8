"""Both representations of the catalogue against brute force over all pairs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxsim import COSINE_UNIT, NO_COSINE, InputError
from jaxsim.catalogue import ItemFeatures, Pairs, PairTables, build_catalogue, catalogue_bytes
from jaxsim.keyword_matching import pack_members
from jaxsim.similarity import cosine_table
from tests import reference
from tests.factory import make_dataset, random_dataset, unit_rows

KINDS = {"tables": PairTables, "features": ItemFeatures}


def all_pairs(catalogue: PairTables | ItemFeatures) -> Pairs:
    """What the catalogue says of all pairs: arrays [N, 2, N]."""
    everyone, sides = jnp.arange(catalogue.num_items), jnp.arange(2)
    over_sides = jax.vmap(catalogue.compare_all, (None, 0))
    return jax.jit(jax.vmap(over_sides, (0, None)))(everyone, sides)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("kind", KINDS)
def test_pairs_are_brute_force(seed, kind):
    arrays = random_dataset(seed).arrays
    items = reference.items_of(arrays)
    catalogue = build_catalogue(arrays, kind=kind)
    assert isinstance(catalogue, KINDS[kind])
    pairs = jax.tree.map(np.asarray, all_pairs(catalogue))
    for c, candidate in enumerate(items):
        for i, item in enumerate(items):
            same = bool(candidate.categories & item.categories)
            for s in (0, 1):
                assert pairs.same_category[c, s, i] == same
                assert pairs.shared[c, s, i] == len(candidate.keywords[s] & item.keywords[s])
                cosine = reference.cosine(candidate.embedding[s], item.embedding[s])
                actual = pairs.cosine[c, s, i]
                if cosine is None:
                    assert actual == NO_COSINE
                else:
                    assert abs(actual - cosine) <= (0 if kind == "tables" else 1)


@pytest.mark.parametrize("kind", KINDS)
def test_compare_is_compare_all_at_the_items_and_sides_asked_for(kind):
    catalogue = build_catalogue(random_dataset(0).arrays, kind=kind)
    rng = np.random.default_rng(0)
    others, side = rng.integers(0, catalogue.num_items, 50), rng.integers(0, 2, 50)
    everything = all_pairs(catalogue)
    compare = jax.jit(catalogue.compare)
    for item in range(0, catalogue.num_items, 7):
        actual = compare(jnp.int32(item), jnp.int32(others), jnp.int32(side))
        expected = jax.tree.map(lambda x, item=item: np.asarray(x)[item, side, others], everything)
        np.testing.assert_array_equal(actual.same_category, expected.same_category)
        np.testing.assert_array_equal(actual.shared, expected.shared)
        # Sums of products in another order may round to the neighbouring millionth.
        slack = 0 if kind == "tables" else 1
        np.testing.assert_allclose(actual.cosine, expected.cosine, rtol=0, atol=slack)
        assert actual.shared.dtype == actual.cosine.dtype == jnp.int32


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 2**32 - 1), num_items=st.integers(1, 40), width=st.integers(1, 400))
def test_cosines_are_symmetric_and_exact_on_the_diagonal(seed, num_items, width):
    rng = np.random.default_rng(seed)
    pos, neg = rng.standard_normal((2, num_items, width))
    copies = rng.integers(0, num_items, num_items)  # some items have the very same keywords
    pos, neg = unit_rows(pos[copies]), unit_rows(neg)
    neg[rng.random(num_items) < 0.3] = 0
    positive, negative = cosine_table(pos), cosine_table(neg)
    np.testing.assert_array_equal(positive, positive.T)
    np.testing.assert_array_equal(negative, negative.T)
    equal = copies[:, None] == copies[None, :]
    assert (positive[equal] == COSINE_UNIT).all()  # equal keywords tie exactly
    for a, b in zip(*np.nonzero(equal), strict=True):
        np.testing.assert_array_equal(positive[a], positive[b])
    known = neg.any(axis=1)
    np.testing.assert_array_equal(negative == NO_COSINE, ~(known[:, None] & known))
    assert (np.abs(positive) <= COSINE_UNIT).all()


def test_cosine_does_not_depend_on_the_stored_length():
    cosine = cosine_table(np.array([[3, 4], [4, 3], [0, 0.5]], np.float32))
    expected = [[1_000_000, 960_000, 800_000], [960_000, 1_000_000, 600_000]]
    np.testing.assert_array_equal(cosine[:2], expected)


@pytest.mark.parametrize("kind", KINDS)
def test_opposite_and_equal_vectors_fill_the_range(kind):
    """The two ends of what a code can hold, and both beside the other fields."""
    vectors = np.array([[1.0, 0.0], [-1.0, 0.0]])
    dataset = make_dataset([[0]] * 2, [[0], [1]], [[], []], [([0, 1], [0, 1])], vectors)
    pairs = all_pairs(build_catalogue(dataset.arrays, kind=kind))
    np.testing.assert_array_equal(pairs.cosine[:, 1], [[10**6, -(10**6)], [-(10**6), 10**6]])
    np.testing.assert_array_equal(pairs.shared[:, 1], [[1, 0], [0, 1]])
    assert pairs.same_category.all()


@pytest.mark.parametrize("kind", KINDS)
def test_no_categories_and_no_keywords_are_pairs_of_nothing(kind):
    dataset = make_dataset([[], [0]], [[], [0]], [[], []], [([0, 1], [0, 1])])
    pairs = all_pairs(build_catalogue(dataset.arrays, kind=kind))
    np.testing.assert_array_equal(pairs.same_category[:, 1], [[False, False], [False, True]])
    np.testing.assert_array_equal(pairs.shared[:, 1], [[0, 0], [0, 1]])
    np.testing.assert_array_equal(pairs.cosine[:, 1], [[NO_COSINE, NO_COSINE], [NO_COSINE, 10**6]])
    assert (np.asarray(pairs.cosine[:, 0]) == NO_COSINE).all()


def of_many_keywords(count: int) -> dict[str, np.ndarray]:
    words = list(range(count))
    return make_dataset([[0], [0]], [words, words], [[], []], [([0, 1], [0, 1])]).arrays


@pytest.mark.parametrize("count", [300, 1023])
@pytest.mark.parametrize("kind", KINDS)
def test_many_shared_keywords_do_not_overflow(kind, count):
    pairs = all_pairs(build_catalogue(of_many_keywords(count), kind=kind))
    assert pairs.shared[0, 1, 1] == count
    assert pairs.same_category.all()
    assert abs(pairs.cosine[0, 1, 1] - COSINE_UNIT) <= 1


def test_more_shared_keywords_than_a_code_holds_are_left_to_features():
    arrays = of_many_keywords(1024)
    catalogue = build_catalogue(arrays)
    assert isinstance(catalogue, ItemFeatures)
    assert all_pairs(catalogue).shared[0, 1, 1] == 1024
    with pytest.raises(InputError, match=r'1,024 keywords.*catalogue="features"'):
        build_catalogue(arrays, kind="tables")


def test_the_budget_decides():
    arrays = random_dataset(0).arrays
    needed = catalogue_bytes(arrays).tables
    assert isinstance(build_catalogue(arrays, budget=needed), PairTables)
    assert isinstance(build_catalogue(arrays, budget=needed - 1), ItemFeatures)
    with pytest.raises(InputError, match=r"40 items take [\d,]+ bytes.*table_budget.*features"):
        build_catalogue(arrays, budget=needed - 1, kind="tables")


@pytest.mark.parametrize("kind", KINDS)
def test_bytes_are_those_on_the_device(kind):
    arrays = random_dataset(1).arrays
    catalogue = build_catalogue(arrays, kind=kind)
    actual = sum(x.nbytes for x in jax.tree.leaves(catalogue))
    assert actual == getattr(catalogue_bytes(arrays), kind)


@settings(deadline=None, max_examples=50)
@given(
    rows=st.lists(st.lists(st.integers(0, 69), unique=True), min_size=1, max_size=6),
    size=st.integers(70, 100),
)
def test_bit_sets_hold_their_members(rows, size):
    width = max(1, *map(len, rows))
    members = np.array([row + [-1] * (width - len(row)) for row in rows], np.int32)
    bits = pack_members(members, size)
    assert (bits.dtype, bits.shape) == (np.uint32, (len(rows), -(-size // 32)))
    for row, words in zip(rows, bits, strict=True):
        flags = [(int(words[value // 32]) >> (value % 32)) & 1 for value in range(size)]
        assert set(np.flatnonzero(flags)) == set(row)


def random_sets(seed, num_items, num_keywords, most) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    sets = [
        [rng.choice(num_keywords, rng.integers(0, most + 1), replace=False).tolist()
         for _ in range(num_items)] for _ in range(2)
    ]  # fmt: skip
    return make_dataset([[0]] * num_items, *sets, [([0, 1], [0, 1])], width=4).arrays


@pytest.mark.slow
@settings(deadline=None, max_examples=15)
@given(
    seed=st.integers(0, 2**32 - 1),
    num_keywords=st.sampled_from([20, 33, 300, 3000]),
    most=st.sampled_from([1, 3, 20]),
)
def test_lists_and_bit_sets_share_the_same(seed, num_keywords, most):
    arrays = random_sets(seed, 12, num_keywords, most)
    items = reference.items_of(arrays)
    catalogue = build_catalogue(arrays, kind="features")
    bits = -(-(1 + max(arrays[f"item_{s}_keywords"].max() for s in ("pos", "neg"))) // 32)
    longest = max((arrays[f"item_{s}_keywords"] >= 0).sum(1).max() for s in ("pos", "neg"))
    assert (catalogue.keyword_bits is not None) == (bits <= 4 * max(1, longest))
    shared = all_pairs(catalogue).shared
    for c, candidate in enumerate(items):
        for i, item in enumerate(items):
            for s in (0, 1):
                assert shared[c, s, i] == len(candidate.keywords[s] & item.keywords[s])


@pytest.mark.parametrize("kind", KINDS)
def test_pads_may_stand_anywhere(kind):
    arrays = random_dataset(2).arrays
    rng = np.random.default_rng(0)
    moved = dict(arrays)
    for name in ("item_pos_keywords", "item_neg_keywords"):
        wide = np.pad(arrays[name], ((0, 0), (0, 2)), constant_values=-1)
        moved[name] = rng.permuted(wide, axis=1)
    a, b = (all_pairs(build_catalogue(x, kind=kind)) for x in (arrays, moved))
    jax.tree.map(np.testing.assert_array_equal, a, b)


SLOW_COUNTS = [pytest.param(count, marks=pytest.mark.slow) for count in (1, 15, 100)]


@pytest.mark.parametrize("count", [16, 17, *SLOW_COUNTS])
def test_a_batch_in_chunks_is_the_batch(count):
    """Under vmap, nested, and with a different catalogue for each row."""
    catalogue = build_catalogue(random_dataset(0).arrays, kind="features")
    rng = np.random.default_rng(count)
    item, others, side = (
        jnp.int32(rng.integers(0, upper, shape))
        for upper, shape in ((40, (2, count)), (40, (2, count, 9)), (2, (2, count, 9)))
    )

    def compare(catalogue, item, others, side):
        return catalogue.compare(item, others, side)

    one_by_one = [
        jax.tree.map(np.asarray, compare(catalogue, item[0, i], others[0, i], side[0, i]))
        for i in range(min(count, 20))
    ]
    many = jax.jit(jax.vmap(compare, (None, 0, 0, 0)))
    batch = many(catalogue, item[0], others[0], side[0])
    nested = jax.vmap(many, (None, 0, 0, 0))(catalogue, item, others, side)
    copies = jax.tree.map(lambda x: jnp.stack([x] * count), catalogue)
    own = jax.jit(jax.vmap(compare))(copies, item[0], others[0], side[0])
    for name in ("same_category", "shared", "cosine"):
        slack = 1 if name == "cosine" else 0
        expected = np.stack([getattr(pairs, name) for pairs in one_by_one]).astype(int)
        for actual in (batch, jax.tree.map(lambda x: x[0], nested), own):
            rows = np.asarray(getattr(actual, name))[: len(expected)].astype(int)
            np.testing.assert_allclose(rows, expected, rtol=0, atol=slack)


def random_pairs():
    """Features, and 40 items with 9 others each, in random polarities."""
    catalogue = build_catalogue(random_dataset(0).arrays, kind="features")
    rng = np.random.default_rng(0)
    sizes = ((40, 40), (40, (40, 9)), (2, (40, 9)))
    return catalogue, *(jnp.int32(rng.integers(0, upper, shape)) for upper, shape in sizes)


def test_sums_of_products_compare_as_products_do():
    catalogue, *pairs = random_pairs()
    products = jax.vmap(catalogue._compare)(*pairs)
    sums = jax.vmap(catalogue._compare_by_sums)(*pairs)
    np.testing.assert_array_equal(products.same_category, sums.same_category)
    np.testing.assert_array_equal(products.shared, sums.shared)
    np.testing.assert_allclose(products.cosine, sums.cosine, rtol=0, atol=1)


def test_a_gpu_compares_a_batch_by_sums_and_a_cpu_by_products():
    catalogue, *pairs = random_pairs()
    traced = jax.jit(lambda c, *pairs: jax.vmap(c.compare)(*pairs)).trace(catalogue, *pairs)
    text = {name: traced.lower(lowering_platforms=(name,)).as_text() for name in ("cpu", "cuda")}
    assert "dot_general" in text["cpu"]
    assert "dot_general" not in text["cuda"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("item", "value", "message"),
    [
        (0, np.nan, "item_pos_embedding of item 0 is not finite"),
        (0, 0.0, "item 0 has keywords.*pos_embedding is zero"),
        (1, 1.0, "item 1 has no keyword.*pos_embedding is not zero"),
    ],
)
def test_embeddings_that_contradict_the_keywords_are_refused(kind, item, value, message):
    arrays = make_dataset([[0]] * 2, [[0], []], [[], []], [([0, 1], [0, 1])]).arrays
    arrays["item_pos_embedding"] = arrays["item_pos_embedding"].copy()
    arrays["item_pos_embedding"][item] = value
    with pytest.raises(InputError, match=message):
        build_catalogue(arrays, kind=kind)


@pytest.mark.parametrize("count", [3, pytest.param(40, marks=pytest.mark.slow)])
def test_needed_pairs_have_the_cosines_of_all_pairs(count):
    """One by one, and in a batch that is processed in chunks."""
    catalogue, *pairs = random_pairs()
    item, others, side = (x[:count] for x in pairs)
    needed = jnp.asarray(np.random.default_rng(1).random(others.shape) < 0.4)
    everything = jax.vmap(catalogue.compare)(item, others, side)
    for program in (jax.vmap(catalogue.compare), jax.jit(jax.vmap(catalogue.compare))):
        some = program(item, others, side, needed)
        np.testing.assert_array_equal(some.same_category, everything.same_category)
        np.testing.assert_array_equal(some.shared, everything.shared)
        difference = np.where(needed, some.cosine - everything.cosine, 0)
        np.testing.assert_allclose(difference, 0, atol=1)
    for row in range(3):
        one = catalogue.compare(item[row], others[row], side[row], needed[row])
        difference = np.where(needed[row], one.cosine - everything.cosine[row], 0)
        np.testing.assert_allclose(difference, 0, atol=1)


@pytest.mark.parametrize("kind", KINDS)
def test_the_category_alone_is_that_of_the_pairs(kind):
    catalogue = build_catalogue(random_dataset(0).arrays, kind=kind)
    _, item, others, side = random_pairs()
    alone = jax.vmap(catalogue.same_category)(item, others, side)
    np.testing.assert_array_equal(
        alone, jax.vmap(catalogue.compare)(item, others, side).same_category
    )
