"""Sessions on several devices: four forced host devices, and two processes of two, against one device."""

import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh

import jaxsim
from jaxsim import InputError, devices
from jaxsim.ensemble import decide
from tests.conftest import CAPACITY, HISTORY, simulator_of
from tests.factory import random_dataset
from tests.jaxsim import device_process
from tests.jaxsim.device_process import Case
from tests.paths import ROOT

FOUR_DEVICES = [
    Case("tables", "replicated", "over_sessions"),
    Case("tables", "split", "over_sessions"),
    Case("features", "split", "over_sessions"),
    Case("taste", "split", "over_sessions"),
    Case("tables", "replicated", "jit"),
    Case("tables", "split", "jit"),
]
CATALOGUES = ("tables", "features", "taste")
TWO_PROCESSES = [Case("tables", "split", "over_sessions")]
RUNS = [("four_devices", case) for case in FOUR_DEVICES]
RUNS += [("two_processes", case) for case in TWO_PROCESSES]
# jax.distributed must be initialised before jaxsim is imported: see docs/devices.md.
DISTRIBUTED = """
import sys
from pathlib import Path

import jax

coordinator, process, out, *cases = sys.argv[1:]
jax.distributed.initialize(coordinator, 2, int(process), initialization_timeout=60)

from tests.jaxsim import device_process

device_process.main(Path(out), cases)
"""
# Bytes of one of the state's four-byte arrays [SESSIONS, W, width]: one block's keys, or its values.
CACHE = 4 * device_process.SESSIONS * (HISTORY + CAPACITY) * device_process.WIDTH


def start(num_devices: int, *command: str) -> subprocess.Popen:
    # Code that runs for a second need not be optimised for longer.
    flags = (
        f"--xla_force_host_platform_device_count={num_devices} --xla_backend_optimization_level=0"
    )
    environment = {
        **os.environ,
        "XLA_FLAGS": flags,
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": str(ROOT),
    }
    return subprocess.Popen(
        [sys.executable, *command], env=environment, cwd=ROOT, stderr=subprocess.PIPE, text=True
    )


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("localhost", 0))
        return listener.getsockname()[1]


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> dict[str, Path]:
    """Folders of what the processes wrote; all run at once."""
    folders = {
        name: tmp_path_factory.mktemp(name)
        for name in ("four_devices", "two_processes", "second_process")
    }
    address = f"localhost:{free_port()}"
    module = ["-m", "tests.jaxsim.device_process"]
    processes = [start(4, *module, str(folders["four_devices"]), *map(str, FOUR_DEVICES))]
    for index, name in enumerate(("two_processes", "second_process")):
        command = ["-c", DISTRIBUTED, address, str(index), str(folders[name])]
        processes.append(start(2, *command, *map(str, TWO_PROCESSES)))
    try:
        for process in processes:
            _, errors = process.communicate(timeout=180)
            assert process.returncode == 0, errors
    finally:
        for process in processes:
            process.kill()
    return folders


@pytest.fixture(scope="module")
def one_device() -> dict[str, dict[str, np.ndarray]]:
    """The same rollout, on one device, as anybody would write it."""
    return {
        catalogue: device_process.by_name(
            jax.jit(device_process.rollout_of(catalogue))(
                device_process.session_keys(), device_process.simulator(catalogue).params
            )
        )
        for catalogue in CATALOGUES
    }


def communicated(program: str) -> dict[str, int]:
    """Bytes of each array that a compiled program sends between devices, by its type and shape."""
    kinds = "all-gather|all-reduce|all-to-all|collective-permute|reduce-scatter"
    sizes = {"pred": 1, "s8": 1, "u8": 1, "s32": 4, "u32": 4, "f32": 4}
    actual = {}
    for types in re.findall(rf"= (.*?) (?:{kinds})(?:-start)?\(", program):
        for kind, shape in re.findall(r"(\w+)\[([\d,]*)\]", types):
            actual[f"{kind}[{shape}]"] = sizes[kind] * int(
                np.prod([int(n) for n in shape.split(",") if n])
            )
    return actual


# ---- the same sessions -----------------------------------------------------------------------------------


@pytest.mark.slow  # starts several processes
@pytest.mark.parametrize(("run", "case"), RUNS, ids=[f"{run}-{case}" for run, case in RUNS])
def test_sessions_are_those_of_one_device(runs, one_device, run, case):
    actual = np.load(runs[run] / f"{case}.npz")
    expected = one_device[case.catalogue]
    assert set(actual) == set(expected)
    for name, value in expected.items():
        if value.dtype == np.float32 and "rewards" not in name:
            # f_sta's sums are taken in another order where a device has fewer sessions.
            np.testing.assert_allclose(actual[name], value, rtol=1e-3, atol=1e-3, err_msg=name)
        else:
            np.testing.assert_array_equal(actual[name], value, err_msg=name)


