"""Stable-Baselines3's DQN and PPO, sb3-contrib's TRPO and MaskablePPO, and the baseline like_rate.

    pip install -c constraints.txt -e ".[sb3]"
    python examples/sb3_agents.py maskable_ppo

Each learns from many sessions of one compiled program, and reads one vector: 1 liked, -1 disliked, 0 not in the
window. MaskablePPO knows which items may be recommended, DQN's network below reads it from that vector, and PPO
and TRPO learn that an item of the window earns 0. All are judged on allowed items.
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from sb3_contrib import TRPO, MaskablePPO
from stable_baselines3 import DQN, PPO
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.dqn.policies import DQNPolicy, QNetwork

import jaxsim
from agents.evaluation.baselines import smoothed, training_counts
from jaxsim.sb3_vec_env import SB3VecEnv, make_sb3_vec_env


class MaskedQNetwork(QNetwork):
    """Values items of the window at -1, below what any item can earn. DQN has no masks, but sees the window."""

    def forward(self, obs: torch.Tensor) -> torch.Tensor:
        """Values float32[B, N]."""
        return super().forward(obs).masked_fill(obs != 0, -1.0)


class MaskedDQNPolicy(DQNPolicy):
    """DQN's policy with `MaskedQNetwork`."""

    def make_q_net(self) -> QNetwork:
        """The network, and the target network."""
        arguments = self._update_features_extractor(self.net_args, features_extractor=None)
        return MaskedQNetwork(**arguments).to(self.device)


@dataclass(frozen=True)
class Recipe:
    """How an agent is made: class, policy, number of sessions at once, steps of training, and settings."""

    agent: type[BaseAlgorithm]
    policy: Any
    num_envs: int
    steps: int
    settings: dict[str, Any]


# What is liked now matters more here than what follows from it, so gamma is small.
ON_POLICY = {
    "gamma": 0.4,
    "gae_lambda": 0.2,
    "learning_rate": 3e-3,
    "n_steps": 32,
    "batch_size": 1024,
}
TRUST_REGION = {"target_kl": 0.02, "cg_max_steps": 8, "n_critic_updates": 3}
VALUES = {
    "gamma": 0.0,
    "learning_rate": 3e-4,
    "buffer_size": 100_000,
    "learning_starts": 10_000,
    "batch_size": 512,
    "train_freq": 1,
    "gradient_steps": 4,
    "exploration_fraction": 0.3,
}
AGENTS = {
    "dqn": Recipe(DQN, MaskedDQNPolicy, 128, 200_000, VALUES),
    "ppo": Recipe(PPO, "MlpPolicy", 64, 200_000, {**ON_POLICY, "n_epochs": 4}),
    "trpo": Recipe(TRPO, "MlpPolicy", 64, 100_000, {**ON_POLICY, **TRUST_REGION}),
    "maskable_ppo": Recipe(MaskablePPO, "MlpPolicy", 64, 100_000, {**ON_POLICY, "n_epochs": 4}),
}


@dataclass(frozen=True)
class Outcome:
    """Mean likes in the same sessions: of the untrained model, of the trained one, and of like_rate."""

    untrained: float
    trained: float
    like_rate: float


Scores = Callable[[np.ndarray], np.ndarray]


def scores_of(model: BaseAlgorithm) -> Scores:
    """Action values of DQN, logits of the others: of observations [B, N], as an array [B, N]."""

    def scores(obs: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            batch, _ = model.policy.obs_to_tensor(obs)
            if isinstance(model, DQN):
                return model.q_net(batch).numpy()
            return model.policy.get_distribution(batch).distribution.logits.numpy()

    return scores


def likes_in_a_session(sessions: SB3VecEnv, scores: Scores, seed: int = 1_000) -> np.ndarray:
    """Likes in the first session of each environment, of the allowed items with the highest scores."""
    sessions.seed(seed)
    obs = sessions.reset()
    likes, playing = np.zeros(sessions.num_envs), np.ones(sessions.num_envs, bool)
    while playing.any():
        allowed = np.stack(sessions.env_method("action_masks"))
        action = np.where(allowed, scores(obs), -np.inf).argmax(axis=1)
        obs, rewards, done, _ = sessions.step(action)
        likes += rewards * playing
        playing &= ~done
    return likes


def main(agent: str, dataset: str = "ml-100k", steps: int | None = None, seed: int = 0) -> Outcome:
    """Train, and compare with like_rate in the same sessions."""
    data = jaxsim.load_dataset(dataset)
    env, params = jaxsim.make(data)
    counts, likes = training_counts(data)
    rates = smoothed(likes, counts, likes.sum() / counts.sum())
    judge = make_sb3_vec_env(env, params, num_envs=512, flat=True)
    baseline = likes_in_a_session(judge, lambda obs: np.broadcast_to(rates, obs.shape))

    recipe = AGENTS[agent]
    steps = recipe.steps if steps is None else steps
    envs = make_sb3_vec_env(env, params, recipe.num_envs, seed, flat=True)
    model = recipe.agent(recipe.policy, envs, seed=seed, device="cpu", **recipe.settings)
    untrained = likes_in_a_session(judge, scores_of(model)).mean()
    print(f"like_rate: {baseline.mean():.2f} likes in a session")
    print(f"{agent}, before training: {untrained:.2f}")
    model.learn(steps)
    trained = likes_in_a_session(judge, scores_of(model))
    gain = trained - baseline
    error = 1.96 * gain.std() / np.sqrt(len(gain))
    paired = f"like_rate {gain.mean():+.2f} ± {error:.2f}"
    print(f"{agent}, after {model.num_timesteps:,} steps: {trained.mean():.2f} ({paired})")
    return Outcome(float(untrained), float(trained.mean()), float(baseline.mean()))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("agent", choices=AGENTS)
    parser.add_argument("--dataset", default="ml-100k")
    parser.add_argument("--steps", type=int, help="default: those of the recipe")
    parser.add_argument("--seed", type=int, default=0)
    try:
        main(**vars(parser.parse_args()))
    except jaxsim.InputError as error:
        raise SystemExit(f"error: {error}") from None
