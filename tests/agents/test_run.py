"""The run folder: written whole, read back, refused when damaged; and the command line around it."""

import json
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import load_file, save_file

import agents
import jaxsim
from agents.__main__ import evaluate_run, train
from agents.dqn import DQNConfig
from agents.run import check_output
from jaxsim import InputError
from jaxsim.files import staged_folder
from tests.factory import random_dataset, write_pack

ROOT = Path(__file__).parents[2]
SETTINGS = DQNConfig(
    total_steps=2 * 2 * 40, num_envs=2, rollout_length=2, width=8, batch_size=8, replay_steps=128,
    updates_per_rollout=1,
)  # fmt: skip


@pytest.fixture(scope="module")
def pack(tmp_path_factory) -> Path:
    """Large enough for the default window of 150, with no held-out user."""
    data = random_dataset(1, num_users=4, num_items=160, window=150, width=4, num_blocks=1)
    return write_pack(data, tmp_path_factory.mktemp("pack") / "tiny")


def run_training(pack: Path, out: Path, **changes) -> None:
    settings = {
        "algorithm": "dqn", "settings": SETTINGS, "dataset": str(pack), "out": out, "seeds": 2,
        "seed": 0, "evaluation_seed": 7, "semantics": "paper", "repeats": "mask", "overwrite": False,
    }  # fmt: skip
    train(**{**settings, **changes})


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
    names = {path.name for path in finished.iterdir()}
    assert names == {"config.json", "metrics.csv", "metrics.json", "learning_curve.png",
                     "policy.safetensors"}  # fmt: skip
    assert [path.name for path in finished.parent.iterdir()] == ["finished"]  # nothing half-written
    assert (finished / "learning_curve.png").read_bytes().startswith(b"\x89PNG")
    log = pd.read_csv(finished / "metrics.csv")
    assert {"seed", "steps", "like_rate", "session_return", "loss"} <= set(log.columns)
    assert log["steps"].max() == SETTINGS.total_steps
    rows = pd.DataFrame(json.loads((finished / "metrics.json").read_text())["rows"])
    assert set(rows["policy"]) >= {"dqn", "random", "popular", "like_rate", "static_best", "oracle"}
    assert rows.set_index("policy").loc["dqn", ["seeds", "steps"]].tolist() == [2, 160]


def test_loaded_policies_recommend_as_those_trained(pack, finished):
    env, params = jaxsim.make(jaxsim.load_dataset(pack))
    policies = [agents.load(finished, seed) for seed in range(2)]
    assert policies[0].env == env
    weights = load_file(finished / "policy.safetensors")
    for seed, policy in enumerate(policies):
        tables = [w for n, w in weights.items() if n.endswith("item_embedding")]
        mine = policy.variables["params"]["item_embedding"]
        np.testing.assert_array_equal(mine, tables[0][seed])
    obs, state = env.reset(jax.random.key(0), params)
    act = jax.jit(lambda policy, key, obs, params: policy(key, obs, params))
    for step in range(3):
        scores = policies[1].network.apply(policies[1].variables, obs)
        mask = env.action_mask(obs, params)
        action = act(policies[1], jax.random.key(step), obs, params)
        assert mask[action]
        assert scores[action] == scores[mask].max()
        assert action == policies[1].act(jax.random.key(9), (), env, obs, state, params)
        obs, state, *_ = env.step(jax.random.key(step), state, action, params)


def test_a_run_is_evaluated_again_to_the_same_table(run, capsys):
    before = json.loads((run / "metrics.json").read_text())
    (run / "metrics.json").unlink()
    evaluate_run(run)
    assert json.loads((run / "metrics.json").read_text()) == before
    assert "| dqn (2 seeds) |" in capsys.readouterr().out


def test_a_run_is_not_evaluated_on_another_dataset(run, tmp_path):
    other = write_pack(random_dataset(2, num_users=4, num_items=160, window=150), tmp_path / "b")
    with pytest.raises(InputError, match="another build"):
        evaluate_run(run, str(other))


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


def test_a_damaged_policy_is_one_line(run):
    path = run / "policy.safetensors"
    weights = load_file(path)
    save_file({n: w for n, w in weights.items() if not n.endswith("item_bias")}, path)
    assert "policy.safetensors" in refusal(run)
    path.write_bytes(b"rubbish")
    assert "policy.safetensors" in refusal(run)
    path.unlink()
    assert "policy.safetensors" in refusal(run)


def test_what_is_no_run_is_one_line(tmp_path, finished):
    assert "not a run folder" in refusal(tmp_path / "nowhere")
    with pytest.raises(InputError, match="seeds 0 to 1, not 2"):
        agents.load(finished, seed=2)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["train", "sarsa"], "unknown command 'sarsa'; known: dqn"),
        (["evaluate", "no-such-run"], "no-such-run: not a run folder"),
    ],
)
def test_mistakes_on_the_command_line_are_one_line(words, message, tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "agents", *words], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    assert done.stderr.count("\n") == 1


def test_other_mistakes_leave_nothing_behind(pack, tmp_path):
    for changes in (
        {"seeds": 0},
        {"settings": DQNConfig(replay_steps=64)},
        {"dataset": str(tmp_path / "none")},
    ):
        with pytest.raises(InputError):
            run_training(pack, tmp_path / "out", **changes)
    assert list(tmp_path.iterdir()) == []
