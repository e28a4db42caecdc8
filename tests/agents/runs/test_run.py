"""Runs: the folder is written whole, resumed, repeated, loaded, and refused when damaged; and the command line."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pandas as pd
import pytest
from jax.experimental.compilation_cache import compilation_cache
from safetensors.numpy import load_file, save_file

import agents
import jaxsim
from agents.__main__ import run as run_command_line
from agents.algorithms.dqn import DQNConfig
from agents.commands import evaluate_run, log_policy, train_again
from agents.runs.config import load_config
from agents.runs.experiment import Experiment, RunOptions, load_run, train_run
from agents.runs.folder import (
    RUN_FILES,
    check_output,
    partial_folder,
    publish,
    unfinished_run,
)
from agents.runs.metrics import ProgressBar
from agents.runs.session_log import LogOptions
from jaxsim import InputError
from jaxsim.files import staged_folder
from tests.departure_logs import with_departure
from tests.factory import random_dataset, write_pack
from tests.paths import ROOT
from tests.signals_factory import with_signals
from tests.visit_logs import with_visits

SETTINGS = DQNConfig(
    total_steps=2 * 2 * 40, num_envs=2, rollout_length=2, width=8, batch_size=8, replay_steps=128,
    gradient_steps=1,
)  # fmt: skip


WINDOW = {"history_length": 4, "session_capacity": 10}


@pytest.fixture(scope="module", autouse=True)
def compiled_once(tmp_path_factory):
    """The same training is run several times here."""
    jax.config.update("jax_compilation_cache_dir", str(tmp_path_factory.mktemp("compiled")))
    compilation_cache.reset_cache()
    yield
    jax.config.update("jax_compilation_cache_dir", None)
    compilation_cache.reset_cache()


@pytest.fixture(scope="module")
def pack(tmp_path_factory) -> Path:
    """With no held-out user."""
    data = random_dataset(1, num_users=4, window=14, width=4, num_blocks=1)
    return write_pack(data, tmp_path_factory.mktemp("pack") / "tiny")


def run_training(pack: Path, out: Path, settings=SETTINGS, **changes) -> None:
    """Train two seeds of DQN; changes are of the experiment or of the run's options."""
    experiment = {"dataset": str(pack), "seeds": 2, "evaluation_seed": 7, **WINDOW}
    options = {"out": out}
    for name, value in changes.items():
        (experiment if hasattr(Experiment, name) else options)[name] = value
    train_run("dqn", settings, Experiment(**experiment), RunOptions(**options))


