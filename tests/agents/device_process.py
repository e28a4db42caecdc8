"""Training on four devices beside training on one, for tests/agents/test_devices.py: what differs, as JSON."""

import json
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from agents.parallel import lay_out
from agents.registry import ALGORITHMS
from tests.agents.probes import PROBES, ProbeEnv

COMMON = {"total_steps": 2000, "num_envs": 8, "rollout_length": 4, "width": 8}
CASES = [
    ("ppo", 1, {}),
    ("trpo", 1, {}),
    ("dqn", 1, {"batch_size": 16, "replay_steps": 64}),
    ("a2c", 4, {}),  # whole seeds
]
ITERATIONS = 4


def train(name: str, num_seeds: int, settings: dict, devices: int):
    """State and account after some iterations of all seeds."""
    config_type, kind = ALGORITHMS[name]
    config = config_type(**COMMON, **settings)
    algorithm, layout = lay_out(kind(ProbeEnv(), config), num_seeds, devices)

    def run(keys, params):
        def one(key):
            return algorithm.iterations(algorithm.init(key, params), params, ITERATIONS)

        return jax.vmap(one)(keys)

    placed = layout.place(run, (layout.seeds_axis, None), (layout.state_axes, layout.seeds_axis))
    keys = jnp.stack([jax.random.key(seed) for seed in range(num_seeds)])
    return jax.jit(placed)(keys, PROBES["masked"])


def numbers(tree) -> list[np.ndarray]:
    leaves = jax.tree.leaves(tree)
    keys = [jnp.issubdtype(x.dtype, jax.dtypes.prng_key) for x in leaves]
    return [
        np.asarray(jax.random.key_data(x) if k else x) for x, k in zip(leaves, keys, strict=True)
    ]


def largest_difference(one, other) -> float:
    pairs = zip(numbers(one), numbers(other), strict=True)
    return max(float(np.abs(a.astype(np.float64) - b.astype(np.float64)).max()) for a, b in pairs)


def main(out: Path) -> None:
    found = {}
    for name, num_seeds, settings in CASES:
        (alone, account), (split, split_account) = (
            train(name, num_seeds, settings, devices) for devices in (1, 4)
        )
        moved = numbers(alone.variables)
        found[f"{name} {num_seeds}"] = {
            "sessions": largest_difference(alone.sessions, split.sessions),
            "variables": largest_difference(alone.variables, split.variables),
            "account": largest_difference(account, split_account),
            "state": largest_difference(alone, split),
            "moved": float(max(np.ptp(x) for x in moved)),
            "devices": len(split.sessions.running_return.sharding.device_set),
            "copies": largest_difference(
                *(split.variables["params"]["item_bias"].addressable_shards[i].data for i in (0, 3))
            ) if num_seeds == 1 else 0.0,
        }  # fmt: skip
    out.write_text(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
