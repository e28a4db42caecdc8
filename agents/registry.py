"""The algorithms by name."""

from agents.a2c import A2C, A2CConfig
from agents.algorithm import Algorithm, AlgorithmConfig
from agents.dqn import DQN, DQNConfig
from agents.ppo import PPO, PPOConfig
from agents.trpo import TRPO, TRPOConfig

ALGORITHMS: dict[str, tuple[type[AlgorithmConfig], type[Algorithm]]] = {
    "ppo": (PPOConfig, PPO),
    "trpo": (TRPOConfig, TRPO),
    "a2c": (A2CConfig, A2C),
    "dqn": (DQNConfig, DQN),
}