@pytest.fixture(scope="module")
def finished(pack, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "finished"
    run_training(pack, out)
    return out


@pytest.fixture
def run(finished, tmp_path) -> Path:
    """A copy to spoil."""
    copy = tmp_path / "run"
    copy.mkdir()
    for path in finished.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    return copy


def refusal(run) -> str:
    with pytest.raises(InputError) as caught:
        agents.load(run)
    message = str(caught.value)
    assert "\n" not in message
    assert str(run) in message
    return message


def test_a_run_folder_holds_everything(finished):
    assert {path.name for path in finished.iterdir()} == set(RUN_FILES)
    assert [path.name for path in finished.parent.iterdir()] == ["finished"]  # nothing half-written
    assert (finished / "learning_curve.png").read_bytes().startswith(b"\x89PNG")
    log = pd.read_csv(finished / "metrics.csv")
    assert {"seed", "steps", "like_rate", "session_return", "loss"} <= set(log.columns)
    assert log["steps"].max() == SETTINGS.total_steps
    config = load_config(finished)
    assert (config.steps, config.num_seeds) == (160, 2)
    assert config.seconds > 0 < config.compile_seconds
    rows = pd.DataFrame(json.loads((finished / "metrics.json").read_text())["rows"])
    assert set(rows["policy"]) >= {"dqn", "random", "popular", "like_rate", "static_best", "oracle"}
    mine = rows[rows["policy"] == "dqn"]
    assert mine["mode"].tolist() == ["greedy", "sampled"]
    assert mine[["seeds", "steps"]].to_numpy().tolist() == [[2, 160]] * 2


def test_runs_from_before_seeds_followed_one_another_are_repeated_side_by_side(finished, run):
    new = load_config(finished)
    assert new.seeds_at_once == new.at_once == 1  # on a CPU
    content = json.loads((run / "config.json").read_text())
    del content["seeds_at_once"]
    (run / "config.json").write_text(json.dumps(content))
    old = load_config(run)
    assert old.at_once == 2
    assert new.differences(old) == ["seeds_at_once is 1, not 2"]


@pytest.mark.slow
def test_a_dry_run_compiles_and_writes_no_run(pack, tmp_path, capsys):
    run_training(pack, tmp_path / "run", dry_run=True)
    assert list(tmp_path.iterdir()) == []
    out = capsys.readouterr().out
    assert "compiled in " in out
    assert out.endswith("nothing is trained: this is a dry run\n")


@pytest.mark.slow
def test_loaded_policies_recommend_as_those_trained(pack, finished):
    env, params = jaxsim.make(jaxsim.load_dataset(pack), **WINDOW)
    policies = [agents.load(finished, seed) for seed in range(2)]
    assert policies[0].env == env
    weights = load_file(finished / "policy.safetensors")
    for seed, policy in enumerate(policies):
        tables = [w for n, w in weights.items() if n.endswith("item_embedding")]
        mine = policy.variables["params"]["item_embedding"]
        np.testing.assert_array_equal(mine, tables[0][seed])
    reset = jax.jit(env.reset)
    act = jax.jit(lambda policy, key, obs, params: policy(key, obs, params))
    for index in range(3):
        obs, state = reset(jax.random.key(index), params)
        scores = policies[1].network.apply(policies[1].variables, obs)
        mask = env.action_mask(obs, params)
        action = act(policies[1], jax.random.key(index), obs, params)
        assert mask[action]
        assert scores[action] == scores[mask].max()
        assert action == policies[1].act(jax.random.key(9), (), env, obs, state, params)


@pytest.mark.slow
def test_a_run_is_evaluated_again_to_the_same_table(run, capsys):
    before = json.loads((run / "metrics.json").read_text())
    expected = results(run)
    (run / "metrics.json").unlink()
    (run / "returns.safetensors").unlink()
    evaluate_run(run)
    assert results(run) == expected
    assert json.loads((run / "metrics.json").read_text()) == before
    assert "| dqn (2 seeds) |" in capsys.readouterr().out


@pytest.mark.slow  # another training
def test_a_run_on_drawn_tastes_is_evaluated_on_them(pack, tmp_path, capsys):
    out = tmp_path / "latent"
    run_training(pack, out, semantics="soft", taste="latent", exposure=True)
    config = load_config(out)
    assert config.make_options()["taste"] == "latent"
    assert config.make_env().taste == "latent"
    assert config.make_env().exposure
    before = (out / "metrics.json").read_text()
    evaluate_run(out)
    assert json.loads((out / "metrics.json").read_text())["rows"] == json.loads(before)["rows"]


@pytest.mark.slow  # another training
def test_a_run_on_slates_is_repeated_loaded_and_evaluated_on_them(tmp_path, capsys):
    data = random_dataset(1, num_items=60, num_users=4, window=14, width=4, num_blocks=1)
    pack, out = write_pack(data, tmp_path / "pack"), tmp_path / "run"
    settings = {
        "slate-size": 3, "semantics": "calibrated", "position-effect": -0.5, "seeds": 2, "total-steps": 160,
        "num-envs": 4, "rollout-length": 4, "width": 8, "history-length": 4, "session-capacity": 10,
        "batch-size": 16, "dataset": pack, "out": out,
    }  # fmt: skip
    words = [word for name, value in settings.items() for word in (f"--{name}", str(value))]
    run_command_line(["train", "dqn", *words])
    config = load_config(out)
    slates = {
        "slate_size": 3, "position_effect": -0.5, "outside_option": 0.0, "unchosen": "examined",
    }  # fmt: skip
    options = config.make_options()
    assert {name: options[name] for name in slates} == slates
    env, params = jaxsim.make(data, **options)
    assert config.make_env() == env
    before = json.loads((out / "metrics.json").read_text())["rows"]
    assert {row["policy"] for row in before} == {
        "dqn", "random", "popular", "like_rate", "static_best", "oracle",
    }  # fmt: skip
    evaluate_run(out)
    assert json.loads((out / "metrics.json").read_text())["rows"] == before
    obs, state = env.reset(jax.random.key(0), params)
    slate = agents.load(out, seed=1)(jax.random.key(1), obs, params)
    assert slate.shape == (3,)
    assert not env.step(jax.random.key(2), state, slate, params)[-1]["invalid_action"]
    train_again(out, RunOptions(out=tmp_path / "again"))
    assert results(tmp_path / "again") == results(out)


@pytest.mark.slow  # another training
def test_a_run_that_starts_from_logs_is_evaluated_again(pack, tmp_path, capsys):
    out = tmp_path / "run"
    settings = replace(SETTINGS, encoder="residual", item_embedding="logs", log_odds_scale=0.2)
    run_training(pack, out, settings)
    before = json.loads((out / "metrics.json").read_text())["rows"]
    evaluate_run(out)
    assert json.loads((out / "metrics.json").read_text())["rows"] == before
    history = agents.load(out).variables["params"]["history"]
    assert set(history) >= {"item_features", "item_rate", "feature_scale"}
    # What the logs say is kept as it was, whatever was learned beside it.
    start = agents.item_start(jaxsim.load_dataset(pack), "logs", settings.width)
    np.testing.assert_array_equal(history["item_features"], start.vectors)


@pytest.mark.slow  # another training
def test_a_run_with_a_fitted_departure_is_evaluated_with_it(pack, tmp_path, capsys):
    leaving = write_pack(with_departure(jaxsim.load_dataset(pack)), tmp_path / "leaving")
    out = tmp_path / "run"
    run_training(leaving, out, departure="fitted")
    config = load_config(out)
    assert config.make_options()["departure"] == "fitted"
    assert config.make_env().departure == "fitted"
    before = json.loads((out / "metrics.json").read_text())["rows"]
    assert {row["policy"] for row in before} >= {"dqn", "oracle", "oracle_planning"}
    evaluate_run(out)
    assert json.loads((out / "metrics.json").read_text())["rows"] == before


@pytest.mark.slow  # another training
def test_a_run_for_ratings_of_users_who_tire_is_evaluated_with_both(pack, tmp_path, capsys):
    rated = write_pack(with_signals(jaxsim.load_dataset(pack)), tmp_path / "rated")
    out = tmp_path / "run"
    run_training(rated, out, semantics="calibrated", satiation=0.5, reward="rating")
    config = load_config(out)
    for options in (config.make_options(), config.environment):
        assert (options["satiation"], options["reward"]) == (0.5, "rating")
    assert (config.make_env().satiation, config.make_env().reward) == (0.5, "rating")
    before = json.loads((out / "metrics.json").read_text())["rows"]
    for row in before:  # ratings from 1 to 5
        assert row["a_rwd"] > 1 > row["like_rate"]
    log = pd.read_csv(out / "metrics.csv")
    assert (log["reward"] >= 1).all()
    assert (log["like_rate"] <= 1).all()
    evaluate_run(out)
    assert json.loads((out / "metrics.json").read_text())["rows"] == before


@pytest.mark.slow  # another training
def test_a_run_with_users_who_return_is_evaluated_with_them(pack, tmp_path, capsys):
    returning = write_pack(with_visits(jaxsim.load_dataset(pack)), tmp_path / "returning")
    out = tmp_path / "run"
    run_training(returning, out, visits=True, horizon_days=20.0)
    config = load_config(out)
    assert config.make_options()["visits"] is True
    assert config.make_env().horizon_days == 20.0
    before = json.loads((out / "metrics.json").read_text())["rows"]
    assert all(row["sessions_per_life"] >= 1 for row in before)
    evaluate_run(out)
    assert json.loads((out / "metrics.json").read_text())["rows"] == before
    assert "back in 7 d" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("taste", "posterior"),
        ("exposure", False),
        ("departure", "constant"),
        ("visits", False),
        ("horizon_days", None),
        ("satiation", None),
        ("reward", "like"),
        ("slate_size", 1),
    ],
)
def test_a_config_from_before_an_option_is_read(finished, run, option, value):
    path = run / "config.json"
    config = json.loads(path.read_text())
    del config["environment"][option]
    path.write_text(json.dumps(config))
    assert load_config(run).make_options()[option] == value
    assert load_config(run).make_env() == load_config(finished).make_env()


