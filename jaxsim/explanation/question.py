"""The question that an explanation puts to the simulator, and the outcomes that it gets.

A question is one decision of `UserSimulator.respond`. Counterfactuals ask it again on changed histories, a batch
at a time and with the same key. How a decision is read depends on the model of the user: `VoteOutcomes` and
`TasteOutcomes`.
"""

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, Self, TypeVar

import jax
import numpy as np

from jaxsim.ensemble import Decision
from jaxsim.environment import UserSimulator
from jaxsim.types import EnvParams

BATCH = 64  # histories in one compiled call


@dataclass(frozen=True)
class History:
    """A history of n interactions without its padding.

    Attributes:
        positions: int[n], positions in the history that the caller passed.
        items: int32[n].
        likes: int8[n], 1 like, 0 dislike.
    """

    positions: np.ndarray
    items: np.ndarray
    likes: np.ndarray


@functools.partial(jax.jit, static_argnames="env")
def respond_to_each(
    env: UserSimulator,
    key: jax.Array,
    items: jax.Array,
    likes: jax.Array,
    candidate: jax.Array,
    params: EnvParams,
    user: jax.Array,
) -> Decision:
    """`env.respond` for each of B histories int32[B, H], int8[B, H], with the same key."""

    def respond(items: jax.Array, likes: jax.Array) -> Decision:
        return env.respond(key, items, likes, candidate, params, user, reasons=True)

    return jax.vmap(respond)(items, likes)


class Outcomes(ABC):
    """Decisions on R histories, or on R versions of the candidate."""

    @property
    @abstractmethod
    def like_probability(self) -> np.ndarray:
        """Probability of a like, float64[R]."""

    @property
    @abstractmethod
    def leaning(self) -> np.ndarray:
        """1 towards a like, -1 towards a dislike, 0 if neither; float64[R]."""

    def flipped(self, base: Self) -> np.ndarray:
        """Which rows flip the one decision of `base`, bool[R]."""
        before = base.leaning[0]
        return self.leaning != 0 if before == 0 else self.leaning == -before

    def margin(self, base: Self) -> np.ndarray:
        """How far `like_probability` is from 1/2, away from the decision of `base`; float64[R]."""
        away = self.like_probability - 0.5
        return np.abs(away) if base.leaning[0] == 0 else -base.leaning[0] * away

    def distance(self, base: Self) -> np.ndarray:
        """How far the decision of `base` is from turning, float64[R]; only the order of these means something."""
        return -self.margin(base)


OutcomesT = TypeVar("OutcomesT", bound=Outcomes)


@dataclass(frozen=True)
class Question(Generic[OutcomesT]):
    """The arguments of one `respond`; if `key` is None, coins and draws stay open.

    Attributes:
        env, params: of `jaxsim.make`.
        key: PRNG key of the coins, or of the draw.
        history: of the user.
        candidate: the item.
        user: index of the user; -1 for the mean user effect.
        read: the outcomes of what `respond` returned for R histories, and of whether the caller gave a key.
        position: of the candidate in the session, from 1; None if it is not known.
        flips: whether counterfactuals will be asked; otherwise the question is asked once, in a batch of one.
    """

    env: UserSimulator
    params: EnvParams
    key: jax.Array | None
    history: History
    candidate: int
    user: int
    read: Callable[[Decision, bool], OutcomesT]
    position: int | None = None
    flips: bool = True

    def ask(self) -> OutcomesT:
        """The outcome on the unchanged history, one row."""
        return self.ask_of(self.history.items[None], self.history.likes[None])

    def ask_without(self, left_out: Sequence[Sequence[int]]) -> OutcomesT:
        """Outcomes on the history without each of R lists of its interactions."""
        return self.ask_of(*without(self.history, left_out))

    def ask_of(self, items: np.ndarray, likes: np.ndarray) -> OutcomesT:
        """Outcomes on R other histories, int32[R, n] (-1 pads) and int8[R, n]."""
        rows, length = items.shape
        # respond needs a key; where coins and draws are open, nothing reads how they fall.
        key = jax.random.key(0) if self.key is None else self.key
        parts = []
        size = BATCH if self.flips else 1
        for start in range(0, rows, size):
            batch = slice(start, start + size)
            missing = size - len(items[batch]), _padded_length(self.env, length) - length
            pad = (0, missing[0]), (0, missing[1])
            part = respond_to_each(
                self.env,
                key,
                np.pad(items[batch], pad, constant_values=-1),
                np.pad(likes[batch], pad),
                np.int32(self.candidate),
                self.params,
                np.int32(self.user),
            )
            parts.append(jax.device_get(part))
        joined: Decision = jax.tree.map(lambda *xs: np.concatenate(xs)[:rows], *parts)
        return self.read(joined, self.key is not None)


def _padded_length(env: UserSimulator, length: int) -> int:
    return env.window if length <= env.window else 1 << (length - 1).bit_length()


def without(history: History, left_out: Sequence[Sequence[int]]) -> tuple[np.ndarray, np.ndarray]:
    """The history without each of R lists of interactions: int32[R, n] (-1 pads), int8[R, n]."""
    shape = len(left_out), len(history.items)
    items = np.broadcast_to(history.items, shape).copy()
    for row, interactions in enumerate(left_out):
        items[row, list(interactions)] = -1
    return items, np.broadcast_to(history.likes, shape)
