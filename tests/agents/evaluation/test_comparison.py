"""Two runs compared: hand-worked intervals, shares and verdicts, and refusals."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from agents.commands import compare_runs
from agents.evaluation.comparison import Difference, compare, difference, format_comparison
from agents.evaluation.evaluate import Evaluation
from agents.evaluation.intervals import welch_interval
from agents.evaluation.returns import load_returns
from jaxsim import InputError

ENVIRONMENT = {"repeats": "mask", "history_length": 50, "sasrec": {"width": 32}}
BASE = {"dataset_digest": "d" * 64, "evaluation_seed": 7, "environment": ENVIRONMENT}


def write_run(
    folder: Path,
    returns: dict[str, list[list[float]]],
    policy: str = "ppo",
    durations: tuple[int, ...] = (9, 9, 9, 9),
    **settings,
) -> Path:
    """A run folder with the returns of "mode/users", and of a baseline beside them."""
    learned = {f"{policy}/{key}": np.array(value, np.float32) for key, value in returns.items()}
    random = {
        f"random/baseline/{users}": np.zeros((1, 4), np.float32) for users in ("train", "held_out")
    }
    sessions = {
        f"sessions/{name}/{users}": np.array(value, np.int32)
        for users in ("train", "held_out")
        for name, value in (("users", USERS), ("durations", durations))
    }
    folder.mkdir()
    Evaluation([], [], learned | random, sessions).save_returns(
        folder / "returns.safetensors", **{**BASE, **settings}
    )
    return folder


# Seed means 3 and 5, variance 2; and 1, 1.5 and 2, variance 0.25.
MANY_A = [[1, 2, 4, 5], [5, 5, 5, 5]]
MANY_B = [[1, 1, 1, 1], [0, 1, 2, 3], [4, 2, 1, 1]]
SINGLE = [[2, 2, 2, 2]]
USERS = (0, 0, 1, 1)


def difference_of(a, b, users: str = "train", mode: str = "greedy") -> Difference:
    return difference(users, mode, np.array(a), np.array(b), np.array(USERS))


@pytest.fixture
def runs(tmp_path) -> tuple[Path, Path]:
    a = write_run(
        tmp_path / "a",
        {"greedy/train": MANY_A, "sampled/train": MANY_A, "greedy/held_out": MANY_A},
    )
    b = write_run(
        tmp_path / "b",
        {"greedy/train": MANY_B, "sampled/train": [*MANY_A, [4] * 4], "greedy/held_out": MANY_B},
        policy="dqn",
    )
    return a, b


def refusal(function, *arguments) -> str:
    with pytest.raises(InputError) as caught:
        function(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# ---- the numbers -------------------------------------------------------------------------------------------


def test_several_seeds_get_welchs_interval():
    row = difference_of(MANY_A, MANY_B)
    assert (row.interval_over, row.sessions) == ("seeds", 4)
    assert (row.a_rwd, row.b_rwd, row.difference) == (4.0, 1.5, 2.5)
    expected = welch_interval(np.array([3.0, 5.0]), np.array([1, 1.5, 2]))
    np.testing.assert_allclose((row.low, row.high), expected, rtol=1e-12)


def test_a_single_seed_gets_the_paired_interval_over_users():
    """Seed means of A by session 3, 3.5, 4.5, 5, less 2; by user 1.25 and 2.75.

    Mean 2, deviation sqrt(1.125), two users, and t(0.975, 1) = 12.706205.
    """
    half = 12.706205 * math.sqrt(1.125) / math.sqrt(2)
    row = difference_of(MANY_A, SINGLE)
    assert (row.interval_over, row.sessions) == ("users", 4)
    np.testing.assert_allclose((row.low, row.high), (2 - half, 2 + half), rtol=1e-6)
    turned = difference_of(SINGLE, MANY_A)
    np.testing.assert_allclose((turned.low, turned.high), (-2 - half, -2 + half), rtol=1e-6)


def test_shares_of_sessions_are_over_all_pairs_of_seeds():
    """A's first seed against 2: behind, equal, ahead, ahead; its second always ahead."""
    row = difference_of(MANY_A, SINGLE)
    assert (row.a_wins, row.ties, row.b_wins) == (6 / 8, 1 / 8, 1 / 8)


@pytest.mark.parametrize(
    ("a", "b", "verdict"),
    [
        # The users' means less 2 are 3.5 and 3.6: mean 3.55, error 0.05, and t(0.975, 1) = 12.706205. With 3 and 4
        # the error is 0.5.
        ([[5, 6, 5, 6.2]], SINGLE, "A earns more than B, by 2.91 to 4.19 in A.Rwd."),
        (SINGLE, [[5, 6, 5, 6.2]], "B earns more than A, by 2.91 to 4.19 in A.Rwd."),
        (
            [[5, 5, 6, 6]],
            SINGLE,
            "no difference is shown, because the interval includes zero.",
        ),
        (SINGLE, SINGLE, "both runs earn the same."),
    ],
    ids=["a", "b", "neither", "equal"],
)
def test_the_verdict_says_what_the_interval_shows(a, b, verdict):
    row = difference_of(a, b, users="held_out", mode="sampled")
    assert row.verdict == f"sampled, held_out users: {verdict}"