@pytest.mark.slow  # compiles the policies again
def test_a_run_is_logged_with_where_the_log_comes_from(pack, run, tmp_path, capsys):
    out = tmp_path / "logs" / "log.parquet"
    log_policy(run, LogOptions(out, episodes=6, sampled=True, network=1, seed=3))
    log = pd.read_parquet(out)
    assert log["episode"].nunique() == 6
    assert (log["user_group"] == "train").all()
    # Epsilon-greedy: the best item, or any of those that are left.
    epsilon = SETTINGS.exploration_final_eps
    assert ((log["propensity"] > 1 - epsilon) | (log["propensity"] < epsilon)).all()
    about = log.attrs
    assert (about["policy"], about["sampled"], about["training_seed"]) == ("learned", True, 1)
    assert (about["seed"], about["episodes"], about["users"]) == (3, 6, "train")
    assert about["environment"]["history_length"] == WINDOW["history_length"]
    assert about["dataset_digest"] == load_config(run).dataset_digest
    assert (log["policy"] == "dqn, seed 1, sampled").all()
    assert (log["simulator"].str.startswith("UserSimulator-v0, paper, invented ")).all()
    printed = capsys.readouterr().out
    assert "6 episodes" in printed
    assert "warning" not in printed
    log_policy(run, LogOptions(tmp_path / "greedy.parquet", episodes=6))
    assert "warning: at 100.0% of the steps the policy could recommend one thing only" in (
        capsys.readouterr().out
    )
    log_policy(run, LogOptions(out, episodes=6, sampled=True, network=1, seed=3))
    pd.testing.assert_frame_equal(pd.read_parquet(out), log)
    assert list(out.parent.iterdir()) == [out]
    for options, message in (
        ({"network": 2}, r"^--network is 2: .* has 2 training seeds, from 0$"),
        ({"users": "held_out"}, r"^--users held_out: invented has no such user$"),
        ({"out": tmp_path / "log.csv"}, r"end the name in .parquet$"),
        ({"out": tmp_path}, r"end the name in .parquet$"),
        ({"policy": "random", "sampled": True}, r"^--sampled is about the learned policy"),
        ({"episodes": 0}, r"^--episodes is 0: give a whole number from 1$"),
    ):
        with pytest.raises(InputError, match=message):
            log_policy(run, LogOptions(**{"out": out, **options}))
    pd.testing.assert_frame_equal(pd.read_parquet(out), log)


