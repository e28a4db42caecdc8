"""A model of users in the manner of SUBER (Corecco et al. 2024): a language model is asked at every step.

It plays in the environment like any other model of users. Inside jit, `jax.pure_callback` hands the questions of
all sessions of a batch to `prep.annotation.online.OnlineScorer` at once, which asks the language model side by
side. A step takes as long as the model's answers, so training an agent takes as many calls as it takes steps.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

import prep
from benchmarks.rivals.window import Window
from jaxsim import UserModel
from prep.annotation.online import OnlineScorer

RECORDED = {"ml-100k": Path(prep.__file__).parent / "data" / "ml-100k" / "online_llm_scores.csv"}
"""Answers of a language model that come with the package, by dataset."""


@struct.dataclass
class SuberState:
    """The user, int32[] (-1 if unknown), and their latest interactions."""

    user: jax.Array
    window: Window


@dataclass(frozen=True)
class SuberUser(UserModel):
    """The user of SUBER, for `jaxsim.make(user_model=SuberUser(scorer))`; there are no params.

    `probabilities` asks about every item of the catalogue.

    Attributes:
        scorer: who is asked.
        window: the latest interactions that describe the user.
    """

    scorer: OnlineScorer
    window: int = 50

    def init(
        self, params: Any, user: jax.Array, items: jax.Array, likes: jax.Array, length: jax.Array
    ) -> SuberState:
        """See `UserModel`."""
        return SuberState(user, Window.of(self.window, items, likes, length))

    def probability(self, params: Any, state: SuberState, item: jax.Array) -> jax.Array:
        """See `UserModel`."""
        shape = jax.ShapeDtypeStruct((), jnp.float32)
        arguments = state.user, state.window.items, state.window.likes, item
        return jax.pure_callback(self._ask, shape, *arguments, vmap_method="broadcast_all")

    def update(
        self, params: Any, state: SuberState, item: jax.Array, like: jax.Array
    ) -> SuberState:
        """See `UserModel`."""
        return SuberState(state.user, state.window.appended(item, like))

    def _ask(self, user: Any, items: Any, likes: Any, item: Any) -> np.ndarray:
        """The probabilities float32[...] for sessions with any leading dimensions."""
        user, items, likes, item = (np.asarray(x) for x in (user, items, likes, item))
        rows = (-1, self.window)
        answers = self.scorer.probabilities(
            user.reshape(-1), items.reshape(rows), likes.reshape(rows), item.reshape(-1)
        )
        return answers.reshape(item.shape)