def test_one_user_and_a_single_seed_show_no_difference():
    row = difference("train", "greedy", np.array([[5.0, 6.0]]), np.zeros((1, 2)), np.array([3, 3]))
    assert np.isnan([row.low, row.high]).all()
    assert "no difference is shown, because an interval needs at least two users" in row.verdict


# ---- run folders -------------------------------------------------------------------------------------------


def test_modes_and_users_that_both_runs_have_are_compared(runs):
    a, b = map(load_returns, runs)
    assert (a.policy, a.seeds, b.policy, b.seeds) == ("ppo", 2, "dqn", 3)
    rows = compare(a, b)
    assert [(row.users, row.mode) for row in rows] == [
        ("train", "greedy"),
        ("train", "sampled"),
        ("held_out", "greedy"),
    ]
    assert rows[0].difference == 2.5
    assert (rows[1].difference, rows[1].b_rwd) == (0.0, 4.0)
    text = format_comparison(a, b, rows)
    assert f"A: {runs[0]} (ppo, 2 seeds)" in text
    assert "+2.50" in text
    assert "greedy, train users: no difference is shown" in text
    assert "Welch" in text


def test_a_comparison_with_a_single_seed_says_what_it_does_not_show(runs, tmp_path, capsys):
    single = write_run(tmp_path / "c", {"greedy/train": SINGLE})
    compare_runs(runs[0], single)
    out = capsys.readouterr().out
    assert f"B: {single} (ppo, 1 seed)" in out
    assert "over users, for these trained policies only" in out


def test_json_holds_the_comparison(runs, tmp_path, capsys):
    path = tmp_path / "out" / "comparison.json"
    compare_runs(*runs, json=path)
    content = json.loads(path.read_text())
    assert content["a"] == {"run": str(runs[0]), "policy": "ppo", "seeds": 2}
    assert content["evaluation_seed"] == "7"
    row = content["rows"][0]
    assert {row["users"], row["mode"], row["interval_over"]} == {"train", "greedy", "seeds"}
    assert row["low"] < row["difference"] == 2.5 < row["high"]
    assert row["verdict"] in capsys.readouterr().out
    assert "is a folder" in refusal(compare_runs, *runs, tmp_path)


# ---- refusals ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"dataset_digest": "e" * 64}, "different builds of a dataset"),
        ({"evaluation_seed": 8}, "evaluation seeds are 7 and 8"),
        ({"environment": {**ENVIRONMENT, "repeats": "allow"}}, "repeats (mask and allow)"),
        ({"environment": {"repeats": "mask"}}, "history_length (50 and None), sasrec"),
        ({"durations": (9, 9, 9, 8)}, "fixed sessions differ"),
        ({"returns": {"other/train": MANY_A}}, "no mode and group of users in common"),
    ],
    ids=["dataset", "seed", "repeats", "missing", "sessions", "mode"],
)
def test_runs_that_met_other_sessions_are_refused(runs, tmp_path, settings, message):
    other = write_run(tmp_path / "other", **{"returns": {"greedy/train": MANY_A}, **settings})
    line = refusal(compare_runs, runs[0], other)
    assert message in line
    assert f"{runs[0]} and {other} cannot be compared" in line


def test_a_run_from_before_an_option_is_compared_with_one_that_has_it_off(runs, tmp_path):
    newer = {**ENVIRONMENT, "slate_size": 1, "visits": False}
    other = write_run(tmp_path / "other", {"greedy/train": MANY_A}, environment=newer)
    compare_runs(runs[0], other)
    slates = {**ENVIRONMENT, "slate_size": 5}
    another = write_run(tmp_path / "another", {"greedy/train": MANY_A}, environment=slates)
    assert "slate_size (1 and 5)" in refusal(compare_runs, runs[0], another)


def test_missing_and_damaged_files_are_refused(runs, tmp_path):
    good, bad = runs
    assert "has no returns.safetensors" in refusal(compare_runs, good, tmp_path / "nothing")
    path = bad / "returns.safetensors"
    whole = path.read_bytes()
    for content in (b"", b"not safetensors at all", whole[:50], whole[:-8]):
        path.write_bytes(content)
        message = refusal(compare_runs, good, bad)
        assert f"{path}: cannot be read" in message
        assert f"python -m agents evaluate {bad}" in message


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (b'"returns_version":"1"', b'"returns_version":"2"', "version 2"),
        (b'"returns_version"', b'"returns_versiom"', "KeyError"),
        (b'{\\"history', b'[\\"history', "cannot be read"),
        (b"sessions/users/train", b"sessions/userz/train", "does not fit its sessions"),
        (b'"dqn/greedy', b'"ppo/greedy', "learned policies ['dqn', 'ppo']"),
    ],
    ids=["version", "no version", "environment", "no sessions", "two policies"],
)
def test_files_with_other_contents_are_refused(runs, old, new, message):
    path = runs[1] / "returns.safetensors"
    content = path.read_bytes()
    assert content.count(old) >= 1
    path.write_bytes(content.replace(old, new, 1))
    assert message in refusal(compare_runs, *runs)
