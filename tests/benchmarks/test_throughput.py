"""The figures of `python -m benchmarks throughput`, and the random actions that it steps with."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from benchmarks import hardware
from benchmarks.hardware import Device
from benchmarks.throughput import command, measurement, options, semantics, vote_cost
from benchmarks.throughput.plot import plot_throughput
from benchmarks.throughput.random_actions import draw_allowed, draw_allowed_slate
from benchmarks.throughput.report import format_report, vote_lines
from benchmarks.throughput.rollout import Runner, start
from benchmarks.throughput.step_cost import state_bytes, step_bytes, step_flops, tree_bytes
from jaxsim import InputError, SASRec
from tests.conftest import CAPACITY, HISTORY, simulator_of
from tests.factory import random_dataset
from tests.paths import ROOT

BATCH = 6
STEPS = 2  # in one call of the compiled program


# ---- random actions --------------------------------------------------------------------------------------

draw_one = jax.jit(draw_allowed, static_argnums=2)


def test_rejection_is_uniform_over_what_is_allowed_even_where_most_is_rejected():
    # 3 of 10 items are allowed: one draw in four rejects all of its first four candidates.
    seen = jnp.array([0, 3, 4, 6, 7, 8, 9, -1, -1], jnp.int32)
    keys = jax.random.split(jax.random.key(0), 6000)
    drawn = jax.vmap(lambda key: draw_one(key, seen, 10))(keys)
    assert drawn.dtype == jnp.int32
    counts = np.bincount(drawn, minlength=10)
    assert counts[[1, 2, 5]].sum() == 6000
    assert stats.chisquare(counts[[1, 2, 5]]).pvalue > 1e-4


@settings(deadline=None, max_examples=40)
@given(seen=st.lists(st.integers(-1, 7), min_size=6, max_size=6), seed=st.integers(0, 2**31 - 1))
def test_rejection_never_draws_what_was_seen(seen, seed):
    drawn = int(draw_one(jax.random.key(seed), jnp.array(seen, jnp.int32), 8))
    assert 0 <= drawn < 8
    assert drawn not in seen


draw_slate = jax.jit(draw_allowed_slate, static_argnums=(2, 3))


def test_random_slates_are_uniform_over_ordered_choices_of_what_is_allowed():
    seen = jnp.array([0, 3, 4, 6, 7, 8, -1], jnp.int32)
    keys = jax.random.split(jax.random.key(0), 6000)
    drawn = np.asarray(jax.vmap(lambda key: draw_slate(key, seen, 10, 2))(keys))
    pairs, counts = np.unique(drawn, axis=0, return_counts=True)
    allowed = [1, 2, 5, 9]
    assert {tuple(pair) for pair in pairs} == {(a, b) for a in allowed for b in allowed if a != b}
    assert stats.chisquare(counts).pvalue > 1e-4


# ---- the program that is timed ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def runner_of(simulator):
    """Runners of the small simulator by batch size and resets; each is compiled once for all tests."""
    runners: dict[tuple[int, bool], Runner] = {}

    def build(env, params, batch, num_steps, resets=True):
        assert num_steps == STEPS
        if (batch, resets) not in runners:
            runners[batch, resets] = Runner(
                simulator.env, simulator.params, batch, num_steps, resets
            )
        return runners[batch, resets]

    return partial(build, *simulator[1:])


def test_rollout_steps_sessions_with_allowed_actions_and_resets_them(runner_of):
    runner = runner_of(BATCH, STEPS)
    runner.restart()
    assert runner.seconds(calls=2 * CAPACITY // STEPS) > 0
    states = runner.states
    assert 0 <= float(runner.likes) <= 1
    assert (states.time < CAPACITY).all()  # every session has started again
    # Every action was valid: each step of a session appended one item, and no item twice.
    assert (states.session_length == states.time).all()
    for items, length in zip(np.asarray(states.items), states.length, strict=True):
        assert len(set(items[:length].tolist())) == length


def test_rollout_without_resets_goes_on_until_it_is_restarted(runner_of):
    runner = runner_of(BATCH, STEPS, resets=False)
    assert runner.compile_seconds > 0
    runner.restart()
    runner.seconds(calls=CAPACITY // STEPS)
    assert (runner.states.time == CAPACITY).all()
    assert (runner.states.session_length == CAPACITY).all()
    runner.restart()
    assert (runner.states.time == 0).all()


TWO_DEVICES = """
import jax
import numpy as np
from benchmarks.hardware import use_cores
from benchmarks.throughput import measurement
from tests.conftest import simulator_of
from tests.factory import random_dataset

