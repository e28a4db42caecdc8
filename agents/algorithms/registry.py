"""The algorithms by name."""

from agents.algorithms.a2c import A2C, A2CConfig
from agents.algorithms.algorithm import Algorithm, AlgorithmConfig
from agents.algorithms.dqn import DQN, DQNConfig
from agents.algorithms.ppo import PPO, PPOConfig
from agents.algorithms.trpo import TRPO, TRPOConfig

ALGORITHMS: dict[str, tuple[type[AlgorithmConfig], type[Algorithm]]] = {
    "ppo": (PPOConfig, PPO),
    "trpo": (TRPOConfig, TRPO),
    "a2c": (A2CConfig, A2C),
    "dqn": (DQNConfig, DQN),
}
