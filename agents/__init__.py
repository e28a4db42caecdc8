"""Recommenders trained by reinforcement learning on the simulator.

policy = agents.load("runs/demo")
action = policy(key, obs, params)
"""

import sys

try:
    from agents.algorithms.a2c import A2C, A2CConfig
    from agents.algorithms.dqn import DQN, DQNConfig
    from agents.algorithms.policy import GreedyPolicy, SampledPolicy
    from agents.algorithms.ppo import PPO, PPOConfig
    from agents.algorithms.registry import ALGORITHMS
    from agents.algorithms.trpo import TRPO, TRPOConfig
    from agents.evaluation.evaluate import Evaluation, evaluate
    from agents.evaluation.sessions import fixed_sessions, run_sessions
    from agents.runs.folder import load
    from agents.runs.item_start import item_start
    from agents.runs.training import train_seeds
except KeyboardInterrupt:
    # `python -m agents` imports this package first, which takes seconds. Ctrl-C is one line there, too.
    if sys.argv[0] != "-m":
        raise
    print("interrupted", file=sys.stderr)
    raise SystemExit(130) from None

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
    "item_start",
    "load",
    "run_sessions",
    "train_seeds",
]
