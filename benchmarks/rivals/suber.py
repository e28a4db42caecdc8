"""A model of users in the manner of SUBER (Corecco et al. 2024): a language model is asked at every step.

It plays in the environment like any other model of users. Inside jit, `jax.pure_callback` hands the questions of
all sessions of a batch to `prep.annotation.online.OnlineScorer` at once, which asks the language model side by
side. A step takes as long as the model's answers, so training an agent takes as many calls as it takes steps.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

import prep
from benchmarks.rivals.window import Window
from jaxsim import UserModel
from prep.annotation.online import OnlineScorer


class Recording(NamedTuple):
    """Answers of a language model that come with the package.

    Attributes:
        path: file for `prep.annotation.online.RecordedScores`.
        raw: SHA-256 of raw files by name, where ids mean something in these files only; else empty.
        settings: of the build, by name, where the questions depend on them; else empty.
    """

    path: Path
    raw: Mapping[str, str] = {}
    settings: Mapping[str, Any] = {}

    def other_than(self, manifest: Mapping[str, Any]) -> tuple[str, ...]:
        """In what the manifest of a dataset differs from that of the questions, in words; nothing if it fits."""
        raw, settings = (manifest.get(part) or {} for part in ("raw", "settings"))
        files = tuple(f"another {name}" for name, code in self.raw.items() if raw.get(name) != code)
        return files + tuple(
            f"{name} {settings.get(name)} in place of {value}"
            for name, value in self.settings.items()
            if settings.get(name) != value
        )


_DATA = Path(prep.__file__).parent / "data"
RECORDED = {
    "ml-100k": Recording(_DATA / "ml-100k" / "online_llm_scores.csv"),
    "anime": Recording(
        _DATA / "anime" / "online_llm_scores.csv",
        {"rating.csv": "33920901a96d48b1c5a865de5ca4dbcdbafbc0b1ab30327fb3d777a951129454"},
        {"like_threshold": 8.0, "split": "ratio", "order": "permutation", "order_seed": 0},
    ),
}
"""The recordings by dataset."""


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
