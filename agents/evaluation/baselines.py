"""The baselines that every learned policy is compared with.

A baseline is a pytree with the methods of `EvaluatedPolicy`. Most baselines look at the observation only; the
oracle reads the simulator's state, which no recommender can. Each has a static name, because JAX treats dataclass
pytrees of different types as equal if their static fields and leaves are equal: policies without any could share a
compilation.
"""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from agents.algorithms.choice import random_allowed, uniform_over, uniform_slate
from agents.algorithms.policy import EvaluatedPolicy, Memoryless, Simulator, single_of
from agents.algorithms.rollout import RecommenderEnv
from agents.evaluation.oracle import Oracle, best_action
from agents.evaluation.planning import plan
from agents.evaluation.sessions import batch_size
from jaxsim import Dataset, EnvParams, InputError, Observation, SlateSimulator
from jaxsim.dataset import TRAIN

SMOOTHING = 5.0
MOST_USERS = 2048  # whose expected responses rank static_best


@struct.dataclass
class RandomPolicy(Memoryless):
    """Any allowed item, uniformly; K of them in random order as a slate."""

    name: str = struct.field(pytree_node=False, default="random")

    def choose(
        self, key: jax.Array, env: RecommenderEnv, obs: Observation, params: EnvParams
    ) -> jax.Array:
        """See `Memoryless`."""
        if isinstance(env, SlateSimulator):
            scores = jax.random.uniform(key, (env.num_items,), jnp.float32)
            return best_action(env, scores, obs, params)
        return random_allowed(key, env.action_mask(obs, params))

    def propensity(
        self, env: RecommenderEnv, obs: Observation, params: EnvParams, action: jax.Array
    ) -> jax.Array:
        """See `Memoryless`."""
        mask = env.action_mask(obs, params)
        if isinstance(env, SlateSimulator):
            return uniform_slate(mask, env.slate_size)
        return uniform_over(mask)[action]


@struct.dataclass
class FixedRanking(Memoryless):
    """The allowed item with the highest score, or the K highest; the scores are the same for every user.

    Attributes:
        scores: float32[N].
    """

    scores: jax.Array
    name: str = struct.field(pytree_node=False, default="fixed_ranking")

    def choose(
        self, key: jax.Array, env: RecommenderEnv, obs: Observation, params: EnvParams
    ) -> jax.Array:
        """See `Memoryless`."""
        return best_action(env, self.scores, obs, params)


@struct.dataclass
class RepeatLastLiked(Memoryless):
    """The allowed item that was liked last; any allowed item if there is none. Meant for `repeats="allow"`.

    A slate has the K items that were liked last, filled up with any others.
    """

    name: str = struct.field(pytree_node=False, default="repeat_last_liked")

    def choose(
        self, key: jax.Array, env: RecommenderEnv, obs: Observation, params: EnvParams
    ) -> jax.Array:
        """See `Memoryless`."""
        if isinstance(env, SlateSimulator):
            chance = jax.random.uniform(key, (env.num_items,), jnp.float32)
            position = jnp.arange(env.window, dtype=jnp.float32)
            latest = jnp.where(obs.responses > 0, 1.0 + position, 0.0)
            return best_action(env, chance.at[obs.items].max(latest), obs, params)
        mask = env.action_mask(obs, params)
        latest = self._latest(obs, mask)
        return jnp.where(latest >= 0, latest, random_allowed(key, mask))

    def propensity(
        self, env: RecommenderEnv, obs: Observation, params: EnvParams, action: jax.Array
    ) -> jax.Array:
        """See `Memoryless`; of single items only."""
        if isinstance(env, SlateSimulator):
            raise InputError("repeat_last_liked has no propensities of slates: log another policy")
        mask = env.action_mask(obs, params)
        latest = self._latest(obs, mask)
        return jnp.where(latest >= 0, action == latest, uniform_over(mask)[action])

    def _latest(self, obs: Observation, mask: jax.Array) -> jax.Array:
        """The allowed item that was liked last, int32[]; -1 if there is none."""
        liked = (obs.responses > 0) & mask[jnp.maximum(obs.items, 0)]
        latest = obs.items[obs.items.shape[-1] - 1 - jnp.argmax(liked[::-1])]
        return jnp.where(liked.any(), latest, -1)


def baselines(dataset: Dataset, env: Simulator, params: EnvParams) -> dict[str, EvaluatedPolicy]:
    """The baselines by name, in the order of the table.

    Args:
        dataset: popularity and like rates come from its training interactions.
        env, params: from `jaxsim.make(dataset, users="train")`; static_best is ranked by these users.
    """
    counts, likes = training_counts(dataset)
    like_rate = smoothed(likes, counts, likes.sum() / counts.sum())
    policies: dict[str, EvaluatedPolicy] = {
        "random": RandomPolicy(),
        "popular": FixedRanking(jnp.asarray(counts, jnp.float32)),
        "like_rate": FixedRanking(jnp.asarray(like_rate, jnp.float32)),
        "static_best": FixedRanking(simulated_like_rate(env, params)),
        "oracle": Oracle(),
    }
    if env.departure == "fitted" and not isinstance(env, SlateSimulator):
        policies["oracle_planning"] = plan(env, params)
    if env.repeats == "allow":
        policies["repeat_last_liked"] = RepeatLastLiked()
    return policies


def smoothed(likes: np.ndarray, counts: np.ndarray, mean: float) -> np.ndarray:
    """Smoothed like rates, float64: as if every item had SMOOTHING more interactions with the mean like rate.

    Args:
        likes, counts: numbers of likes and of interactions, of one shape.
        mean: the mean like rate.
    """
    return (likes + SMOOTHING * mean) / (counts + SMOOTHING)


def training_counts(dataset: Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Training interactions and training likes of each item, float64[N] each."""
    train = dataset.arrays["interaction_split"] == TRAIN
    items = dataset.arrays["interaction_item"][train]
    liked = dataset.arrays["interaction_label"][train]
    counts = np.bincount(items, minlength=dataset.num_items).astype(np.float64)
    likes = np.bincount(items, weights=liked, minlength=dataset.num_items)
    return counts, likes


def simulated_like_rate(env: Simulator, params: EnvParams) -> jax.Array:
    """Expected response of each item alone at the start of a session, averaged over session users, float32[N].

    It is that of the posterior, which is the mean over the tastes that a latent user may have. Of more than
    MOST_USERS users an even sample stands for all. Memory is bounded: users are added up in batches.
    """
    env = replace(single_of(env), taste="posterior")

    def at_start(user: jax.Array, params: EnvParams) -> jax.Array:
        _, state = env.reset_user(user, params)
        return env.expected_response(state, params)

    users = params.session_users[:: -(-len(params.session_users) // MOST_USERS)]
    size = batch_size(env.num_items)
    batches = jnp.pad(users, (0, -len(users) % size)).reshape(-1, size)
    counts = jnp.arange(batches.size, dtype=jnp.int32).reshape(-1, size) < len(users)

    def average(params: EnvParams) -> jax.Array:
        def add(total: jax.Array, batch: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, None]:
            rates = jax.vmap(at_start, (0, None))(batch[0], params)
            return total + jnp.where(batch[1][:, None], rates, 0.0).sum(axis=0), None

        nothing = jnp.zeros(env.num_items, jnp.float32)
        return jax.lax.scan(add, nothing, (batches, counts))[0] / len(users)

    return jax.jit(average)(params)
