"""`python -m benchmarks rivals`: which interpreter is asked, and that one that fails is a line."""

import json
import sys

import gymnasium
import pytest

from benchmarks.rivals import command, foreign, own_forms
from jaxsim import InputError


def test_a_later_interpreter_wins_and_one_without_a_name_is_for_all(tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    one.touch()
    two.touch()
    assert set(command.interpreters_of(()).values()) == {sys.executable}
    chosen = command.interpreters_of((str(one), f"recsim={two}"))
    assert chosen == {**dict.fromkeys(foreign.SIMULATORS, str(one)), "recsim": str(two)}
    with pytest.raises(InputError, match=r"--python sims=.*: unknown; choose from recsim"):
        command.interpreters_of((f"sims={one}",))
    with pytest.raises(InputError, match="does not exist"):
        command.interpreters_of((str(tmp_path / "none"),))


def test_speeds_count_the_steps_that_were_made():
    ticks = iter(range(1000))
    clock = pytest.MonkeyPatch()
    with clock.context() as patch:
        patch.setattr(foreign.time, "perf_counter", lambda: float(next(ticks)))
        # The clock ticks at each look: a run of 3 looks makes two calls of 10 steps in 4 ticks.
        measured = foreign.timed(lambda: 10, seconds=3.0, repeats=3)
    assert measured["steps_per_second"] == measured["low"] == measured["high"] == 20 / 4
    assert measured["first_seconds"] == 1.0


def test_one_that_does_not_import_is_named_with_the_error(monkeypatch):
    row = command.foreign_row("sardine", sys.executable, 0.1, 1)
    assert row["error"] == "ModuleNotFoundError: No module named 'sardine'"
    assert row["steps_per_second"] is None

    def broken():
        raise RuntimeError("no luck\nsecond line")

    row = command.measured_row("jaxsim", broken, 0.1, 1)
    assert row["error"] == "RuntimeError: no luck"


def test_another_process_is_read_from_its_last_line(tmp_path, monkeypatch):
    script = tmp_path / "script.py"
    script.write_text(
        "import json, sys; print('noise'); print(json.dumps({'items': 3, 'step': sys.argv[1]}))"
    )
    monkeypatch.setattr(foreign, "__file__", str(script))
    row = command.foreign_row("recsim", sys.executable, 0.1, 1)
    assert (row["error"], row["items"], row["step"]) == (None, 3, "recsim")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["jaxsim", "gymnasium-vector"])
def test_our_forms_make_as_many_steps_as_they_say(name, dataset, monkeypatch):
    made = own_forms.make
    monkeypatch.setattr(
        own_forms, "make", lambda d: made(d, history_length=8, session_capacity=12, users="all")
    )
    row = command.own_row(name, dataset, "", sessions=3, seconds=0.01, repeats=1)
    assert row["error"] is None
    assert row["sessions"] == 3
    assert row["items"] == dataset.num_items
    assert row["steps_per_second"] > 0


@pytest.mark.slow
def test_gymnasium_forms_have_as_many_sessions_as_are_asked(dataset, monkeypatch):
    made = own_forms.make
    monkeypatch.setattr(
        own_forms, "make", lambda d: made(d, history_length=8, session_capacity=12, users="all")
    )
    about, steps = own_forms.sync_vector_env(dataset, "", 2)
    assert about["version"] == gymnasium.__version__
    assert steps() == 2 * own_forms.STEPS


def result_of(*rows):
    return {"device": "cpu", "jax": "0", "dataset": "d", "rows": list(rows)}


def test_the_fastest_comes_first_and_the_missing_are_named():
    slow, fast = (
        command.row_of(
            name,
            {"setting": "s", "steps_per_second": speed, "sessions": 1, "items": 2, "step": "one"},
        )
        for name, speed in (("slow", 1.0), ("fast", 2000.0))
    )
    absent = command.row_of("gone", {"error": "no such package"})
    text = command.format_rivals(result_of(slow, absent, fast))
    assert text.index("fast") < text.index("slow")
    assert "2,000" in text
    assert "drawn" in text
    assert text.endswith("not measured: gone: no such package")
    assert "- gone: no such package" in command.format_rivals(
        result_of(slow, absent), markdown=True
    )


def test_unusable_options_are_one_line(tmp_path):
    with pytest.raises(InputError, match="--only cars: unknown; choose from jaxsim"):
        command.run_rivals(only=("cars",))
    with pytest.raises(InputError, match="--sessions 0: give a whole number from 1"):
        command.run_rivals(sessions=0)
    with pytest.raises(InputError, match="--seconds 0: give seconds above 0"):
        command.run_rivals(seconds=0)


def test_what_cannot_be_stepped_is_said_without_a_measurement(tmp_path, monkeypatch, dataset):
    monkeypatch.setattr(command, "load_dataset", lambda name: dataset)
    out = tmp_path / "rivals.json"
    command.run_rivals(only=("suber", "kuaisim"), json=out)
    rows = json.loads(out.read_text())["rows"]
    assert [row["simulator"] for row in rows] == ["kuaisim", "suber"]
    assert all(row["error"] for row in rows)