assert use_cores(2) == jax.device_count() == 2
_, env, params = simulator_of(random_dataset(0))
measurement._RUN_SECONDS, measurement.STEPS = 0.001, 2
spread = measurement.spread_over(2, params)
runner = measurement.runner_on(env, params, 6, 2, spread=spread)
runner.seconds(calls=1)
assert len(runner.states.time.sharding.device_set) == 2
items = np.asarray(runner.states.items)
assert (items[:3] != items[3:]).any()  # the devices draw different sessions and actions
row = measurement.measure_batch(env, params, 6, 1, spread)
assert row["devices"] == 2 and row["one_device"]["ratio"] > 0
row = measurement.measure_batch(env, params, 3, 1, spread)
assert row["devices"] == 1 and "one_device" not in row
"""


@pytest.mark.slow  # a process of its own, because the number of devices is fixed when JAX starts
def test_sessions_split_over_two_devices_of_a_cpu():
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}
    environment.pop("XLA_FLAGS", None)
    subprocess.run([sys.executable, "-c", TWO_DEVICES], env=environment, cwd=ROOT, check=True)


def test_a_cpu_has_a_device_for_each_core_and_other_devices_cannot_be_added(monkeypatch):
    changed = []
    monkeypatch.setattr(hardware, "clear_backends", lambda: changed.append("cleared"))
    monkeypatch.setattr(jax.config, "update", lambda name, value: changed.append((name, value)))
    monkeypatch.setattr(jax, "device_count", lambda: 1)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 3, 4})
    assert hardware.use_cores(1) == 1
    assert changed == []
    assert hardware.use_cores(0) == 3
    assert changed == ["cleared", ("jax_num_cpu_devices", 3)]
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert hardware.use_cores(0) == 1
    with pytest.raises(InputError, match="--devices 2: JAX has 1 here"):
        hardware.use_cores(2)


# ---- what a step costs -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def by_features():
    return simulator_of(random_dataset(0), catalogue="features")


def test_step_costs_by_hand(simulator, by_features):
    window, width, blocks = HISTORY + CAPACITY, 8, 2
    cache = 2 * blocks * window * width * 4
    products = blocks * (16 * width**2 + 4 * window * width) + 2 * width
    _, env, params = simulator
    assert env.catalogue == "tables"
    assert step_bytes(env, params) == cache + 17 * window
    assert step_flops(env, params) == products
    # 12 keywords and 4 categories are one word of bits each; vectors have 6 numbers.
    _, env, params = by_features
    assert step_bytes(env, params) == cache + (13 + 4 + 4 * 6 + 4) * window
    assert step_flops(env, params) == products + 4 * window * 6


def test_operations_of_a_token_are_those_that_xla_counts(simulator):
    """The formula leaves out what is no product (norms, softmax): at full size that is little."""
    env = replace(
        simulator.env,
        sasrec=SASRec(num_items=50, num_users=1, window=150),
        history_length=50,
        session_capacity=100,
    )
    model = env.sasrec
    cache = vote_cost._empty_cache(model, 1, env.window)
    cache = jax.tree.map(lambda x: x[0], cache)
    token = jnp.int32(0), jnp.int8(1), cache, jnp.int32(env.window - 1)
    variables = jax.jit(partial(model.init, method="encode_token"))(jax.random.key(0), *token)

    def one_token(variables, *token):
        hidden, _ = model.apply(variables, *token, method="encode_token")
        return hidden

    counted = jax.jit(one_token).lower(variables, *token).compile().cost_analysis()["flops"]
    products = step_flops(env, simulator.params)
    assert 0.8 * counted < products < 1.02 * counted


def test_state_bytes_are_those_of_a_real_state(simulator):
    _, env, params = simulator
    states = start(env, jax.random.key(0), params, BATCH)
    assert state_bytes(env, params) * BATCH == sum(x.nbytes for x in jax.tree.leaves(states))


# ---- the device ------------------------------------------------------------------------------------------


def test_timing_by_hand():
    assert hardware.Timing.of([3.0]) == hardware.Timing(3.0, 3.0, 3.0)
    assert hardware.Timing.of([5.0, 1.0, 2.0, 4.0, 3.0]) == hardware.Timing(3.0, 2.0, 4.0)


def test_rates_divide_work_by_time(monkeypatch):
    monkeypatch.setattr(hardware, "repeated", lambda run, repeats: _half_a_second(run))
    assert hardware.copy_bandwidth(4000, 1) == 16000  # 4,000 bytes read and 4,000 written
    assert hardware.read_bandwidth(4000, 1) == 8000
    assert hardware.matmul_rate(10, 1) == 4000


def _half_a_second(run):
    run()
    return hardware.Timing(0.5, 0.5, 0.5)


def test_program_bytes_count_arguments_and_results_once():
    array = jnp.zeros(1000, jnp.float32)
    fresh = jax.jit(lambda x: x + 1).lower(array).compile()
    in_place = jax.jit(lambda x: x + 1, donate_argnums=0).lower(array).compile()
    assert hardware.program_bytes(fresh) == pytest.approx(8000, abs=200)
    assert hardware.program_bytes(in_place) == pytest.approx(4000, abs=200)
    assert hardware.peak_process_bytes() > 10e6


# ---- the measurement -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def small_runs(runner_of):
    """Sizes with which a measurement takes seconds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hardware, "_ARRAY_BYTES", {"cpu": (1 << 20,), "other": (1 << 20,)})
        patch.setattr(hardware, "_MATRIX_SIZES", {"cpu": (64,), "other": (64,)})
        patch.setattr(measurement, "_RUN_SECONDS", 0.001)
        patch.setattr(measurement, "STEPS", STEPS)
        patch.setattr(measurement, "Runner", lambda _env, _params, *sizes: runner_of(*sizes))
        patch.setattr(jax, "clear_caches", lambda: None)  # the other tests' programs
        yield


