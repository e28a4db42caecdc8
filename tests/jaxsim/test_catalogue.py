"""The item-pair tables against brute force over all pairs."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import jaxsim.catalogue
from jaxsim import InputError
from jaxsim.catalogue import COSINE_UNIT, NO_COSINE, build_catalogue
from tests import reference
from tests.factory import make_dataset, random_dataset, unit_rows


@pytest.mark.parametrize("seed", range(3))
def test_tables_are_brute_force_over_pairs(seed):
    arrays = random_dataset(seed).arrays
    items = reference.items_of(arrays)
    tables = build_catalogue(arrays)
    for c, candidate in enumerate(items):
        for i, item in enumerate(items):
            assert tables.same_category[c, i] == bool(candidate.categories & item.categories)
            for s in (0, 1):
                assert tables.overlap[c, s, i] == len(candidate.keywords[s] & item.keywords[s])
                cosine = reference.cosine(candidate.embedding[s], item.embedding[s])
                assert tables.cosine[c, s, i] == (NO_COSINE if cosine is None else cosine)


def embeddings_only(pos: np.ndarray, neg: np.ndarray) -> dict[str, np.ndarray]:
    rows = np.full((len(pos), 1), -1, np.int32)
    return {
        "item_categories": rows, "item_pos_keywords": rows, "item_neg_keywords": rows,
        "item_pos_embedding": pos.astype(np.float32), "item_neg_embedding": neg.astype(np.float32),
    }  # fmt: skip


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 2**32 - 1), num_items=st.integers(1, 40), width=st.integers(1, 400))
def test_cosines_are_symmetric_and_exact_on_the_diagonal(seed, num_items, width):
    rng = np.random.default_rng(seed)
    pos, neg = rng.standard_normal((2, num_items, width))
    copies = rng.integers(0, num_items, num_items)  # some items have the very same keywords
    pos, neg = unit_rows(pos[copies]), unit_rows(neg)
    neg[rng.random(num_items) < 0.3] = 0
    cosine = np.asarray(build_catalogue(embeddings_only(pos, neg)).cosine)
    np.testing.assert_array_equal(cosine, cosine.transpose(2, 1, 0))
    equal = copies[:, None] == copies[None, :]
    assert (cosine[:, 0][equal] <= COSINE_UNIT).all()
    assert (cosine[:, 1][equal] == COSINE_UNIT).all()  # equal keywords tie exactly
    for a, b in zip(*np.nonzero(equal), strict=True):
        np.testing.assert_array_equal(cosine[a, 1], cosine[b, 1])
    known = neg.any(axis=1)
    np.testing.assert_array_equal(cosine[:, 0] == NO_COSINE, ~(known[:, None] & known))
    assert (np.abs(cosine[:, 1]) <= COSINE_UNIT).all()


def test_cosine_does_not_depend_on_the_stored_length():
    pos = np.array([[3, 4], [4, 3], [0, 0.5]])
    cosine = build_catalogue(embeddings_only(pos, pos)).cosine[:, 1]
    expected = [[1_000_000, 960_000, 800_000], [960_000, 1_000_000, 600_000]]
    np.testing.assert_array_equal(cosine[:2], expected)


def test_no_categories_and_no_keywords_are_pairs_of_nothing():
    dataset = make_dataset([[], [0]], [[], [0]], [[], []], [([0, 1], [0, 1])])
    tables = build_catalogue(dataset.arrays)
    np.testing.assert_array_equal(tables.same_category, [[False, False], [False, True]])
    np.testing.assert_array_equal(tables.overlap[:, 1], [[0, 0], [0, 1]])
    np.testing.assert_array_equal(tables.cosine[:, 1], [[NO_COSINE, NO_COSINE], [NO_COSINE, 10**6]])
    assert (np.asarray(tables.cosine[:, 0]) == NO_COSINE).all()


def test_many_shared_keywords_do_not_overflow():
    words = list(range(300))
    dataset = make_dataset([[0], [0]], [words, words], [[], []], [([0, 1], [0, 1])])
    assert build_catalogue(dataset.arrays).overlap[0, 1, 1] == 300


def test_tables_too_large_are_refused(monkeypatch):
    monkeypatch.setattr(jaxsim.catalogue, "TABLE_BUDGET_BYTES", 100)
    with pytest.raises(InputError, match="use fewer items"):
        build_catalogue(random_dataset(0).arrays)