@pytest.mark.slow
def test_the_sessions_compared_differ_and_end(one_device):
    seen = one_device["tables"]
    assert len(np.unique(seen["[1]['items']"][0])) > device_process.SESSIONS // 2
    assert 0.2 < seen["[1]['rewards']"].mean() < 0.8
    assert seen["[1]['terminated']"].any()
    assert (seen["[1]['terminated']"] | seen["[1]['truncated']"]).any(axis=0).all()


@pytest.mark.slow  # starts several processes
@pytest.mark.parametrize(
    ("run", "num_devices", "num_processes"),
    [("four_devices", 4, 1), ("two_processes", 4, 2), ("second_process", 4, 2)],
)
def test_every_device_is_used(runs, run, num_devices, num_processes):
    report = json.loads((runs[run] / "report.json").read_text())
    assert (report["devices"], report["processes"]) == (num_devices, num_processes)


@pytest.mark.slow  # starts several processes
def test_both_processes_see_the_same(runs):
    for case in TWO_PROCESSES:
        first, second = (
            dict(np.load(runs[name] / f"{case}.npz"))
            for name in ("two_processes", "second_process")
        )
        chex.assert_trees_all_equal(first, second)


# ---- what is communicated, and what is held --------------------------------------------------------------


@pytest.mark.slow  # starts several processes
def test_replicated_params_need_no_communication(runs):
    case = Case("tables", "replicated", "over_sessions")
    assert communicated((runs["four_devices"] / f"{case}.hlo").read_text()) == {}


