"""Policies whose probabilities of all items are known: those that make the logs, and those to be evaluated."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.special
from flax import struct

from agents.algorithms.choice import draw_weighted, mask_logits, uniform_over
from agents.algorithms.policy import Memoryless, NetworkPolicy
from agents.algorithms.ppo import PPO, PPOConfig
from agents.algorithms.rollout import RecommenderEnv
from agents.evaluation.baselines import smoothed, training_counts
from agents.runs.progress import split_seeds
from agents.runs.training import train_seeds
from jaxsim import Dataset, EnvParams, Observation, UserSimulator

EPSILON = 0.2  # of the logging policies that explore
TEMPERATURE = 0.3  # of log-odds of like rates: near the best ones, but not always the same
TOP = 100  # items of the logging policy without full support
# Logging policy and target policy. The one that shows the top only lacks items that its target recommends.
PAIRS = (
    ("uniform", "like_rate"),
    ("uniform", "learned"),
    ("like_rate_explored", "learned"),
    ("learned_explored", "like_rate"),
    ("like_rate_top", "learned"),
    ("learned_explored", "learned"),
)


@struct.dataclass
class EpsilonSoftmax(Memoryless):
    """A softmax of scores over allowed items, and with probability epsilon any allowed item.

    Attributes:
        temperature: float32[], what the scores are divided by.
        epsilon: float32[].
        ranking: float32[N], scores that are the same for everyone; None if a network has them.
        network: the policy whose network scores the items; None with a ranking.
        top: of the softmax, only this many items with the highest scores; None for all.
    """

    temperature: jax.Array
    epsilon: jax.Array
    ranking: jax.Array | None = None
    network: NetworkPolicy | None = None
    top: int | None = struct.field(pytree_node=False, default=None)
    name: str = struct.field(pytree_node=False, default="epsilon_softmax")

    def probabilities(self, env: RecommenderEnv, obs: Observation, params: EnvParams) -> jax.Array:
        """The probability of every item, float32[N]."""
        mask = env.action_mask(obs, params)
        scores = self.ranking if self.network is None else self.network.scores(obs)
        logits = mask_logits(scores / self.temperature, mask)  # type: ignore[operator]
        if self.top is not None:
            logits = mask_logits(logits, logits >= jax.lax.top_k(logits, self.top)[0][-1])
        chosen = jax.nn.softmax(logits)
        return self.epsilon * uniform_over(mask) + (1 - self.epsilon) * chosen

    def choose(
        self, key: jax.Array, env: RecommenderEnv, obs: Observation, params: EnvParams
    ) -> jax.Array:
        """See `Memoryless`."""
        return draw_weighted(key, self.probabilities(env, obs, params))

    def propensity(
        self, env: RecommenderEnv, obs: Observation, params: EnvParams, action: jax.Array
    ) -> jax.Array:
        """See `Memoryless`."""
        return self.probabilities(env, obs, params)[action]


def make_policies(
    dataset: Dataset, env: UserSimulator, params: EnvParams, steps: int, seed: int
) -> dict[str, EpsilonSoftmax]:
    """The policies of PAIRS by name; PPO is trained for the learned one.

    Args:
        dataset: whose training ratings have the like rates.
        env, params: of `jaxsim.make`.
        steps: environment steps of the training.
        seed: of the training.
    """
    counts, likes = training_counts(dataset)
    rate = smoothed(likes, counts, likes.sum() / counts.sum())
    log_odds = scipy.special.logit(np.clip(rate, 1e-4, 1 - 1e-4))
    of_rates: dict[str, Any] = {
        "temperature": jnp.float32(TEMPERATURE),
        "ranking": jnp.asarray(log_odds, jnp.float32),
    }
    algorithm = PPO(env, PPOConfig(total_steps=steps))
    training = train_seeds(algorithm, params, seed, 1)
    policy = algorithm.policy_of(split_seeds(training.variables)[0])
    of_network: dict[str, Any] = {"temperature": jnp.float32(1.0), "network": policy}
    never, sometimes = jnp.float32(0.0), jnp.float32(EPSILON)
    return {
        "uniform": EpsilonSoftmax(**of_rates, epsilon=jnp.float32(1.0)),
        "like_rate": EpsilonSoftmax(**of_rates, epsilon=never),
        "like_rate_explored": EpsilonSoftmax(**of_rates, epsilon=sometimes),
        "like_rate_top": EpsilonSoftmax(**of_rates, epsilon=never, top=min(TOP, env.num_items)),
        "learned": EpsilonSoftmax(**of_network, epsilon=never),
        "learned_explored": EpsilonSoftmax(**of_network, epsilon=sometimes),
    }
