"""The command: which runs make a page, what is refused in one line, and that a page is whole or not there."""

import json
import shutil
from pathlib import Path

import jax
import pytest
from jax.experimental.compilation_cache import compilation_cache

from agents.__main__ import run as run_command_line
from agents.algorithms.dqn import DQNConfig
from agents.report import command
from agents.report.command import ReportOptions, report_runs
from agents.report.reasons import VOTES
from agents.report.runs import _labels, read_runs
from agents.runs.experiment import Experiment, RunOptions, train_run
from jaxsim import InputError
from tests.agents.report.test_page import data_of
from tests.factory import random_dataset, write_pack
from tests.visit_logs import with_visits

SETTINGS = DQNConfig(
    total_steps=2 * 2 * 40, num_envs=2, rollout_length=2, width=8, batch_size=8, replay_steps=128,
    gradient_steps=1,
)  # fmt: skip
WINDOW = {"history_length": 4, "session_capacity": 10}


@pytest.fixture(scope="module", autouse=True)
def compiled_once(tmp_path_factory):
    """The same programs are used several times here."""
    jax.config.update("jax_compilation_cache_dir", str(tmp_path_factory.mktemp("compiled")))
    compilation_cache.reset_cache()
    yield
    jax.config.update("jax_compilation_cache_dir", None)
    compilation_cache.reset_cache()


@pytest.fixture(scope="module")
def pack(tmp_path_factory) -> Path:
    data = with_visits(random_dataset(1, num_users=12, window=14, width=4, num_blocks=1))
    return write_pack(data, tmp_path_factory.mktemp("pack") / "tiny")


def train(pack: Path, out: Path, **changes) -> Path:
    experiment = {"dataset": str(pack), "seeds": 2, "evaluation_seed": 7, **WINDOW, **changes}
    train_run("dqn", SETTINGS, Experiment(**experiment), RunOptions(out=out))
    return out


@pytest.fixture(scope="module")
def finished(pack, tmp_path_factory) -> Path:
    return train(pack, tmp_path_factory.mktemp("runs") / "finished")


@pytest.fixture
def run(finished, tmp_path) -> Path:
    """A copy to spoil."""
    return Path(shutil.copytree(finished, tmp_path / "copy"))


def refusal(folders, out: Path, **options) -> str:
    """The line that says why there is no page."""
    before = sorted(out.parent.iterdir()) if out.parent.is_dir() else []
    with pytest.raises(InputError) as caught:
        report_runs(folders, ReportOptions(out=out, **options))
    assert before == (sorted(out.parent.iterdir()) if out.parent.is_dir() else [])
    assert "\n" not in str(caught.value)
    return str(caught.value)


# ---- what needs no run -------------------------------------------------------------------------------------


def test_labels_are_as_short_as_they_can_be():
    a, b, c = Path("x/a"), Path("x/b"), Path("y/a")
    assert _labels([a], ["dqn"]) == ["dqn"]
    assert _labels([a, b], ["dqn", "ppo"]) == ["dqn", "ppo"]
    assert _labels([a, b], ["dqn", "dqn"]) == ["a", "b"]
    assert _labels([a, b, c], ["dqn"] * 3) == ["x/a", "x/b", "y/a"]


def test_what_is_no_run_is_refused(tmp_path):
    out = tmp_path / "page.html"
    assert "give the folder" in refusal([], out)
    assert "is not a run folder" in refusal([tmp_path / "missing"], out)
    (tmp_path / "b.partial").mkdir()
    assert "--resume" in refusal([tmp_path / "b"], out)
    (tmp_path / "empty").mkdir()
    assert "not a run folder (it has no config.json)" in refusal([tmp_path / "empty"], out)
    assert "more than once" in refusal([tmp_path, tmp_path / "empty" / ".."], out)


def test_outputs_that_cannot_be_written_are_refused(tmp_path):
    (tmp_path / "folder.html").mkdir()
    (tmp_path / "file").write_text("")
    assert "is a folder" in refusal([tmp_path], tmp_path / "folder.html")
    assert "end the name in .html" in refusal([tmp_path], tmp_path / "page.pdf")
    assert "not a writable folder" in refusal([tmp_path], tmp_path / "file" / "page.html")
    assert "--sessions" in refusal([tmp_path], tmp_path / "page.html", sessions=-1)


