"""`python -m benchmarks all` and `report`: parts, processes that fail, and devices side by side."""

import json
import sys
import time
from pathlib import Path

import jax
import pytest

from benchmarks.suite import command, running
from benchmarks.suite.figures import figures_of
from benchmarks.suite.plan import Part, Plan, chosen_parts, parts_of
from benchmarks.suite.report import Run, column_names, format_runs, read_run
from jaxsim import InputError
from tests.paths import RESULTS, needs_results


def plan_of(**changes) -> Plan:
    values = {"dataset": "ml-100k", "quick": True, "accelerator": False, "scratch": Path("/s")}
    return Plan(**{**values, **changes})


@pytest.mark.parametrize("quick", [True, False])
@pytest.mark.parametrize("accelerator", [True, False])
def test_parts_have_names_of_their_own_and_come_after_what_they_need(quick, accelerator):
    parts = parts_of(plan_of(quick=quick, accelerator=accelerator))
    names = [part.name for part in parts]
    assert len(set(names)) == len(names)
    assert ("agreement" in names) == accelerator  # a CPU alone has nothing to agree with
    for number, part in enumerate(parts):
        assert not part.needs or part.needs in names[:number]
        assert part.limit > 0


def test_every_part_is_a_command_with_options_that_it_knows(capsys):
    from benchmarks.__main__ import COMMANDS
    from jaxsim.cli import main

    for quick in (True, False):
        for part in parts_of(plan_of(quick=quick, accelerator=True, python=("a=b",))):
            if part.module != "benchmarks":
                continue
            name, *options = part.arguments
            with pytest.raises(SystemExit) as stop:
                main(COMMANDS, "p", "d", [name, *options, "--json", "/", "--help"])
            assert stop.value.code == 0, capsys.readouterr().err


def test_a_name_stands_for_its_catalogues_and_brings_what_it_needs():
    parts = parts_of(plan_of())
    assert [p.name for p in chosen_parts(parts, ("evaluation-14684",), ())] == [
        "build-14684",
        "evaluation-14684",
    ]
    with_catalogues = [p.name for p in chosen_parts(parts, ("throughput",), ("throughput-65019",))]
    assert with_catalogues == ["throughput", "build-14684", "throughput-14684"]
    with pytest.raises(InputError, match="--only speed: no such part; choose from throughput"):
        chosen_parts(parts, ("speed",), ())
    with pytest.raises(InputError, match="--skip leaves no part"):
        chosen_parts(parts, ("seeds",), ("seeds",))


def fake(code: str, name: str = "p", kind: str = "", needs: str = "", limit: float = 30.0) -> Part:
    """A part that runs some Python: `python -m timeit -n 1 -r 1 CODE`."""
    return Part(name, "timeit", ("-n", "1", "-r", "1", code), limit, kind, needs)


def test_a_part_that_fails_is_one_line_and_the_others_go_on(tmp_path):
    parts = [
        fake("raise ValueError('broken here')", "first"),
        fake("pass", "second", needs="first"),
        fake("pass", "third"),
        fake("import os; os.kill(os.getpid(), 9)", "fourth"),
    ]
    seen = []
    records = running.run_parts(
        parts, plan_of(), tmp_path, 0.0, lambda done: seen.append(len(done))
    )
    assert [record["status"] for record in records] == [
        "failed: ValueError: broken here",
        "left out: first failed",
        "done",
        "failed: ended by SIGKILL, often because memory ran out",
    ]
    assert seen == [1, 2, 3, 4]
    assert records[2]["command"] == "python -m timeit -n 1 -r 1 pass"


def test_a_part_that_takes_too_long_is_ended_with_all_that_it_started(tmp_path):
    started = tmp_path / "child"
    child = f"import time; time.sleep(2); open({str(started)!r}, 'w')"
    code = f"import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', {child!r}]); time.sleep(60)"
    begin = time.perf_counter()
    status = running.run_logged([sys.executable, "-c", code], tmp_path / "log", 0.8)
    assert status == "ended after its limit of 1 s"
    assert time.perf_counter() - begin < 30
    time.sleep(1.5)
    assert not started.exists()


def test_a_part_ends_with_the_run_that_is_ended(tmp_path):
    code = "import os, signal, time; os.kill(os.getppid(), signal.SIGTERM); time.sleep(60)"
    begin = time.perf_counter()
    with pytest.raises(SystemExit) as stop, running.ended_with_its_parts():
        running.run_logged([sys.executable, "-c", code], tmp_path / "log", 50.0)
    assert stop.value.code == 143
    assert time.perf_counter() - begin < 30


def test_parts_without_time_are_left_out(tmp_path):
    parts = [fake("import time; time.sleep(30)", "slow"), fake("pass", "next")]
    records = running.run_parts(parts, plan_of(), tmp_path, 0.5, lambda done: None)
    assert [record["status"] for record in records] == [
        "ended after its limit of 0 s",
        "left out: no time was left",
    ]


