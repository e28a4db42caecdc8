"""Recommenders trained by reinforcement learning on the simulator.

policy = agents.load("runs/demo")
action = policy(key, obs, params)
"""

from agents.dqn import DQN, DQNConfig
from agents.evaluation import evaluate, fixed_sessions, format_table, run_sessions
from agents.policy import GreedyPolicy
from agents.run import ALGORITHMS, load
from agents.training import train_seeds

__all__ = [
    "ALGORITHMS",
    "DQN",
    "DQNConfig",
    "GreedyPolicy",
    "evaluate",
    "fixed_sessions",
    "format_table",
    "load",
    "run_sessions",
    "train_seeds",
]
