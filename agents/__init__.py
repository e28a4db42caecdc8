"""Recommenders trained by reinforcement learning on the simulator.

policy = agents.load("runs/demo")
action = policy(key, obs, params)
"""

from agents.a2c import A2C, A2CConfig
from agents.dqn import DQN, DQNConfig
from agents.evaluation import Evaluation, evaluate
from agents.policy import GreedyPolicy, SampledPolicy
from agents.ppo import PPO, PPOConfig
from agents.registry import ALGORITHMS
from agents.run import load
from agents.session_runs import fixed_sessions, run_sessions
from agents.training import train_seeds
from agents.trpo import TRPO, TRPOConfig

__all__ = [
    "A2C",
    "ALGORITHMS",
    "DQN",
    "PPO",
    "TRPO",
    "A2CConfig",
    "DQNConfig",
    "Evaluation",
    "GreedyPolicy",
    "PPOConfig",
    "SampledPolicy",
    "TRPOConfig",
    "evaluate",
    "fixed_sessions",
    "load",
    "run_sessions",
    "train_seeds",
]
