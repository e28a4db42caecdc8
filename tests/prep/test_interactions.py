import numpy as np
import pandas as pd
import pytest

from prep.interactions import index_interactions, sorted_ids, split_codes


def test_ids_are_ordered_as_numbers_only_if_all_are():
    assert sorted_ids(["10", "9", "10", "1"]) == ["1", "9", "10"]
    assert sorted_ids(["10", "9", "b"]) == ["10", "9", "b"]


@pytest.mark.parametrize(
    ("count", "codes"),
    [
        (1, "0"),
        (4, "0000"),
        (5, "00002"),  # floor(4.0) = 4, floor(4.5) = 4
        (9, "000000012"),  # floor(7.2) = 7, floor(8.1) = 8
        (10, "0000000012"),
    ],
)
def test_split_by_hand(count, codes):
    split = split_codes(count)
    assert "".join(map(str, split)) == codes
    assert split.dtype == np.int8


def ratings(*rows):
    users, items, stars, times = zip(*rows, strict=True)
    return pd.DataFrame(
        {
            "user_id": users,
            "item_id": items,
            "rating": np.array(stars, np.float32),
            "time": np.array(times),
        }
    )


def test_order_is_user_time_row_and_the_last_rating_of_an_item_counts():
    found = index_interactions(
        ratings(
            ("10", "b", 4, 7),
            ("9", "a", 3.5, 5),
            ("10", "a", 1, 7),  # same second as the first row, so after it
            ("9", "b", 5, 2),
            ("10", "c", 3, 1),
            ("9", "a", 4, 1),  # rated again at 5: dropped
        ),
        ["a", "b", "c"],
        like_threshold=3.5,
    )
    assert found.users == ["9", "10"]
    assert found.duplicates == 1
    arrays = found.arrays
    np.testing.assert_array_equal(arrays["user_offsets"], [0, 2, 5])
    np.testing.assert_array_equal(arrays["interaction_item"], [1, 0, 2, 1, 0])
    np.testing.assert_array_equal(arrays["interaction_label"], [1, 1, 0, 1, 0])
    np.testing.assert_array_equal(arrays["interaction_rating"], [5, 3.5, 3, 4, 1])
    np.testing.assert_array_equal(arrays["interaction_time"], [2, 5, 1, 7, 7])
    np.testing.assert_array_equal(arrays["interaction_split"], [0] * 5)
