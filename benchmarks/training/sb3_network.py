"""Our network in torch for Stable-Baselines3's agents, and a way back to JAX for evaluating them."""

import gymnasium
import jax
import jax.numpy as jnp
import torch
from flax import struct
from stable_baselines3 import DQN
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import nn

from agents.algorithms.choice import best_allowed
from agents.algorithms.rollout import RecommenderEnv
from agents.evaluation.baselines import Memoryless
from jaxsim import EnvParams, Observation

_EMBEDDING_STD = 0.1  # of agents.algorithms.networks


class HistoryExtractor(BaseFeaturesExtractor):
    """A user's state from their window, float32[batch, width]: the "mean" `HistoryEncoder` of our agents."""

    def __init__(self, observation_space: gymnasium.spaces.Dict, width: int) -> None:
        super().__init__(observation_space, width)
        items = observation_space["items"]
        assert isinstance(items, gymnasium.spaces.Box)
        self.num_items, self.window = int(items.high[0]) + 1, items.shape[0]
        self.liked, self.disliked = (
            nn.Parameter(_EMBEDDING_STD * torch.randn(self.num_items, width)) for _ in range(2)
        )
        self.first = nn.Linear(2 * width + 2, 2 * width)
        self.second = nn.Linear(2 * width, width)

    def forward(self, obs: dict[str, torch.Tensor]) -> torch.Tensor:
        """Encode a batch; Stable-Baselines3 passes every field as float32."""
        items, responses = obs["items"].long().clamp(min=0), obs["responses"]
        liked = self._mean(items, responses > 0, self.liked)
        disliked = self._mean(items, responses < 0, self.disliked)
        length = obs["length"]
        share = (responses > 0).sum(-1, keepdim=True) / length.clamp(min=1)
        x = torch.cat([liked, disliked, share, length / self.window], dim=-1)
        return torch.relu(self.second(torch.relu(self.first(x))))

    def _mean(self, items: torch.Tensor, member: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
        """Mean of table[items] where member; a product with counts, faster than EmbeddingBag on a CPU."""
        weights = member.float()
        counts = weights.new_zeros(len(items), self.num_items).scatter_add_(1, items, weights)
        return (counts @ table) / weights.sum(-1, keepdim=True).clamp(min=1)


def num_parameters(model: BaseAlgorithm) -> int:
    """Trained parameters of an agent's network; DQN's target network is not counted."""
    network = model.policy.q_net if isinstance(model, DQN) else model.policy
    return sum(weights.numel() for weights in network.parameters())


@struct.dataclass
class ImportedPolicy(Memoryless):
    """Greedy on the scores of a network of `HistoryExtractor` and a linear head, computed in JAX.

    Unlike the agent itself, it never recommends an item that is not allowed, which is to the agent's advantage.

    Attributes:
        weights: float32 arrays by torch's names, the head's as "head.weight" and "head.bias".
    """

    weights: dict[str, jax.Array]

    def choose(
        self, key: jax.Array, env: RecommenderEnv, obs: Observation, params: EnvParams
    ) -> jax.Array:
        """See `Memoryless`."""
        return best_allowed(self.scores(obs), env.action_mask(obs, params))

    def scores(self, obs: Observation) -> jax.Array:
        """Action values or logits after one observation, float32[N]."""
        w = self.weights
        members = ((obs.responses > 0, w["liked"]), (obs.responses < 0, w["disliked"]))
        means = [
            jnp.where(member[:, None], table[obs.items], 0.0).sum(0) / jnp.maximum(member.sum(), 1)
            for member, table in members
        ]
        share = (obs.responses > 0).sum() / jnp.maximum(obs.length, 1)
        counts = jnp.stack([share, obs.length / obs.items.shape[0]])
        x = jnp.concatenate([*means, counts])
        x = jax.nn.relu(w["first.weight"] @ x + w["first.bias"])
        x = jax.nn.relu(w["second.weight"] @ x + w["second.bias"])
        return w["head.weight"] @ x + w["head.bias"]


def imported_policy(model: BaseAlgorithm) -> ImportedPolicy:
    """The greedy policy of an agent as it is now."""
    if isinstance(model, DQN):
        extractor, head = model.q_net.features_extractor, model.q_net.q_net[0]
    else:
        assert isinstance(model.policy, ActorCriticPolicy)
        extractor, head = model.policy.features_extractor, model.policy.action_net
    parts = {**extractor.state_dict(), **{f"head.{k}": v for k, v in head.state_dict().items()}}
    # A copy, because torch goes on writing to its own memory.
    return ImportedPolicy({k: jnp.array(v.detach().cpu().numpy()) for k, v in parts.items()})
