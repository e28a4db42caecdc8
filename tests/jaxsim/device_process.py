"""What a process of several devices does, for tests/jaxsim/test_devices.py: it rolls out and writes what it found.

The number of devices is fixed when JAX starts, so each number needs its own process.
"""

import json
import sys
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils

from jaxsim import EnvParams, devices
from tests.conftest import Simulator, simulator_of
from tests.factory import random_dataset

# 1,001 items are no multiple of the devices; in 30 steps every session of at most 12 ends.
NUM_ITEMS, SESSIONS, STEPS, WIDTH = 1001, 16, 30, 16


class Case(NamedTuple):
    """One way to run the rollout; as text "tables,split,over_sessions"."""

    catalogue: str  # "tables", "features", or "taste": tables, and the taste model decides
    placement: str  # "replicated" or "split"
    program: str  # "over_sessions", or only "jit"

    def __str__(self) -> str:
        return ",".join(self)


@cache
def simulator(catalogue: str) -> Simulator:
    dataset = random_dataset(0, num_items=NUM_ITEMS, width=WIDTH, num_blocks=1)
    if catalogue == "taste":
        return simulator_of(dataset, catalogue="tables", semantics="calibrated")
    return simulator_of(dataset, catalogue=catalogue)


def tables_of(params: EnvParams) -> Any:
    """The tables that `place_params` splits, and that the environment reads."""
    return params.catalogue if params.taste is None else params.taste.kernel


def session_keys() -> jax.Array:
    return jax.random.split(jax.random.key(7), SESSIONS)


def rollout_of(catalogue: str):
    """A random policy's rollout: keys [B], params -> state [B, ...] and trajectories [STEPS, B, ...]."""
    env = simulator(catalogue).env

    def act(key, obs, params):
        chances = jax.random.uniform(key, (env.num_items,))
        return jnp.argmax(jnp.where(env.action_mask(obs, params), chances, -1.0))

    def step_session(key, obs, state, params):
        key_action, key_step = jax.random.split(key)
        action = act(key_action, obs, params)
        obs, state, reward, terminated, truncated, info = env.step(key_step, state, action, params)
        decision = info["probability" if env.semantics == "calibrated" else "votes"]
        seen = {"items": action, "rewards": reward, "decision": decision}
        return obs, state, {**seen, "terminated": terminated, "truncated": truncated}

    def rollout(keys, params):
        def step(carry, keys):
            obs, state, seen = jax.vmap(step_session, (0, 0, 0, None))(keys, *carry, params)
            return (obs, state), seen

        each = jax.vmap(lambda key: jax.random.split(key, STEPS + 1), out_axes=1)(keys)
        start = jax.vmap(env.reset, (0, None))(each[0], params)
        (_, state), seen = jax.lax.scan(step, start, each[1:])
        return state, seen

    return rollout


def run_case(case: Case) -> tuple[dict[str, np.ndarray], str, dict[str, list[int]]]:
    """What happened, the compiled program, bytes of each catalogue table on each device here."""
    mesh = devices.make_mesh()
    split = case.placement == "split"
    params = devices.place_params(simulator(case.catalogue).params, mesh, shard_catalogue=split)
    keys = devices.split_sessions(session_keys(), mesh)
    rollout = rollout_of(case.catalogue)
    if case.program == "over_sessions":
        rollout = devices.over_sessions(rollout, mesh, out_axes=(0, 1))
    compiled = jax.jit(rollout).lower(keys, params).compile()
    actual = multihost_utils.process_allgather(compiled(keys, params), tiled=True)
    tables = {
        jax.tree_util.keystr(path[:1]): [shard.data.nbytes for shard in table.addressable_shards]
        for path, table in jax.tree_util.tree_leaves_with_path(tables_of(params))
    }
    return by_name(actual), compiled.as_text(), tables


def by_name(tree) -> dict[str, np.ndarray]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in leaves}


def main(out: Path, cases: list[str]) -> None:
    """Run cases, and write of each its arrays and its compiled program, and of all a report."""
    report = {"devices": jax.device_count(), "processes": jax.process_count(), "tables": {}}
    for case in (Case(*text.split(",")) for text in cases):
        actual, program, report["tables"][str(case)] = run_case(case)
        np.savez(out / f"{case}.npz", **actual)
        (out / f"{case}.hlo").write_text(program)
    (out / "report.json").write_text(json.dumps(report))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