@pytest.mark.slow  # starts several processes
@pytest.mark.parametrize(("run", "case"), RUNS, ids=[f"{run}-{case}" for run, case in RUNS])
def test_neither_the_cache_nor_a_table_is_communicated(runs, run, case):
    sent = communicated((runs[run] / f"{case}.hlo").read_text())
    assert bool(sent) == (case[1:] != ("replicated", "over_sessions"))
    assert max(sent.values(), default=0) < CACHE
    assert not any(str(device_process.NUM_ITEMS // 4 * 4 + 4) in shape for shape in sent)


def test_sizes_of_communicated_arrays_are_read():
    program = """
      %a = f32[4,20,16]{2,1,0} all-gather(%x), channel_id=1
      %b = (s32[], u32[8]{0}) all-reduce-start(%y, %z), channel_id=2
      %c = f32[99]{0} add(%all-gather.3, %v)
    """
    assert communicated(program) == {"f32[4,20,16]": 5120, "s32[]": 4, "u32[8]": 32}


@pytest.mark.slow  # starts several processes
@pytest.mark.parametrize("catalogue", CATALOGUES)
def test_a_device_holds_its_share_of_a_split_table(runs, catalogue):
    report = json.loads((runs["four_devices"] / "report.json").read_text())["tables"]
    tables = device_process.tables_of(device_process.simulator(catalogue).params)
    rows = -(-device_process.NUM_ITEMS // 4)
    expected = {
        jax.tree_util.keystr(path): [rows * table.nbytes // len(table)] * 4
        for path, table in jax.tree_util.tree_leaves_with_path(tables)
    }
    assert report[str(Case(catalogue, "split", "over_sessions"))] == expected


# ---- on one device ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def mesh() -> Mesh:
    return devices.make_mesh(jax.devices()[:1])


@pytest.mark.slow
@pytest.mark.parametrize("catalogue", ["tables", "features"])
def test_a_split_catalogue_gives_the_same_evidence_and_reasons(mesh, catalogue):
    """What rollouts do not ask of it: whole rows, the whole table, and keywords."""
    params = simulator_of(random_dataset(1, num_blocks=1), catalogue=catalogue).params
    split = devices.place_params(params, mesh, shard_catalogue=True).catalogue
    assert split.num_items == params.catalogue.num_items
    items, likes = (
        jnp.array([[3, 39, 0, -1], [5, 4, 6, 7]]),
        jnp.array([[1, 0, 0, 0], [1, 1, 0, 0]]),
    )

    def ask(history, catalogue):
        decided = decide(jax.random.key(0), catalogue, 2, *history, 0.0, with_reasons=True)
        return decided, jaxsim.gather_evidence(catalogue, *history)

    asks = jax.vmap(ask, (0, None))
    actual = jax.jit(devices.over_sessions(asks, mesh))((items, likes), split)
    chex.assert_trees_all_equal(actual, jax.jit(asks)((items, likes), params.catalogue))


def test_a_split_kernel_gives_the_same_probabilities(mesh):
    _, env, params = simulator_of(random_dataset(1, num_blocks=1), semantics="calibrated")
    split = devices.place_params(params, mesh, shard_catalogue=True)
    assert isinstance(split.taste.kernel.values, devices.SplitTable)

    def expect(keys, params):
        def of_session(key):
            return env.expected_response(env.reset(key, params)[1], params)

        return jax.vmap(of_session)(keys)

    keys = jax.random.split(jax.random.key(0), 2)
    actual = jax.jit(devices.over_sessions(expect, mesh))(keys, split)
    np.testing.assert_allclose(actual, jax.jit(expect)(keys, params), atol=1e-6)


def test_a_kernel_that_beginning_sessions_read_is_not_split(mesh):
    dataset = random_dataset(1, num_blocks=1)
    params = simulator_of(dataset, semantics="calibrated", prefixes="encode").params
    with pytest.raises(InputError, match="begin from stored posteriors"):
        devices.place_params(params, mesh, shard_catalogue=True)
    latent = simulator_of(dataset, semantics="calibrated", taste="latent").params
    placed = devices.place_params(latent, mesh, shard_catalogue=True)
    assert placed.taste.features.shape == latent.taste.features.shape  # whole on every device


def test_a_split_table_is_indexed_like_an_array(mesh):
    table = jnp.arange(7 * 2 * 3, dtype=jnp.int32).reshape(7, 2, 3) - 5
    split = devices._split_rows(table, mesh)
    assert split.shape == table.shape
    row, other = jnp.array([6, 0, 3]), jnp.array([1, 1, 0])

    def lookups(table):
        by_number = [table[row], table[row, 1], table[row, other], table[4, other, 2], table[4]]
        return [*by_number, table[:, 1], table[:]]

    inside = jax.jit(devices.over_sessions(lookups, mesh, (None,), None))
    for actual in (lookups(split), inside(split)):
        chex.assert_trees_all_equal(actual, lookups(table))


def test_axes_are_those_of_vmap(mesh):
    def function(a, b, c):
        return a * b * c, {"mean": jax.lax.pmean(b.mean(), devices.SESSIONS)}

    args = jnp.ones((2, 3)), jnp.arange(3.0), jnp.float32(2)
    over = devices.over_sessions(function, mesh, (1, 0, None), (1, {"mean": None}))
    chex.assert_trees_all_equal(jax.jit(over)(*args), (args[0] * args[1] * 2, {"mean": 1.0}))


def test_placing_keeps_values_types_and_keys(mesh):
    tree = {
        "typed": jax.random.split(jax.random.key(3), 4),
        "raw": jax.random.split(jax.random.PRNGKey(3), 4),
        "host": np.arange(4, dtype=np.int8),
    }
    placed = devices.split_sessions(tree, mesh)
    chex.assert_trees_all_equal_shapes_and_dtypes(placed, tree)
    chex.assert_trees_all_equal(placed["raw"], tree["raw"])
    chex.assert_trees_all_equal(*(jax.random.key_data(x["typed"]) for x in (placed, tree)))
    assert all(x.sharding.mesh == mesh for x in jax.tree.leaves(placed))


# ---- what cannot be done ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def four() -> Mesh:
    """The shape of a mesh of four devices; nothing can be placed on it."""
    return jax.sharding.AbstractMesh((4,), (devices.SESSIONS,))


def test_sessions_that_cannot_be_split_are_refused(mesh, four):
    ten = jnp.zeros((10, 3))
    for split in (
        lambda: devices.split_sessions({"a": ten}, four),
        lambda: devices.over_sessions(jnp.sin, four, in_axes=(0,))(ten),
    ):
        with pytest.raises(InputError, match=r"10 sessions cannot be split over 4 devices.* 12$"):
            split()
    with pytest.raises(InputError, match=r"shape \(\) has no axis 0"):
        devices.split_sessions(jnp.float32(1), mesh)


def test_mistakes_are_refused(mesh):
    with pytest.raises(InputError, match="devices is empty"):
        devices.make_mesh([])
    other = jax.make_mesh((1,), ("batch",), devices=jax.devices()[:1])
    with pytest.raises(InputError, match=r"axes \('batch',\), none named 'sessions'"):
        devices.over_sessions(jnp.sin, other)
    with pytest.raises(InputError, match="3 arguments, but in_axes has 2"):
        devices.over_sessions(jnp.add, mesh)(1, 2, 3)
    params = simulator_of(random_dataset(1)).params
    split = devices.place_params(params, mesh, shard_catalogue=True)
    with pytest.raises(InputError, match="split already"):
        devices.place_params(split, mesh)
