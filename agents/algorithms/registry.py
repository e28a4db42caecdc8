"""The algorithms by name."""

from typing import NamedTuple

from agents.algorithms.a2c import A2C, A2CConfig
from agents.algorithms.algorithm import Algorithm, AlgorithmConfig
from agents.algorithms.dqn import DQN, DQNConfig
from agents.algorithms.ppo import PPO, PPOConfig
from agents.algorithms.trpo import TRPO, TRPOConfig


class AlgorithmEntry(NamedTuple):
    """The two classes of an algorithm: `algorithm(env, config(...))` is ready to train."""

    config: type[AlgorithmConfig]
    algorithm: type[Algorithm]


ALGORITHMS: dict[str, AlgorithmEntry] = {
    "ppo": AlgorithmEntry(PPOConfig, PPO),
    "trpo": AlgorithmEntry(TRPOConfig, TRPO),
    "a2c": AlgorithmEntry(A2CConfig, A2C),
    "dqn": AlgorithmEntry(DQNConfig, DQN),
}
