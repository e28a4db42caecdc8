"""purejaxrl's PPO on the simulator, its code unchanged, through `jaxsim.FlatObservation`.

    git clone https://github.com/luchris429/purejaxrl
    pip install "distrax>=0.1.5,<0.2"
    python examples/purejaxrl_ppo.py --purejaxrl purejaxrl/purejaxrl

purejaxrl is no package: its `make_train` asks gymnax for an environment by name. It masks no items: an item that
the user has had earns nothing. So PPO also learns not to repeat itself.
"""

import argparse
import sys
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

import gymnax
import jax
import numpy as np

import jaxsim

NOT_NEEDED = ("brax", "brax.envs", "brax.envs.wrappers", "brax.envs.wrappers.training", "navix")
SETTINGS: dict[str, Any] = {
    "ENV_NAME": "jaxsim",
    "NUM_ENVS": 128,
    "NUM_STEPS": 8,
    "NUM_MINIBATCHES": 8,
    "UPDATE_EPOCHS": 2,
    "LR": 1e-3,
    "ANNEAL_LR": False,
    "GAMMA": 0.4,  # what is liked now matters more here than what follows from it
    "GAE_LAMBDA": 0.2,
    "CLIP_EPS": 0.2,
    "ENT_COEF": 0.001,
    "VF_COEF": 0.5,
    "MAX_GRAD_NORM": 10.0,
    "ACTIVATION": "relu",
    "DEBUG": False,
}


def purejaxrl_ppo(folder: Path) -> ModuleType:
    """Purejaxrl's ppo.py. It imports the simulators brax and navix, which are not needed here."""
    if not (folder / "ppo.py").is_file():
        raise SystemExit(
            f"{folder}: no ppo.py there; clone purejaxrl, and give its inner folder with --purejaxrl"
        )
    sys.path.insert(0, str(folder))
    absent = [name for name in NOT_NEEDED if name not in sys.modules]
    sys.modules.update({name: mock.MagicMock() for name in absent})
    try:
        import ppo
    finally:
        for name in absent:
            del sys.modules[name]
    return ppo


def main(
    purejaxrl: Path, dataset: str = "ml-100k", total_timesteps: int = 500_000, seed: int = 0
) -> np.ndarray:
    """Train; the share of liked recommendations in each tenth of the training, at least one update."""
    ppo = purejaxrl_ppo(purejaxrl)
    env, params = jaxsim.make(jaxsim.load_dataset(dataset))
    made = (jaxsim.FlatObservation(env), params)
    with mock.patch.object(gymnax, "make", return_value=made):
        train = ppo.make_train({**SETTINGS, "TOTAL_TIMESTEPS": total_timesteps})
    metrics = jax.jit(train)(jax.random.key(seed))["metrics"]
    like = np.asarray(metrics["like"])
    shares = np.array([part.mean() for part in np.array_split(like, min(10, len(like)))])
    for number, share in enumerate(shares):
        steps = (number + 1) * like.size // len(shares)
        print(f"{steps:9,} steps: {share:.2f} of the recommendations are liked")
    return shares


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--purejaxrl", type=Path, default=Path("purejaxrl/purejaxrl"))
    parser.add_argument("--dataset", default="ml-100k")
    parser.add_argument("--total-timesteps", type=int, default=500_000)
    try:
        main(**vars(parser.parse_args()))
    except jaxsim.InputError as error:
        raise SystemExit(f"error: {error}") from None
