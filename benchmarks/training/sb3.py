"""Stable-Baselines3's agents on the simulator: the same network, the same environment, one process.

The environment is `jaxsim.GymnasiumEnv`, or many sessions of `jaxsim.GymnasiumVectorEnv`; the network is
`benchmarks.training.sb3_network`. Needs `pip install -e ".[sb3]"`; this module is imported only when a comparison
is wanted.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
from stable_baselines3 import A2C, DQN, PPO
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv

from benchmarks.training.empty_env import EmptyEnv, EmptyVectorEnv
from benchmarks.training.sb3_network import (
    HistoryExtractor,
    ImportedPolicy,
    imported_policy,
    num_parameters,
)
from benchmarks.training.target import Attempt, Target
from jaxsim import EnvParams, UserSimulator
from jaxsim.gymnasium_adapter import GymnasiumEnv
from jaxsim.sb3_vec_env import SB3VecEnv, make_sb3_vec_env

MODELS: dict[str, type[BaseAlgorithm]] = {"ppo": PPO, "a2c": A2C, "dqn": DQN}
VECTOR_ENVS = 64
REPLAY_SIZE = 100_000  # its default of a million would be 1.5 GB of observations
EXPLORATION_STEPS = 20_000
ENDLESS = 10**9  # steps: the callback stops the training
_FIRST_CHECKS = 0.25  # seconds between the first evaluations
_CHECK_SHARE = 0.05  # later ones are this share of the training time apart


@dataclass(frozen=True)
class Setup:
    """How an agent of Stable-Baselines3 is run.

    Attributes:
        agent: name in MODELS.
        num_envs: sessions at once; 1 is a `gymnasium.Env`, more are a `gymnasium.vector.VectorEnv`.
        width: of the network.
        settings: arguments of the agent's constructor that differ from its defaults.
    """

    agent: str
    num_envs: int
    width: int
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def samples_per_step(self) -> float:
        """How many samples the agent learns from per environment step."""
        if self.agent == "ppo":
            return float(self.settings.get("n_epochs", 10))
        if self.agent == "a2c":
            return 1.0
        learned = self.settings.get("gradient_steps", 1) * self.settings.get("batch_size", 32)
        return learned / (self.settings.get("train_freq", 4) * self.num_envs)

    @property
    def steps_per_round(self) -> int:
        """Environment steps between two updates."""
        length = {"ppo": ("n_steps", 2048), "a2c": ("n_steps", 5), "dqn": ("train_freq", 4)}
        name, default = length[self.agent]
        return self.num_envs * int(self.settings.get(name, default))


def default_setup(agent: str, width: int, gamma: float) -> Setup:
    """One environment and the defaults of Stable-Baselines3, except for gamma and the size of DQN's replay."""
    settings: dict[str, Any] = {"gamma": gamma}
    if agent == "dqn":
        settings["buffer_size"] = REPLAY_SIZE
    return Setup(agent, 1, width, settings)