@pytest.fixture(scope="module")
def written(small_runs, simulator, tmp_path_factory):
    """The JSON that the command writes, and the path of its plot."""
    folder = tmp_path_factory.mktemp("throughput")
    out, plot = folder / "out.json", folder / "plots" / "plot.png"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(command, "load_dataset", lambda _: simulator.dataset)
        patch.setattr(measurement, "make", lambda *_, **__: simulator[1:])
        command.run_throughput(
            "invented",
            batches=(BATCH, 4),
            repeats=2,
            votes=False,
            semantics=False,
            devices=1,
            json=out,
            plot=plot,
        )
    return json.loads(out.read_text("utf-8")), plot


def test_result_has_the_agreed_keys_and_they_fit_together(written):
    result, plot = written
    assert result["dataset"] == "invented"
    assert [row["batch"] for row in result["rows"]] == [4, BATCH]
    best = max(result["rows"], key=lambda row: row["steps_per_second"])
    assert result["best"] == {key: best[key] for key in result["best"]}
    assert set(result["best"]) == {"batch", "steps_per_second", "compile_seconds"}
    bound = result["bound_steps_per_second"]
    assert result["fraction_of_bound"] == pytest.approx(best["steps_per_second"] / bound)
    copied = result["measured"]["copy_bytes_per_second"] / result["step"]["bytes"]
    products = result["measured"]["matmul_flops_per_second"] / result["step"]["flops"]
    assert bound == pytest.approx(min(copied, products))
    for row in result["rows"]:
        assert row["low_quartile"] <= row["steps_per_second"] <= row["high_quartile"]
        assert row["states_bytes"] == row["batch"] * result["memory"]["state_bytes_per_session"]
        assert row["program_bytes"] > row["states_bytes"]
        assert 0 < row["like_rate"] < 1
    assert result["reset"]["batch"] == best["batch"]
    assert result["reset"]["ratio"] > 0
    assert plot.read_bytes()[:4] == b"\x89PNG"


def test_report_names_each_batch_and_the_bound(written):
    result, _ = written
    report = format_report(result)
    for row in result["rows"]:
        assert f"{row['steps_per_second']:,.0f}" in report
    assert f"bound {result['bound_steps_per_second']:,.0f} steps/s" in report
    one = {"steps_per_second": 123.4, "ratio": 1.89, "low_quartile": 1.8, "high_quartile": 1.9}
    split = [{**row, "devices": 2, "one_device": one} for row in result["rows"]]
    assert "123   1.89  (1.80 to 1.90)" in format_report({**result, "rows": split})
    assert "on one device" not in report
    fast = {**result, "bound_steps_per_second": 1.0}
    assert "can pass the bound" in format_report(fast)
    slow = {**result, "bound_steps_per_second": 1e12}
    assert "can pass the bound" not in format_report(slow)