def test_a_run_is_not_evaluated_on_another_dataset(run, tmp_path):
    other = write_pack(
        random_dataset(2, num_users=4, window=14, width=4, num_blocks=1), tmp_path / "b"
    )
    with pytest.raises(
        InputError, match=r"different build of .* than .*/b is now; pass another --dataset"
    ):
        evaluate_run(run, str(other))
    with pytest.raises(
        InputError, match=r"different build of .* than .*/b is now; pass another --dataset"
    ):
        train_again(run, dataset=str(other))
    edit_config(run, dataset=str(other))
    with pytest.raises(InputError, match=r"/b is now; pass --dataset with the folder"):
        train_again(run)


def test_a_run_is_not_overwritten_unasked(pack, run, tmp_path):
    before = {path.name: path.read_bytes() for path in run.iterdir()}
    with pytest.raises(InputError, match="overwrite"):
        run_training(pack, run)
    assert {path.name: path.read_bytes() for path in run.iterdir()} == before
    check_output(run, overwrite=True)
    check_output(tmp_path / "new", overwrite=False)
    (tmp_path / "precious").mkdir()
    check_output(tmp_path / "precious", overwrite=False)
    (tmp_path / "precious" / "config.json").write_text("{}")
    (tmp_path / "precious" / "weights").mkdir()
    with pytest.raises(InputError, match="not a run folder"):
        check_output(tmp_path / "precious", overwrite=True)
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="not a writable folder"):
        check_output(tmp_path / "file" / "run", overwrite=False)


def test_a_folder_is_written_whole_or_not_at_all(tmp_path):
    out = tmp_path / "deep" / "run"

    def write(content: str, fail: bool) -> None:
        with staged_folder(out) as folder:
            (folder / "file").write_text(content)
            if fail:
                raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write("half", fail=True)
    assert list(out.parent.iterdir()) == []
    write("first", fail=False)
    with pytest.raises(OSError, match="disk full"):
        write("half", fail=True)
    assert (out / "file").read_text() == "first"
    write("second", fail=False)
    assert (out / "file").read_text() == "second"
    assert [path.name for path in out.parent.iterdir()] == ["run"]


def edit_config(run: Path, **changes) -> None:
    path = run / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.parametrize("content", ["", "{", "[]", "3", "{}", '{"run_version": 1}'])
def test_a_damaged_config_is_one_line(run, content):
    (run / "config.json").write_text(content)
    assert "config.json" in refusal(run)


@pytest.mark.parametrize(
    "changes",
    [
        {"run_version": 99},
        {"algorithm": "sarsa"},
        {"surprise": 1},
        {"settings": {"surprise": 1}},
        {"settings": {"width": 16}},
        {"environment": {}},
        {"environment": {"sasrec": {}}},
        {"num_seeds": 3},
        {"num_seeds": "two"},
    ],
    ids=str,
)
def test_a_config_that_does_not_fit_is_one_line(run, changes):
    edit_config(run, **changes)
    assert "config.json" in refusal(run)


