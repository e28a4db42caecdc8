"""What the simulator computes for events: the margins of f_mat and f_sim, and f_sta's probability."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.fidelity.events import Events
from jaxsim import Dataset, Decision, EnvParams, UserSimulator, make
from jaxsim.catalogue import build_catalogue
from jaxsim.sasrec import restore

BATCH = 512  # events at once: every number of events then runs the same compiled program
EMPTY_SIDE = -1.0  # the cosine in place of the maximum over no item


class Simulator:
    """A simulator that answers for events, and remembers its answers as long as the events exist."""

    def __init__(self, env: UserSimulator, params: EnvParams) -> None:
        self.env, self.params = env, params
        self._margins: WeakKeyDictionary[Events, tuple[np.ndarray, ...]] = WeakKeyDictionary()
        self._probabilities: WeakKeyDictionary[Events, np.ndarray] = WeakKeyDictionary()

    @classmethod
    def of(cls, dataset: Dataset) -> "Simulator":
        """The simulator of a dataset; f_sta reads histories as long as it was trained for."""
        window = int(dataset.manifest["sasrec"]["architecture"]["window"])
        # Sessions are never played: how the window is divided, and repeats, change nothing.
        env, params = make(
            dataset,
            repeats="allow",
            history_length=max(1, window - 1),
            session_capacity=1,
            users="all",
            prefixes="encode",
        )
        return cls(env, params)

    def margins(self, events: Events) -> tuple[np.ndarray, ...]:
        """alpha_pos - alpha_neg of f_mat, and beta_pos - beta_neg of f_sim, float64[E] each.

        The cosine over no item is -1.
        """
        if events not in self._margins:
            self._margins[events] = self._answer(events, _two_margins)
        return self._margins[events]

    def probability(self, events: Events) -> np.ndarray:
        """f_sta's probability of a like, float64[E]."""
        if events not in self._probabilities:
            (self._probabilities[events],) = self._answer(events, _sta_probability)
        return self._probabilities[events]

    def _answer(
        self, events: Events, read: Callable[[Decision], tuple[jax.Array, ...]]
    ) -> tuple[np.ndarray, ...]:
        """What `read` takes from the decision on each event, float64[E] each."""
        arrays = (events.user, events.item, events.history_items, events.history_labels)
        parts = []
        # At least one batch, so that no events have results of the right number, too.
        for first in range(0, max(1, len(events)), BATCH):
            batch = [jnp.asarray(padded(x[first : first + BATCH])) for x in arrays]
            parts.append(jax.device_get(_respond(self.env, self.params, batch, read)))
        return tuple(
            np.concatenate(x).astype(np.float64)[: len(events)] for x in zip(*parts, strict=True)
        )

    def with_keywords_of(self, dataset: Dataset) -> "Simulator":
        """The simulator with the keywords and embeddings of another dataset with the same items."""
        catalogue = build_catalogue(dataset.arrays, kind=self.env.catalogue)
        return Simulator(self.env, self.params.replace(catalogue=catalogue))

    def with_sta(self, weights: Mapping[str, np.ndarray], entry: Mapping[str, Any]) -> "Simulator":
        """The simulator with another f_sta of the same window: results of `train_sasrec`."""
        model, variables = restore(entry, weights)
        env = replace(self.env, sasrec=model)
        return Simulator(env, self.params.replace(sasrec=variables))


def padded(rows: np.ndarray) -> np.ndarray:
    """The rows of an array with zeros behind them, BATCH in all."""
    padding = np.zeros((BATCH - len(rows), *rows.shape[1:]), rows.dtype)
    return np.concatenate([rows, padding])


def vote(margin: np.ndarray) -> np.ndarray:
    """The vote that a margin gives: 1 above 0, 0 below 0, 1/2 for a tie."""
    return 0.5 + 0.5 * np.sign(margin)


def _two_margins(decision: Decision) -> tuple[jax.Array, ...]:
    pos, neg = (
        jnp.where(jnp.isneginf(beta), EMPTY_SIDE, beta)
        for beta in (decision.beta_pos, decision.beta_neg)
    )
    return (decision.alpha_pos - decision.alpha_neg).astype(jnp.float32), pos - neg


def _sta_probability(decision: Decision) -> tuple[jax.Array, ...]:
    return (decision.sta_probability,)


@partial(jax.jit, static_argnames=("env", "read"))
def _respond(
    env: UserSimulator,
    params: EnvParams,
    batch: list[jax.Array],
    read: Callable[[Decision], tuple[jax.Array, ...]],
) -> tuple[jax.Array, ...]:
    """What `read` takes from the decision on each of a batch of events; XLA leaves out the rest."""

    def respond(
        user: jax.Array, item: jax.Array, items: jax.Array, labels: jax.Array
    ) -> tuple[jax.Array, ...]:
        # The key does not matter: margins and the probability do not depend on coins.
        return read(env.respond(jax.random.key(0), items, labels, item, params, user=user))

    return jax.vmap(respond)(*batch)
