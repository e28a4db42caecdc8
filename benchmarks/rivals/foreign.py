"""Steps per second of simulators by other authors, measured in the interpreter that has them.

These packages need other versions of common libraries than ours. So `benchmarks.rivals.command` runs this file as
a script, with the interpreter of an environment where a package is installed. It therefore imports nothing but the
standard library until a simulator is chosen. It prints one line of JSON.

    python benchmarks/rivals/foreign.py NAME SECONDS REPEATS
"""

import json
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

Prepared = tuple[dict[str, Any], Callable[[], int]]
"""What is measured, and a function that makes some steps and says how many."""


def recsim() -> Prepared:
    """RecSim's interest evolution, its first environment, with its random agent."""
    from recsim.agents.random_agent import RandomAgent
    from recsim.environments import interest_evolution

    settings = {"num_candidates": 10, "slate_size": 2, "resample_documents": True, "seed": 0}
    env = interest_evolution.create_environment(settings)
    agent = RandomAgent(env.action_space)
    latest = [(env.reset(), 0.0)]

    def steps() -> int:
        observation, reward = latest.pop()
        for _ in range(100):
            observation, reward, done, _ = env.step(agent.step(reward, observation))
            if done:
                observation, reward = env.reset(), 0.0
        latest.append((observation, reward))
        return 100

    about = {
        "version": version("recsim-no-tf"),
        "setting": "interest_evolution",
        "policy": "its RandomAgent",
        "step": "a slate of 2 of 10 new items, a multinomial choice, a watched time",
        "sessions": 1,
        "items": 10,
        "users": None,
    }
    return about, steps


def recsim_ng() -> Prepared:
    """RecSim NG's interest evolution, 1,000 users in one TensorFlow graph, with its example's recommender."""
    import tensorflow as tf
    from recsim_ng.applications.recsys_partially_observable_rl import simulation_config
    from recsim_ng.core import network
    from recsim_ng.lib.tensorflow import runtime

    variables, _ = simulation_config.create_interest_evolution_simulation_network()
    story = runtime.TFRuntime(network=network.Network(variables=variables))
    users, length = 1000, tf.constant(20)

    def steps() -> int:
        state = story.execute(num_steps=length)
        state["metrics state"].get("cumulative_reward").numpy()  # until the result is there
        return users * 20

    about = {
        "version": version("recsim-ng"),
        "setting": "recsys_partially_observable_rl",
        "policy": "its untrained CollabFilteringRecommender (it has no random one)",
        "step": "a slate of 2, a multinomial choice by 2 topics, a consumed time",
        "sessions": users,
        "items": 100,
        "users": users,
    }
    return about, steps


def recogym() -> Prepared:
    """RecoGym's reco-gym-v1, with random products."""
    import numpy as np
    from recogym import env_1_args
    from recogym.envs.reco_env_v1 import RecoEnv1

    env, rng, user = RecoEnv1(), np.random.default_rng(0), [0]
    env.init_gym({**env_1_args, "random_seed": 0})

    def start() -> None:
        done = True
        while done:  # a user may leave before the first recommendation
            env.reset(user[0])
            user[0] += 1
            done = env.step(None)[2]

    def steps() -> int:
        for _ in range(100):
            if env.step(int(rng.integers(env.config.num_products)))[2]:
                start()
        return 100

    start()
    about = {
        "version": version("recogym"),
        "setting": "reco-gym-v1",
        "policy": "random products",
        "step": "a product, a click by 5 latent factors, then views until the next recommendation",
        "sessions": 1,
        "items": env_1_args["num_products"],
        "users": None,
    }
    return about, steps


def sardine() -> Prepared:
    """SARDINE's SingleItem-Static-v0, with random items."""
    import gymnasium
    import sardine as package

    env = gymnasium.make("sardine/SingleItem-Static-v0")
    env.reset(seed=0)
    env.action_space.seed(0)

    def steps() -> int:
        for _ in range(100):
            _, _, terminated, truncated, _ = env.step(env.action_space.sample())
            if terminated or truncated:
                env.reset()
        return 100

    about = {
        "version": package.__version__,
        "setting": "SingleItem-Static-v0",
        "policy": "random items",
        "step": "an item, relevance of all items by 10 topics, a click",
        "sessions": 1,
        "items": 1000,
        "users": None,
    }
    return about, steps


SIMULATORS: dict[str, Callable[[], Prepared]] = {
    "recsim": recsim,
    "recsim-ng": recsim_ng,
    "recogym": recogym,
    "sardine": sardine,
}


def timed(steps: Callable[[], int], seconds: float, repeats: int) -> dict[str, Any]:
    """Steps per second of each of `repeats` runs of at least `seconds`, after one call that does not count.

    Returns:
        `steps_per_second` (median), `low` and `high` (slowest and fastest run), `first_seconds` of the first call.
    """
    begin = time.perf_counter()
    steps()
    first = time.perf_counter() - begin
    speeds = []
    for _ in range(repeats):
        count, begin = 0, time.perf_counter()
        while time.perf_counter() - begin < seconds:
            count += steps()
        speeds.append(count / (time.perf_counter() - begin))
    return {
        "steps_per_second": statistics.median(speeds),
        "low": min(speeds),
        "high": max(speeds),
        "first_seconds": first,
    }


def main() -> None:
    """Measure the simulator that the command line names."""
    warnings.simplefilter("ignore")
    name, seconds, repeats = sys.argv[1], float(sys.argv[2]), int(sys.argv[3])
    about, steps = SIMULATORS[name]()
    print(json.dumps({**about, **timed(steps, seconds, repeats)}))


if __name__ == "__main__":
    main()