def test_a_run_of_another_version_says_so(run, capsys):
    """The version is named where the run cannot be read, and in a note where it can."""
    machine = json.loads((run / "config.json").read_text())["machine"]
    edit_config(run, machine={**machine, "jaxsim": "9.9.9"})
    load_run(run)
    assert f"note: {run} was trained with jaxsim 9.9.9 (here " in capsys.readouterr().err
    edit_config(run, surprise=1)
    refused = refusal(run)
    assert (
        f"it was written by jaxsim 9.9.9, and this is {jaxsim.__version__}; train again" in refused
    )


def test_a_damaged_policy_is_one_line(run):
    path = run / "policy.safetensors"
    weights = load_file(path)
    save_file({n: w for n, w in weights.items() if not n.endswith("item_bias")}, path)
    assert "policy.safetensors" in refusal(run)
    path.write_bytes(b"rubbish")
    assert "policy.safetensors" in refusal(run)
    path.unlink()
    assert "policy.safetensors" in refusal(run)


def test_a_folder_that_is_not_a_run_is_one_line(tmp_path, finished):
    assert "not a run folder" in refusal(tmp_path / "nowhere")
    with pytest.raises(InputError, match="seeds 0 to 1, not 2"):
        agents.load(finished, seed=2)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["train", "sarsa"], "unknown command 'sarsa'; known: ppo, trpo, a2c, dqn"),
        (["train", "dqn", "--seeds", "0"], "seeds is 0: give a whole number from 1"),
        (["train", "ppo", "--rollout-length", "6"], "must be a multiple of num_minibatches (8)"),
        (
            ["train", "dqn", "--resume", "--out", "no-such-run"],
            "no-such-run: there is no run to resume",
        ),
        (["train", "dqn", "--seed", str(2**63)], "seed is 9223372036854775808: give a whole"),
        (["train", "dqn", "--evaluation-seed", str(2**32)], "evaluation_seed is 4294967296: "),
        (
            ["train", "dqn", "--checkpoint-every", "0"],
            "checkpoint_every is 0: give a whole number from 1",
        ),
        (["train", "dqn", "--out", "/"], "/: is not the name of a run folder; choose another"),
        (["train", "dqn", "--out", "."], ": exists and is not a run folder; choose another --out"),
        (["train", "--config", "no-such-run"], "no-such-run: not a run folder"),
        (["evaluate", "no-such-run"], "no-such-run: not a run folder"),
    ],
)
def test_mistakes_on_the_command_line_are_one_line(words, message, capsys):
    with pytest.raises(SystemExit) as caught:
        run_command_line(words)
    assert caught.value.code == 2
    printed = capsys.readouterr().err
    assert message in printed
    assert printed.count("\n") == 1


@pytest.mark.slow  # starts a process
def test_the_command_line_runs_as_a_module():
    done = subprocess.run(
        [sys.executable, "-m", "agents", "train", "--help"],
        capture_output=True, text=True, cwd=ROOT,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert all(name in done.stdout for name in ("ppo", "trpo", "a2c", "dqn", "--config"))


# Ctrl-C in the middle of an import, at the first module of a library.
INTERRUPTED_IMPORT = """
import runpy, sys
class Interrupted:
    def find_spec(self, name, path=None, target=None):
        if name == "{module}":
            raise KeyboardInterrupt
sys.meta_path.insert(0, Interrupted())
sys.argv = ["-m", "train", "--help"]
runpy.run_module("agents", run_name="__main__")
"""


@pytest.mark.parametrize("module", ["jax", pytest.param("agents.commands", marks=pytest.mark.slow)])
def test_an_interrupt_while_libraries_load_is_one_line(module):
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED_IMPORT.format(module=module)],
        capture_output=True, text=True, cwd=ROOT,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (130, "interrupted\n")


def test_other_mistakes_leave_no_files(pack, tmp_path):
    for changes in (
        {"seeds": 0},
        {"settings": replace(SETTINGS, replay_steps=10)},  # less than a session
        {"settings": replace(SETTINGS, num_envs=10**9)},  # more than any memory
        {"resume": True},
        {"resume": True, "overwrite": True},
        {"checkpoint_every": 0},
        {"dataset": str(tmp_path / "none")},
    ):
        with pytest.raises(InputError):
            run_training(pack, tmp_path / "out", **changes)
    assert list(tmp_path.iterdir()) == []


