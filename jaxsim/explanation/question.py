"""The question that an explanation puts to the simulator, and the outcomes that it gets.

A question is one decision of `UserSimulator.respond`. Counterfactuals ask it again on changed histories, a batch
at a time and with the same coins.
"""

import functools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import jax
import numpy as np

from jaxsim.ensemble import Decision, majority_probability
from jaxsim.environment import UserSimulator
from jaxsim.explanation.types import Change, Flip
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
    """`env.respond` for each of B histories int32[B, H], int8[B, H], with the same coins."""

    def respond(items: jax.Array, likes: jax.Array) -> Decision:
        return env.respond(key, items, likes, candidate, params, user, reasons=True)

    return jax.vmap(respond)(items, likes)


@dataclass(frozen=True)
class Outcomes:
    """Decisions on R histories, or on R versions of the candidate.

    Attributes:
        votes: int8[R, 3], after the coins fell.
        tied: bool[R, 3], whether a coin decided the vote.
        sta_probability: float32[R], f_sta's probability of a like.
        keyed: whether the caller gave a key; without one the coins stay open.
        decision: what `respond` returned for R histories.
    """

    votes: np.ndarray
    tied: np.ndarray
    sta_probability: np.ndarray
    keyed: bool
    decision: Decision

    @property
    def like_probability(self) -> np.ndarray:
        """Probability of a like over the coins, float64[R]."""
        return majority_probability(*np.where(self.tied, 0.5, self.votes).T)

    @property
    def leaning(self) -> np.ndarray:
        """1 towards a like, -1 towards a dislike, 0 if open coins leave it undecided; float64[R]."""
        likes = self.votes.sum(axis=1) >= 2 if self.keyed else self.like_probability
        return np.sign(likes - 0.5)

    def flipped(self, base: "Outcomes") -> np.ndarray:
        """Which rows flip the one decision of `base`, bool[R]; see `ExplanationFields.flips`."""
        before = base.leaning[0]
        return self.leaning != 0 if before == 0 else self.leaning == -before

    def margin(self, base: "Outcomes") -> np.ndarray:
        """How far `like_probability` is from 1/2, away from the decision of `base`; float64[R]."""
        away = self.like_probability - 0.5
        return np.abs(away) if base.leaning[0] == 0 else -base.leaning[0] * away

    def open_votes(self, row: int) -> tuple[int | None, ...]:
        """The votes of a row; None where an open coin has to decide."""
        is_open = self.tied[row] & (not self.keyed)
        return tuple(
            None if coin else int(vote) for coin, vote in zip(is_open, self.votes[row], strict=True)
        )

    def like(self, row: int) -> bool | None:
        """The decision of a row; None if open coins have to make it."""
        if self.keyed:
            return bool(self.votes[row].sum() >= 2)
        return {0.0: False, 1.0: True}.get(float(self.like_probability[row]))

    def flip(self, row: int, changes: Iterable[Change]) -> Flip:
        """The decision of a row as a `Flip`."""
        return Flip(
            changes=tuple(changes),
            votes=self.open_votes(row),
            sta_probability=float(self.sta_probability[row]),
            like=self.like(row),
            like_probability=float(self.like_probability[row]),
        )


@dataclass(frozen=True)
class Question:
    """The arguments of one `respond`; if `key` is None, coins stay open.

    Attributes:
        env, params: of `jaxsim.make`.
        key: PRNG key of the coins.
        history: of the user.
        candidate: the item.
        user: index of the user; -1 for the mean user effect.
    """

    env: UserSimulator
    params: EnvParams
    key: jax.Array | None
    history: History
    candidate: int
    user: int

    def ask(self) -> Outcomes:
        """The outcome on the unchanged history, one row."""
        return self.ask_of(self.history.items[None], self.history.likes[None])

    def ask_without(self, left_out: Sequence[Sequence[int]]) -> Outcomes:
        """Outcomes on the history without each of R lists of its interactions."""
        return self.ask_of(*without(self.history, left_out))

    def ask_of(self, items: np.ndarray, likes: np.ndarray) -> Outcomes:
        """Outcomes on R other histories, int32[R, n] (-1 pads) and int8[R, n]."""
        rows, length = items.shape
        # respond needs a key; where coins are open, nothing reads how they fall.
        key = jax.random.key(0) if self.key is None else self.key
        parts = []
        for start in range(0, rows, BATCH):
            batch = slice(start, start + BATCH)
            missing = BATCH - len(items[batch]), _padded_length(self.env, length) - length
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
        assert joined.reasons is not None
        return Outcomes(
            votes=np.asarray(joined.votes),
            tied=np.pad(np.asarray(joined.reasons.tied), ((0, 0), (0, 1))),  # f_sta never ties
            sta_probability=np.asarray(joined.sta_probability),
            keyed=self.key is not None,
            decision=joined,
        )


def _padded_length(env: UserSimulator, length: int) -> int:
    return env.window if length <= env.window else 1 << (length - 1).bit_length()


def without(history: History, left_out: Sequence[Sequence[int]]) -> tuple[np.ndarray, np.ndarray]:
    """The history without each of R lists of interactions: int32[R, n] (-1 pads), int8[R, n]."""
    shape = len(left_out), len(history.items)
    items = np.broadcast_to(history.items, shape).copy()
    for row, interactions in enumerate(left_out):
        items[row, list(interactions)] = -1
    return items, np.broadcast_to(history.likes, shape)