def vector_setup(agent: str, width: int, gamma: float, learning_rate: float) -> Setup:
    """Many environments in one program and large batches; as many samples per step as by default."""
    shared = {**default_setup(agent, width, gamma).settings, "learning_rate": learning_rate}
    own: dict[str, dict[str, Any]] = {
        "ppo": {"n_steps": 2048 // VECTOR_ENVS, "batch_size": 512},
        "a2c": {},
        # As many samples per step as by default, and the target update of our DQN.
        "dqn": {
            "batch_size": 256,
            "gradient_steps": VECTOR_ENVS // 8,
            "tau": 0.005,
            "target_update_interval": VECTOR_ENVS,  # counted over all environments: at every step
        },
    }
    return Setup(agent, VECTOR_ENVS, width, {**shared, **own[agent]})


def build_model(setup: Setup, envs: VecEnv, seed: int, **settings: Any) -> BaseAlgorithm:
    """An agent with our network: the extractor and a linear head over the items."""
    critic = {"pi": [], "vf": [setup.width]}
    return MODELS[setup.agent](
        "MultiInputPolicy",
        envs,
        seed=seed,
        policy_kwargs={
            "features_extractor_class": HistoryExtractor,
            "features_extractor_kwargs": {"width": setup.width},
            "net_arch": [] if setup.agent == "dqn" else critic,
        },
        **{**setup.settings, **settings},
    )


def count_parameters(setup: Setup, envs: VecEnv) -> int:
    """Trained parameters of an agent's network."""
    return num_parameters(build_model(setup, envs, seed=0))


# ---- the environments --------------------------------------------------------------------------------------


def simulator_envs(env: UserSimulator, params: EnvParams, num_envs: int, seed: int) -> VecEnv:
    """Sessions of the simulator; reset and stepped once, so that nothing is left to compile."""
    envs: VecEnv
    if num_envs == 1:
        envs = DummyVecEnv([lambda: GymnasiumEnv(env, params, seed)])
    else:
        envs = make_sb3_vec_env(env, params, num_envs, seed)
    envs.reset()
    envs.step(np.zeros(num_envs, np.int64))
    return envs


def empty_envs(env: UserSimulator, params: EnvParams, num_envs: int) -> VecEnv:
    """Sessions that do nothing, with the spaces of the simulator."""
    like = GymnasiumEnv(env, params, seed=0)
    if num_envs == 1:
        return DummyVecEnv([lambda: EmptyEnv(like)])
    return SB3VecEnv(EmptyVectorEnv(like, num_envs))


def describe() -> dict[str, Any]:
    """Versions of the libraries, and the number of threads that torch uses."""
    versions = {name: version(name) for name in ("stable-baselines3", "torch", "gymnasium")}
    return {**versions, "torch_threads": torch.get_num_threads()}


# ---- the measurements --------------------------------------------------------------------------------------


def training_speeds(setup: Setup, envs: VecEnv, steps: int, repeats: int) -> list[float]:
    """Steps per second with learning, of each of `repeats` runs of at least `steps` steps.

    DQN explores as rarely as in most of its training: a random action is cheaper than a greedy one.
    """
    own = {"exploration_initial_eps": 0.05} if setup.agent == "dqn" else {}
    model = build_model(setup, envs, 0, **own)
    steps = -(-steps // setup.steps_per_round) * setup.steps_per_round
    # DQN starts to learn only after some environment steps.
    learning_starts = model.learning_starts if isinstance(model, DQN) else 0
    model.learn(learning_starts + 2 * setup.steps_per_round)
    speeds = []
    for _ in range(repeats):
        before, start = model.num_timesteps, time.perf_counter()
        model.learn(steps, reset_num_timesteps=False)
        speeds.append((model.num_timesteps - before) / (time.perf_counter() - start))
    return speeds


def attempt(setup: Setup, envs: VecEnv, target: Target, seed: int, limit: float) -> Attempt:
    """Train until the greedy policy reaches the target, or `limit` seconds have passed.

    DQN's exploration decreases over EXPLORATION_STEPS: a tenth, its default, of a training of 200,000 steps.
    """
    own = {"exploration_fraction": EXPLORATION_STEPS / ENDLESS} if setup.agent == "dqn" else {}
    model = build_model(setup, envs, seed, **own)
    watch = _Watch(target, limit, lambda: imported_policy(model))
    model.learn(ENDLESS, callback=watch)
    return watch.attempt


class _Watch(BaseCallback):
    """Evaluates during training, and stops it at the target; evaluation time is not counted."""

    def __init__(self, target: Target, limit: float, policy: Callable[[], ImportedPolicy]) -> None:
        super().__init__()
        self.target, self.limit, self.policy = target, limit, policy
        self.attempt = Attempt()
        self.next_check = 0.0

    def _on_training_start(self) -> None:
        self.resumed = time.perf_counter()

    def _on_step(self) -> bool:
        now = time.perf_counter()
        seconds = self.attempt.trained_seconds + now - self.resumed
        if seconds < min(self.next_check, self.limit):
            return True
        reward = self.target.mean_reward(self.policy())
        reached = reward >= self.target.reward
        self.attempt.add(seconds, self.num_timesteps, reward, reached)
        # Often at first, so that fast learning is not reported late.
        self.next_check = seconds + max(_FIRST_CHECKS, _CHECK_SHARE * seconds)
        self.resumed = time.perf_counter()
        return not reached and seconds < self.limit
