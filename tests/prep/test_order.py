"""The order of interactions without times: a permutation that depends on ids and seed alone."""

from hashlib import blake2b

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxsim import InputError
from prep.interactions import index_interactions
from prep.order import choose_order, permutation_keys
from tests.prep.test_interactions import ratings


def index(table, file_order=False, order_seed=0):
    """As a build does it."""
    order = choose_order(table["time"].to_numpy(), file_order, order_seed)
    return index_interactions(table, like_threshold=3, order=order, order_seed=order_seed)


def order_of(table, user, **options):
    """The raw item ids of a user's interactions, in their order."""
    indexed = index(table, **options)
    start, end = indexed.arrays["user_offsets"][indexed.users.index(user) :][:2]
    return [indexed.items[item] for item in indexed.arrays["interaction_item"][start:end]]


def table_of(*users, items=range(40)):
    """Every user rates every item, in the order of the items' ids, without times."""
    return ratings(*[(user, str(item), 1 + item % 5, 0) for user in users for item in items])


def key_by_hand(user, item, seed):
    """A key in plain integers, from the definition."""

    def digest(raw, kind):
        salt = seed.to_bytes(8, "little")
        hashed = blake2b(raw.encode(), digest_size=8, salt=salt, person=kind)
        return int.from_bytes(hashed.digest(), "little")

    key = (digest(user, b"user") + digest(item, b"item")) % 2**64
    key = (key ^ key >> 30) * 0xBF58476D1CE4E5B9 % 2**64
    key = (key ^ key >> 27) * 0x94D049BB133111EB % 2**64
    return key ^ key >> 31


def test_keys_by_hand():
    users, items = ["7", "ü"], ["10", "9"]
    user, item = np.array([0, 0, 1, 1]), np.array([0, 1, 1, 0])
    keys = permutation_keys(user, users, item, items, seed=3)
    assert keys.dtype == np.uint64
    expected = [key_by_hand(users[u], items[i], 3) for u, i in zip(user, item, strict=True)]
    assert keys.tolist() == expected
    # Fixed for good: another number would silently change every split that was published.
    assert permutation_keys(user[:1], ["1"], item[:1], ["20"], 0).tolist() == [14833941935157459884]


def test_ratings_without_times_are_permuted_and_not_left_in_the_order_of_ids():
    items = [str(item) for item in range(40)]
    order = order_of(table_of("a", "b"), "a")
    assert sorted(order) == sorted(items)
    assert order != items
    assert order != order_of(table_of("a", "b"), "b")
    assert order == sorted(items, key=lambda item: key_by_hand("a", item, 0))


def test_every_item_is_as_likely_to_be_held_out():
    """1,000 users rate the same ten items; each item is the last one of about 100 users."""
    users = [f"u{user}" for user in range(1000)]
    indexed = index(table_of(*users, items=range(10)))
    last = indexed.arrays["interaction_item"][9::10]
    counts = np.bincount(last, minlength=10)
    assert counts.sum() == 1000
    # Chi-squared with 9 degrees of freedom: 27.9 is exceeded once in 1,000 times.
    assert ((counts - 100) ** 2 / 100).sum() < 27.9


def test_neither_other_users_nor_other_items_change_a_users_order():
    alone = order_of(table_of("a"), "a")
    assert order_of(table_of("c", "a", "b"), "a") == alone
    half = order_of(table_of("a", items=range(0, 40, 2)), "a")
    assert half == [item for item in alone if int(item) % 2 == 0]


@given(st.permutations(range(24)), st.integers(0, 2**32 - 1))
def test_the_order_of_the_lines_does_not_matter(lines, seed):
    table = table_of("a", "b", items=range(12))
    shuffled = table.iloc[lines].reset_index(drop=True)
    first = index(table, order_seed=seed)
    second = index(shuffled, order_seed=seed)
    for name, array in first.arrays.items():
        np.testing.assert_array_equal(array, second.arrays[name])


def test_another_seed_is_another_permutation():
    orders = {tuple(order_of(table_of("a"), "a", order_seed=seed)) for seed in range(20)}
    assert len(orders) == 20


def test_the_order_of_the_file_on_request():
    table = ratings(("a", "2", 5, 0), ("b", "2", 1, 0), ("a", "10", 5, 0), ("a", "1", 1, 0))
    assert order_of(table, "a", file_order=True) == ["2", "10", "1"]
    assert index(table, file_order=True).order == "file"


def test_of_repeated_ratings_the_last_line_counts_in_any_order():
    table = ratings(*[("a", str(item), 1, 0) for item in range(9)], ("a", "3", 5, 0))
    for options in ({}, {"file_order": True}, {"order_seed": 5}):
        indexed = index(table, **options)
        assert indexed.duplicates == 1
        liked = indexed.arrays["interaction_label"] == 1
        assert indexed.rows[liked].tolist() == [9]
        assert indexed.arrays["interaction_item"][liked].tolist() == [3]


def test_rows_and_arrays_stay_together():
    table = table_of("b", "a")
    indexed = index(table)
    chosen = table.iloc[indexed.rows]
    users = np.array(indexed.users)[indexed.users_of_rows]
    assert chosen["user_id"].tolist() == users.tolist()
    items = np.array(indexed.items)[indexed.arrays["interaction_item"]]
    assert chosen["item_id"].tolist() == items.tolist()
    assert chosen["rating"].tolist() == indexed.arrays["interaction_rating"].tolist()


@pytest.mark.parametrize(
    ("times", "order"),
    [
        ([0, 0, 0], "permutation"),
        ([1500, 1500, 1500], "permutation"),  # as if there were none: equal times order nothing
        ([0, 0, 1], "time"),
        ([], "permutation"),
    ],
)
def test_a_dataset_has_times_if_they_differ(times, order):
    times = np.array(times, np.int64)
    assert choose_order(times, file_order=False, seed=0) == order
    if order == "permutation":
        assert choose_order(times, file_order=True, seed=0) == "file"
        assert choose_order(times, file_order=False, seed=9) == "permutation"
        return
    for file_order, seed, option in ((True, 0, "--file-order:"), (False, 9, "--order-seed 9:")):
        with pytest.raises(InputError, match=f"^{option} these ratings have times"):
            choose_order(times, file_order, seed)


def test_times_order_as_ever_and_ties_by_rows():
    """A user whose own times are all the same keeps the order of the file if the dataset has times."""
    rows = [("a", str(item), 5, 7) for item in (3, 1, 2)] + [("b", "1", 1, 9)]
    assert order_of(ratings(*rows), "a") == ["3", "1", "2"]
    assert index(ratings(*rows)).order == "time"


def test_ids_that_are_no_unicode_have_keys():
    keys = permutation_keys(np.array([0]), ["\ud800"], np.array([0]), ["1"], 0)
    assert keys.shape == (1,)
