"""The order of each user's interactions: that of time, or a seeded permutation if the dataset has no times.

The order of a file without times is often that of ids. Each user's lines of `anime` are sorted by title, so the
last tenth of them, the test split, would be the titles that were added last. A permutation gives all three splits
the same kind of titles.
"""

from collections.abc import Iterable
from hashlib import blake2b
from typing import Literal

import numpy as np

from jaxsim import InputError

Order = Literal["time", "permutation", "file"]

_HASH_BYTES = 8


def choose_order(time: np.ndarray, file_order: bool, seed: int) -> Order:
    """Choose what the ratings of each user are ordered by.

    Args:
        time: int64[M], seconds. If all of them are the same, the dataset has no times.
        file_order: whether the order of the file counts if there are no times.
        seed: of the permutation; 0 unless the user gave another.

    Raises:
        InputError: the dataset has times, and the user asks for another order.
    """
    has_times = bool((time[1:] != time[:-1]).any())
    if has_times and (file_order or seed):
        option = "--file-order" if file_order else f"--order-seed {seed}"
        raise InputError(
            f"{option}: these ratings have times, and are ordered by them; leave it out"
        )
    if has_times:
        return "time"
    return "file" if file_order else "permutation"


def permutation_keys(
    user: np.ndarray,
    user_ids: Iterable[str],
    item: np.ndarray,
    item_ids: Iterable[str],
    seed: int,
) -> np.ndarray:
    """Keys whose ascending order is a random permutation of each user's items.

    A key depends on the seed, the raw id of the user and the raw id of the item, and on nothing else. So neither
    other users nor other items change the order of two interactions, and it is the same on every platform.

    Args:
        user, item: integer[M], positions in `user_ids` and `item_ids`.
        user_ids, item_ids: distinct raw ids.
        seed: from 0, below 2**64.

    Returns:
        uint64[M].
    """
    users, items = _hashes(user_ids, b"user", seed), _hashes(item_ids, b"item", seed)
    return _mix(users[user] + items[item])  # sums of uint64 wrap around


def _hashes(ids: Iterable[str], kind: bytes, seed: int) -> np.ndarray:
    """uint64[number of ids]: BLAKE2b of each id, another one for each kind of id and each seed."""
    salt = seed.to_bytes(8, "little")
    digests = (
        blake2b(
            raw.encode("utf-8", "surrogatepass"), digest_size=_HASH_BYTES, salt=salt, person=kind
        ).digest()
        for raw in ids
    )
    return np.frombuffer(b"".join(digests), "<u8").astype(np.uint64)


def _mix(values: np.ndarray) -> np.ndarray:
    """The output function of SplitMix64, a bijection on 64 bits, of each of uint64[M]."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