# ---- with runs ---------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_page_of_a_run_is_the_same_every_time(finished, tmp_path, capsys):
    pages = []
    for name in ("a.html", "b.html"):
        run_command_line(
            ["report", str(finished), "--out", str(tmp_path / name), "--sessions", "5"]
        )
        pages.append((tmp_path / name).read_bytes())
    assert pages[0] == pages[1]
    assert "1 run, 5 sessions" in capsys.readouterr().out
    data = data_of(pages[0].decode())
    (explored,) = data["runs"]
    assert explored["kind"] == VOTES
    assert [s["group"] for s in explored["sessions"]] == ["train"] * 3 + ["held_out"] * 2
    assert not any(
        s["differs"] for s in explored["sessions"]
    )  # they earn what the evaluation wrote down
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.html", "b.html"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        {"semantics": "calibrated", "taste": "latent"},
        {"semantics": "soft", "visits": True, "horizon_days": 9.0},
        {"semantics": "calibrated", "slate_size": 2},
    ],
    ids=["latent", "visits", "slates"],
)
def test_pages_of_other_simulators(pack, tmp_path, options):
    run = train(pack, tmp_path / "run", **options)
    report_runs([run], ReportOptions(out=tmp_path / "page.html", sessions=4))
    (explored,) = data_of((tmp_path / "page.html").read_text("utf-8"))["runs"]
    assert explored["kind"] == ("slate" if "slate_size" in options else "taste")
    assert len(explored["sessions"]) == 4
    assert not any(s["differs"] for s in explored["sessions"])
    for session in explored["sessions"]:
        assert len(session["steps"]) > 0
        assert all(len(step.get("slate", [0, 0])) == 2 for step in session["steps"])


@pytest.mark.slow
def test_two_runs_share_a_page_if_they_met_the_same_sessions(finished, pack, tmp_path):
    other = train(pack, tmp_path / "other", seed=5)
    report_runs([finished, other], ReportOptions(out=tmp_path / "page.html", sessions=2))
    data = data_of((tmp_path / "page.html").read_text("utf-8"))
    assert [run["label"] for run in data["runs"]] == ["finished", "other"]
    out = tmp_path / "none.html"
    elsewhere = train(pack, tmp_path / "elsewhere", semantics="released")
    line = refusal([finished, elsewhere], out)
    assert "cannot be on one page" in line
    assert "semantics (paper and released)" in line
    data = random_dataset(2, num_users=12, window=14, width=4, num_blocks=1)
    unlike = train(write_pack(data, tmp_path / "pack"), tmp_path / "unlike")
    assert "different builds of a dataset" in refusal([finished, unlike], out)


@pytest.mark.slow
def test_damaged_runs_are_refused(run, tmp_path):
    out = tmp_path / "page.html"
    good = {
        name: (run / name).read_text("utf-8")
        for name in ("config.json", "metrics.json", "metrics.csv")
    }

    def spoiled(name: str, text: str) -> str:
        (run / name).write_text(text, "utf-8")
        line = refusal([run], out)
        (run / name).write_text(good[name], "utf-8")
        return line

    config = json.loads(good["config.json"])
    assert "run_version 2" in spoiled("config.json", json.dumps({**config, "run_version": 2}))
    for text in ("{", "[]", '{"rows": [{}], "warnings": []}', '{"rows": 3, "warnings": []}'):
        assert "agents evaluate" in spoiled("metrics.json", text)
    table = json.loads(good["metrics.json"])
    for change in ({"surprise": 1.0}, {"a_rwd": "many"}, {"like_rate": float("inf")}):
        rows = [{**table["rows"][0], **change}, *table["rows"][1:]]
        assert "agents evaluate" in spoiled("metrics.json", json.dumps({**table, "rows": rows}))
    for text in (
        "",
        "seed,steps\n1,2\n",
        "seed,steps,like_rate\n1,2,inf\n",
        "seed,steps,like_rate\n",
        "seed,steps,like_rate\nx,1,2\n",
    ):
        assert "metrics.csv" in spoiled("metrics.csv", text)
    (run / "metrics.json").unlink()
    assert "not finished" in refusal([run], out)


def sessions_of(page):
    """The steps of each sample session of a page."""
    data = data_of(page.read_text("utf-8"))
    return [session["steps"] for of_run in data["runs"] for session in of_run["sessions"]]


@pytest.mark.slow
def test_a_page_that_would_be_too_large_is_not_written(run, tmp_path, monkeypatch):
    out = tmp_path / "page.html"
    monkeypatch.setattr(command, "MOST_STEPS", 3)
    assert "give --sessions" in refusal([run], out, sessions=4)
    monkeypatch.undo()
    report_runs([run], ReportOptions(out=out))
    all_of_them = sessions_of(out)
    monkeypatch.setattr(command, "MOST_STEPS", sum(map(len, all_of_them)) - 1)
    report_runs([run], ReportOptions(out=out))
    fewer = sessions_of(out)  # without the option, the page has what it has room for
    assert 0 < len(fewer) < len(all_of_them)
    out.unlink()
    monkeypatch.undo()
    monkeypatch.setattr(command, "MOST_BYTES", 10_000)
    assert "give fewer --sessions" in refusal([run], out, sessions=1)


@pytest.mark.slow
def test_what_differs_is_said(run, tmp_path, capsys):
    config = json.loads((run / "config.json").read_text("utf-8"))
    config["machine"]["jax"] = "0.0.1"
    (run / "config.json").write_text(json.dumps(config), "utf-8")
    (read,) = read_runs([run])
    read.returns.returns["greedy", "train"][0] += 1.0  # is not saved
    report_runs([run], ReportOptions(out=tmp_path / "page.html", sessions=2))
    assert "trained with jax 0.0.1 (here " in capsys.readouterr().out
    assert "jax 0.0.1 (here " in (tmp_path / "page.html").read_text("utf-8")