@pytest.mark.slow  # compiles a program for each semantics
def test_every_semantics_is_measured_beside_the_paper_s(simulator, written, monkeypatch):
    monkeypatch.setattr(measurement, "_RUN_SECONDS", 0.001)
    monkeypatch.setattr(semantics, "STEPS", STEPS)
    sizes = {"history_length": HISTORY, "session_capacity": CAPACITY}
    rows = semantics.measure_semantics(simulator.dataset, (4, 2**40), 2, sizes, 1e9)
    assert [row["semantics"] for row in rows] == list(semantics.SEMANTICS)
    assert [row["batch"] for row in rows] == [4, 4, 4]  # nothing has room for 2**40 sessions
    for row in rows:
        assert row["steps_per_second"] > 0
        assert row["low_quartile"] <= row["ratio"] <= row["high_quartile"]
        assert row["bound_steps_per_second"] == 1e9 / row["step_bytes"]
        assert row["step_bytes"] > row["state_bytes"] / 2
    assert rows[0]["ratio"] == 1.0
    assert rows[1]["state_bytes"] == rows[2]["state_bytes"] != rows[0]["state_bytes"]
    report = format_report({**written[0], "semantics": rows})
    assert all(f"{row['steps_per_second']:,.0f}" in report for row in rows)


@pytest.mark.slow  # compiles a program for each option
def test_every_option_is_measured_beside_single_items(simulator, monkeypatch, capsys):
    monkeypatch.setattr(measurement, "_RUN_SECONDS", 0.001)
    monkeypatch.setattr(options, "STEPS", STEPS)
    sizes = {"history_length": HISTORY, "session_capacity": 4}
    chosen = {
        options.BASE: sizes,
        "slates": {**sizes, "slate_size": 3},
        "departure": {**sizes, "departure": "fitted"},  # the dataset has no such model
    }
    monkeypatch.setattr(options, "OPTIONS", chosen)
    rows = options.measure_options(simulator.dataset, sessions=3, repeats=2)
    assert [row["option"] for row in rows] == [options.BASE, "slates"]
    assert "departure is left out: departure=" in capsys.readouterr().out
    assert rows[0]["ratio"] == 1.0
    assert rows[1]["state_bytes"] > rows[0]["state_bytes"]
    assert all(row["steps_per_second"] > 0 for row in rows)
    report = options.format_options(
        {"dataset": "invented", "sessions": 3, "device": "cpu", "rows": rows}
    )
    assert all(f"{row['steps_per_second']:,.0f}" in report for row in rows)
    with pytest.raises(InputError, match="--sessions 1099511627776: all options need"):
        options.measure_options(simulator.dataset, sessions=2**40, repeats=1)


def test_a_step_under_the_taste_model_reads_its_factor(simulator):
    _, env, params = simulator_of(simulator.dataset, semantics="calibrated")
    state = jax.eval_shape(env.reset_env, jax.random.key(0), params)[1]
    factor = sum(x.size for x in jax.tree.leaves(state.posterior))
    assert step_bytes(env, params) == 4 * factor + (HISTORY + CAPACITY) * (13 + 4)


def test_sweep_ends_where_memory_does(simulator, small_runs, monkeypatch, capsys):
    _, env, params = simulator
    room = tree_bytes(params) + 6 * state_bytes(env, params)
    monkeypatch.setattr(hardware, "device_memory", lambda: room / measurement.MEMORY_SHARE)
    rows = measurement.measure_batches(env, params, [4, 8, 16], repeats=1)
    assert [row["batch"] for row in rows] == [4]
    assert "8 sessions do not fit" in capsys.readouterr().out
    with pytest.raises(InputError, match="8 sessions do not fit"):
        measurement.measure_batches(env, params, [8], repeats=1)