# ---- stopped, resumed and repeated -------------------------------------------------------------------------


def results(run: Path) -> list[bytes]:
    """The results that must not depend on when, where and how often a run was stopped."""
    returns = load_file(run / "returns.safetensors")
    files = [(run / name).read_bytes() for name in ("policy.safetensors", "metrics.csv")]
    return [*files, *(returns[name].tobytes() for name in sorted(returns))]


@pytest.fixture
def stopped(pack, tmp_path, monkeypatch) -> Path:
    """The folder of a run that was interrupted in its 25th chunk, before it had that name."""

    def write(self, measurement) -> None:
        if measurement.steps == 25 * 4:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(ProgressBar, "write", write)
        with pytest.raises(KeyboardInterrupt, match=r"stopped\.partial has .* with --resume$"):
            run_training(pack, tmp_path / "stopped")
    return tmp_path / "stopped"


@pytest.mark.slow
def test_a_stopped_run_is_resumed_to_the_same_bits(pack, stopped, finished, capsys):
    partial = partial_folder(stopped)
    assert not stopped.exists()
    assert len(pd.read_csv(partial / "metrics.csv")) == 2 * 25
    before = sorted(path.relative_to(partial) for path in partial.rglob("*"))
    for changes, message in (
        ({}, "stopped.partial: holds a run; .* --resume"),
        ({"resume": True, "seeds": 1}, "its seeds is 2, not 1"),
        ({"resume": True, "settings": replace(SETTINGS, learning_rate=0.5, gamma=0.9)},
         "its gamma is 0.4, not 0.9; its learning_rate is 0.002, not 0.5$"),
        ({"resume": True, "session_capacity": 9}, "its session_capacity is 10, not 9"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=message):
            run_training(pack, stopped, **changes)
    other = write_pack(
        random_dataset(2, num_users=4, window=14, width=4, num_blocks=1), stopped.parent / "other"
    )
    with pytest.raises(InputError, match="its build of the dataset is"):
        run_training(other, stopped, resume=True)
    shutil.rmtree(other)
    with (
        unfinished_run(stopped, load_config(partial), resume=True),
        pytest.raises(InputError, match="another process is training there"),
    ):
        run_training(pack, stopped, resume=True)
    assert sorted(path.relative_to(partial) for path in partial.rglob("*")) == before

    stopped.mkdir()
    (stopped / "thesis.tex").write_text("a year of work")
    with pytest.raises(InputError, match="stopped: exists and is not a run folder"):
        run_training(pack, stopped, resume=True)
    with pytest.raises(InputError, match=r"stopped: exists by now .* run is in .*stopped\.partial"):
        publish(stopped, keep_checkpoints=False)
    assert (stopped / "thesis.tex").read_text() == "a year of work"
    assert sorted(path.relative_to(partial) for path in partial.rglob("*")) == before
    shutil.rmtree(stopped)

    capsys.readouterr()
    run_training(pack, stopped, resume=True)
    assert "continuing after 80 of 160 steps" in capsys.readouterr().out
    assert results(stopped) == results(finished)
    assert {path.name for path in stopped.iterdir()} == set(RUN_FILES)
    assert [path.name for path in stopped.parent.iterdir()] == ["stopped"]
    with pytest.raises(InputError, match="there is no run to resume, it is finished"):
        run_training(pack, stopped, resume=True)


def test_a_config_repeats_its_run_to_the_bit(finished, tmp_path):
    out = tmp_path / "again"
    train_again(finished / "config.json", RunOptions(out=out, keep_checkpoints=True))
    assert results(out) == results(finished)
    assert sorted(path.name for path in (out / "checkpoints").iterdir()) == ["30", "40"]
    configs = [vars(load_config(run)) for run in (out, finished)]
    for config in configs:
        del config["seconds"], config["compile_seconds"]
    assert configs[0] == configs[1]
    check_output(out, overwrite=True)


def test_a_new_run_takes_the_place_of_an_old_one_when_it_is_whole(pack, run, monkeypatch):
    before = results(run)

    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("agents.runs.experiment.train_seeds", interrupt)
    with pytest.raises(KeyboardInterrupt, match="with --resume in place of --overwrite"):
        run_training(pack, run, overwrite=True)
    check_output(run, overwrite=False, resume=True)
    assert results(run) == before
    assert (partial_folder(run) / "config.json").is_file()