def write_run(
    folder: Path, device: str, results: dict[str, tuple[str, str]], **failed: str
) -> Path:
    """A folder with kept results, as if they had been measured there: part to kind and file."""
    folder.mkdir()
    parts = []
    for part, (kind, file) in results.items():
        (folder / f"{part}.json").write_text((RESULTS / file).read_text())
        parts.append(
            {"part": part, "kind": kind, "command": f"c {part}", "status": "done", "seconds": 2.4}
        )
    for part, status in failed.items():
        parts.append(
            {"part": part, "kind": "seeds", "command": "c", "status": status, "seconds": 1.0}
        )
    about = {
        "device": device,
        "device_memory": 16e9,
        "python": "3.11",
        "jax": "0.10.2",
        "devices": 1,
    }
    (folder / "all.json").write_text(json.dumps({**about, "quick": False, "parts": parts}))
    return folder


@needs_results
def test_the_same_measurements_of_two_devices_stand_in_columns(tmp_path, capsys):
    cpu = write_run(
        tmp_path / "cpu",
        "cpu: 2 CPU cores",
        {
            "throughput": ("throughput", "throughput-ml-100k.json"),
            "training": ("training", "training-ml-100k.json"),
            "options": ("options", "options-ml-100k.json"),
        },
        seeds="failed: no memory",
    )
    gpu = write_run(
        tmp_path / "gpu",
        "gpu: H200",
        {
            "throughput": ("throughput", "throughput-ml-100k-h200.json"),
            "agreement": ("agreement", "agreement-ml-100k-h200.json"),
            "training": ("training", "training-ml-100k-h200.json"),
            "table2": ("table2", "table2-ml-100k.json"),
        },
    )
    out = tmp_path / "report.md"
    command.run_report((cpu, gpu), out=out)
    rows = {
        cells[1].strip(): [cell.strip() for cell in cells[2:-1]]
        for cells in (line.split("|") for line in out.read_text().splitlines() if "|" in line)
    }
    slow, fast = (
        json.loads((RESULTS / f"throughput-ml-100k{x}.json").read_text()) for x in ("", "-h200")
    )
    speeds = [
        f"{row['steps_per_second']:,.0f}"
        for result in (slow, fast)
        for row in result["rows"]
        if row["batch"] == 1024
    ]
    assert rows["steps/s, 1,024 sessions at once"] == speeds
    assert rows["steps/s, 524,288 sessions at once"][0] == "-"
    assert rows["python"] == ["3.11", "3.11"]
    assert rows["devices"] == ["1", "1"]
    assert rows["seeds, s"] == ["1, no result", "-"]
    assert rows["ppo: steps/s with learning"][0] != "-"
    assert "- seeds on cpu: 2 CPU cores: failed: no memory" in out.read_text()
    command.run_report((cpu,))
    assert "## throughput" in capsys.readouterr().out


def test_a_run_writes_its_record_and_report_after_each_part(tmp_path, monkeypatch, dataset, capsys):
    machine = {"device": "cpu", "accelerator": False, "device_memory": 1e9, "commit": "abc"}
    monkeypatch.setattr(command, "load_dataset", lambda name: dataset)
    monkeypatch.setattr(command, "describe_machine", lambda: machine)
    parts = [fake("pass", "one"), fake("1 / 0", "two")]
    monkeypatch.setattr(command, "parts_of", lambda plan: parts)
    out = tmp_path / "new" / "run"
    command.run_all(out, quick=True)
    report = (out / command.REPORT).read_text()
    assert "- two on cpu: failed: ZeroDivisionError: division by zero" in report
    assert "- one: `python -m timeit -n 1 -r 1 pass`" in report
    assert "1 of 2 parts have a result" in capsys.readouterr().out
    assert json.loads((out / "all.json").read_text())["dataset"] == dataset.name
    command.run_all(tmp_path / "second", only=("one",), beside=(out,))
    assert "cpu (2)" in (tmp_path / "second" / command.REPORT).read_text()


@pytest.mark.slow
def test_the_machine_is_described_in_another_process():
    machine = running.describe_machine()
    assert machine["device"].startswith(("cpu", "gpu"))
    assert machine["jax"] == jax.__version__
    assert machine["device_memory"] > 0


def test_two_runs_of_one_device_are_numbered():
    record = {"device": "cpu", "device_memory": 1e9, "parts": []}
    assert column_names([Run(record, {}), Run(record, {})]) == ["cpu (1)", "cpu (2)"]
    assert "| cpu (1) | cpu (2) |" in format_runs([Run(record, {}), Run(record, {})])


def test_unusable_input_is_one_line(tmp_path):
    with pytest.raises(InputError, match=r"has no all\.json; give a folder that"):
        read_run(tmp_path)
    with pytest.raises(InputError, match="give one or more folders"):
        command.run_report(())
    (tmp_path / "all.json").write_text("{")
    with pytest.raises(InputError, match="is not JSON"):
        read_run(tmp_path)
    (tmp_path / "all.json").write_text('{"parts": [{"part": "seeds", "kind": "seeds"}]}')
    (tmp_path / "seeds.json").write_text("{}")
    with pytest.raises(InputError, match="of another version"):
        read_run(tmp_path)
    with pytest.raises(InputError, match="is a file; give a folder"):
        command.run_all(tmp_path / "seeds.json")
    with pytest.raises(InputError, match="--total-seconds -1: give seconds"):
        command.run_all(tmp_path, total_seconds=-1)


def test_figures_say_what_could_not_be_measured():
    row = {"simulator": "x", "setting": None, "error": "no such package"}
    assert figures_of("rivals", {"rows": [row]}) == [("x", "no such package")]