def test_sweep_ends_where_the_device_refuses_memory(simulator, monkeypatch):
    _, env, params = simulator

    def refuse(env, params, batch, repeats, spread):
        if batch > 4:
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory")
        return {"batch": batch}

    monkeypatch.setattr(measurement, "measure_batch", refuse)
    assert measurement.measure_batches(env, params, [4, 8], 1) == [{"batch": 4}]

    def fail(*_):
        raise jax.errors.JaxRuntimeError("INTERNAL: something else")

    monkeypatch.setattr(measurement, "measure_batch", fail)
    with pytest.raises(jax.errors.JaxRuntimeError, match="something else"):
        measurement.measure_batches(env, params, [4], 1)


@pytest.mark.parametrize(
    ("settings_", "message"),
    [
        pytest.param({"repeats": 0}, "--repeats 0", id="repeats"),
        pytest.param({"batches": (4, 0)}, "--batches 0", id="batches"),
        pytest.param({"devices": -1}, "--devices -1", id="devices"),
    ],
)
def test_bad_settings_are_one_line(settings_, message):
    with pytest.raises(InputError, match=message):
        command.run_throughput("nothing", **settings_)


@pytest.mark.parametrize(
    ("name", "message"),
    [("", "is a folder"), ("x.foo", "no picture format.*png"), ("x", "no picture format")],
)
def test_pictures_that_cannot_be_drawn_are_refused_before_the_work(tmp_path, name, message):
    with pytest.raises(InputError, match=message):
        command.run_throughput("nothing", plot=tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_of_two_measurements_of_the_device_the_best_counts():
    assert Device(3.0, 1.0, 5.0).better(Device(2.0, 4.0, 5.0)) == Device(3.0, 4.0, 5.0)


# ---- votes -----------------------------------------------------------------------------------------------


def test_votes_are_measured_on_each_path_that_fits(monkeypatch):
    monkeypatch.setattr(vote_cost, "DIMENSION", 8)
    measured = []

    def logical_rows(build, path, num_items, *_):
        measured.append((path, num_items))
        return []

    monkeypatch.setattr(vote_cost, "_logical_rows", logical_rows)
    monkeypatch.setattr(vote_cost, "_statistic_rows", lambda *_: [])
    budget = 100_000  # tables of 100 items take 80 KB, of 200 items 320 KB
    assert vote_cost.measure_votes(1, budget, (3,), (100, 200), candidates=4) == []
    assert measured == [("tables", 100), ("features", 100), ("features", 200)]


@pytest.fixture(scope="module")
def vote_rows():
    """Each vote measured on a small catalogue, f_mat and f_sim with item features alone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vote_cost, "DIMENSION", 8)
        return vote_cost.measure_votes(1, 0, (3,), (100,), candidates=4)


@pytest.mark.slow
def test_each_vote_has_a_row(vote_rows):
    cells = [(row["vote"], row["catalogue"], row["items"], row["history"]) for row in vote_rows]
    logical = [(vote, "features", 100, 3) for vote in ("f_mat", "f_sim")]
    assert cells == [*logical, ("f_sta", None, 100, 3)]
    assert all(row["microseconds"] > 0 for row in vote_rows)


def test_votes_are_printed_and_drawn(vote_rows):
    title, header, *lines = vote_lines(vote_rows)
    assert "by history length" in title
    assert header.split() == ["vote", "catalogue", "items", "3"]
    for row, line in zip(vote_rows, lines, strict=True):
        expected = [row["vote"], row["catalogue"] or "-", "100", f"{row['microseconds']:.2f}"]
        assert line.split() == expected
    batch = {"batch": 1, "steps_per_second": 1.0, "low_quartile": 0.9, "high_quartile": 1.1}
    result = {"dataset": "d", "device": "e", "bound_steps_per_second": 2.0, "rows": [batch]}
    assert len(plot_throughput({**result, "votes": vote_rows}).axes) == 2
    assert len(plot_throughput(result).axes) == 1


def test_a_vote_alone_leaves_out_what_only_the_other_needs(monkeypatch):
    """Without that, the table would show the same cost twice."""
    monkeypatch.setattr(vote_cost, "DIMENSION", 8)
    catalogue = vote_cost.random_features(100)
    decisions = vote_cost._random_decisions(100, 5, 4)

    def reads_embeddings(vote):
        program = vote_cost._margins.lower(vote, catalogue, *decisions).compile()
        return "f32[100,2,8]" in program.as_text()

    assert reads_embeddings("f_sim")
    assert not reads_embeddings("f_mat")
