from itertools import chain

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxsim import InputError
from prep.interactions import index_interactions, sorted_ids, split_codes


def test_ids_are_ordered_as_numbers_only_if_all_are():
    assert sorted_ids(["10", "9", "10", "1"]) == ["1", "9", "10"]
    assert sorted_ids(["10", "9", "b"]) == ["10", "9", "b"]


@pytest.mark.parametrize(
    ("count", "ratio", "loo"),
    [
        (1, "0", "0"),
        (4, "0000", "0000"),
        (5, "00002", "00012"),  # floor(4.0) = 4, floor(4.5) = 4
        (9, "000000012", "000000012"),  # floor(7.2) = 7, floor(8.1) = 8
        (12, "000000000122", "000000000012"),
    ],
)
@pytest.mark.parametrize("rule", ["ratio", "loo"])
def test_split_by_hand(count, ratio, loo, rule):
    codes = {"ratio": ratio, "loo": loo}[rule]
    split = split_codes(np.array([count]), rule)
    assert "".join(map(str, split)) == codes
    assert split.dtype == np.int8


@given(st.lists(st.integers(0, 40), max_size=30))
def test_users_are_split_one_by_one(counts):
    for rule in ("ratio", "loo"):
        expected = [split_codes(np.array([count]), rule).tolist() for count in counts]
        assert split_codes(np.array(counts, np.int64), rule).tolist() == list(chain(*expected))


def ratings(*rows):
    users, items, stars, times = zip(*rows, strict=True)
    return pd.DataFrame(
        {
            "user_id": pd.Categorical(users),
            "item_id": pd.Categorical(items),
            "rating": np.array(stars, np.float32),
            "time": np.array(times),
        }
    )


def test_order_is_user_time_row_and_the_last_rating_of_an_item_counts():
    indexed = index_interactions(
        ratings(
            ("10", "b", 4, 7),
            ("9", "a", 3.5, 5),
            ("10", "a", 1, 7),  # same second as the first row, so after it
            ("9", "b", 5, 2),
            ("10", "c", 3, 1),
            ("9", "a", 4, 1),  # rated again at 5: dropped
        ),
        like_threshold=3.5,
    )
    assert indexed.users == ["9", "10"]
    assert indexed.items == ["a", "b", "c"]
    np.testing.assert_array_equal(indexed.rows, [3, 1, 4, 0, 2])
    assert indexed.duplicates == 1
    arrays = indexed.arrays
    np.testing.assert_array_equal(arrays["user_offsets"], [0, 2, 5])
    np.testing.assert_array_equal(arrays["interaction_item"], [1, 0, 2, 1, 0])
    np.testing.assert_array_equal(arrays["interaction_label"], [1, 1, 0, 1, 0])
    np.testing.assert_array_equal(arrays["interaction_rating"], [5, 3.5, 3, 4, 1])
    np.testing.assert_array_equal(arrays["interaction_time"], [2, 5, 1, 7, 7])
    np.testing.assert_array_equal(arrays["interaction_split"], [0] * 5)


ROWS = [("u", "a", 5, 1), ("u", "b", 5, 2), ("v", "a", 1, 1), ("v", "b", 1, 2), ("w", "a", 3, 1),
        ("w", "c", 3, 2), ("x", "c", 3, 2)]  # fmt: skip


def test_the_core_is_what_is_left_when_dropping_ends():
    # c has two ratings until x, who has one, goes; then w has one left and goes too.
    indexed = index_interactions(ratings(*ROWS), 3, min_user_ratings=2, min_item_ratings=2)
    assert (indexed.users, indexed.items, indexed.too_few) == (["u", "v"], ["a", "b"], 3)
    np.testing.assert_array_equal(indexed.rows, [0, 1, 2, 3])
    with pytest.raises(InputError, match="no user has 3 ratings of items with 1: lower --min-user"):
        index_interactions(ratings(*ROWS), 3, min_user_ratings=3)


def test_few_users_are_those_of_every_build_and_come_before_all_that_is_dropped():
    whole = index_interactions(ratings(*ROWS), 3)
    few = index_interactions(ratings(*ROWS), 3, limit_users=2)
    assert len(few.users) == 2
    assert (few.duplicates, few.too_few) == (0, 0)  # the others are not dropped ratings
    again = index_interactions(ratings(*reversed(ROWS)), 3, limit_users=2)
    assert again.users == few.users
    of_whole = [row for row in whole.rows if ROWS[row][0] in few.users]
    np.testing.assert_array_equal(
        few.rows, of_whole
    )  # rows of the table, where texts are looked up
    everyone = index_interactions(ratings(*ROWS), 3, limit_users=99)
    assert everyone.users == whole.users


def test_items_without_a_rating_join_when_wanted():
    indexed = index_interactions(ratings(("u", "10", 5, 1), ("u", "9", 1, 1)), 3, ["11", "9", "1"])
    assert indexed.items == ["1", "9", "10", "11"]
    np.testing.assert_array_equal(indexed.arrays["interaction_item"], [2, 1])


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6), st.integers(1, 5), st.integers(0, 3)),
                min_size=1, max_size=60))  # fmt: skip
def test_agrees_with_plain_python(rows):
    table = ratings(*[(str(u), str(i), r, t) for u, i, r, t in rows])
    indexed = index_interactions(table, 3)
    last = {}
    for row in sorted(range(len(rows)), key=lambda row: (rows[row][0], rows[row][3], row)):
        last.pop(rows[row][:2], None)
        last[rows[row][:2]] = row
    assert indexed.rows.tolist() == list(last.values())
    assert indexed.users == sorted({str(u) for u, _ in last})
    assert indexed.users_of_rows.tolist() == [indexed.users.index(str(u)) for u, _ in last]
    assert indexed.duplicates == len(rows) - len(last)
