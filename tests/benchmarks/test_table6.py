"""Table 6: its rows, what stays empty and why, and the recorded pairs."""

import hashlib
import json
from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd
import pytest

from benchmarks.fidelity.events import events_of
from benchmarks.rivals.kuaisim_training import KuaiSimTraining
from benchmarks.rivals.suber import RECORDED, Recording
from benchmarks.table6 import command
from benchmarks.table6.command import Suber, read_validity, run_table6
from benchmarks.table6.measurement import accuracy_on_pairs, ask_and_time
from benchmarks.table6.report import NOT_COMPARABLE, format_report, format_rows
from benchmarks.table6.simulators import (
    NAMES,
    PAPER,
    Pairs,
    recorded_pairs,
    recorded_scorer,
    why_not_recorded,
)
from jaxsim import InputError
from prep.annotation.online import RecordedScores
from tests.factory import random_dataset, write_pack
from tests.paths import DATA

KEYS = {"simulator", "a_rwd", "t_rwd", "auc", "seconds_one", "responses_per_second"}
NOTHING = dict.fromkeys(("value", "low", "high"))


def row_of(name, **changes):
    estimate = {"value": 0.75, "low": 0.7, "high": 0.8}
    numbers = {
        "a_rwd": 30.0,
        "a_rwd_low": 29.0,
        "a_rwd_high": 31.0,
        "t_rwd": 360.0,
        "random_a_rwd": 20.0,
    }
    fields = {"auc": estimate, "ece": estimate, "auc_pairs": estimate, "auc_clean_pairs": estimate}
    speed = {"seconds_one": 0.00123, "responses_per_second": 12345.6}
    row = {
        "simulator": name,
        "paper": PAPER.get(name),
        "train_steps": 1000,
        **numbers,
        **fields,
        **speed,
    }
    return row | changes


def result_of(*rows):
    return {
        "dataset": "d", "agent": "dqn", "seeds": 2, "labels": 99, "device": "cpu", "jax": "1", "pairs": 5,
        "clean_pairs": 3, "rows": rows, "notes": ["something is missing"],
    }  # fmt: skip


def test_the_papers_figures_are_those_of_its_table():
    assert PAPER["kuaisim"] == {"a_rwd": 25.35, "t_rwd": 316.46, "auc": 0.658, "seconds_one": 0.53}
    assert [PAPER[name]["a_rwd"] for name in ("paper", "kuaisim", "suber")] == [27.56, 25.35, 23.74]
    assert all(11.9 < x["t_rwd"] / x["a_rwd"] < 12.6 for x in PAPER.values())


def test_the_report_shows_a_dash_for_what_was_not_measured_and_tau_where_it_is_given():
    nothing = {
        "a_rwd": None,
        "a_rwd_low": None,
        "a_rwd_high": None,
        "t_rwd": None,
        "random_a_rwd": None,
    }
    suber = row_of(
        "suber", **nothing, auc=None, ece=None, seconds_one=None, responses_per_second=None
    )
    text = format_report(result_of(row_of("paper"), row_of("soft"), suber))
    lines = {
        line.split()[0]: line for line in text.splitlines() if line and line.split()[0] in NAMES
    }
    assert "30.00 (29.00 to 31.00)" in lines["paper"]
    assert "27.56 / 330.98 / AUC 0.674 / 0.76 s" in lines["paper"]
    assert lines["soft"].rstrip().endswith("12,346  -")
    assert lines["suber"].count(" - ") >= 6
    assert "0.750 (0.700 to 0.800)" in lines["suber"]  # of the pairs
    assert "note: something is missing" in text
    assert text.endswith("\n".join(NOT_COMPARABLE))
    assert "tau" not in text
    with_tau = result_of(row_of("paper", tau=0.5, tau_low=0.1, tau_high=0.8), row_of("kuaisim"))
    assert "0.500 (0.100 to 0.800)" in format_rows(with_tau)


def test_validity_is_read_by_the_name_of_the_predictor(tmp_path):
    path = tmp_path / "v.json"
    rows = [{"simulator": "taste", "tau": 0.4, "tau_low": 0.2}]
    path.write_text(json.dumps({"dataset": "d", "rows": rows}))
    assert read_validity(path, "d") == {"taste": {"tau": 0.4, "tau_low": 0.2, "tau_high": None}}
    assert read_validity(None, "d") == {}
    with pytest.raises(InputError, match="is of the dataset d; give a result of e"):
        read_validity(path, "e")
    for content in ("{}", "[1]", "no JSON", '{"rows": [{"tau": 1}]}'):
        path.write_text(content)
        with pytest.raises(InputError, match="has no rows with a simulator and its tau"):
            read_validity(path, "d")
    with pytest.raises(InputError, match="cannot be read"):
        read_validity(tmp_path / "missing.json", "d")


def test_recorded_pairs_are_test_labels_in_the_order_of_the_file(tmp_path):
    dataset = random_dataset(1)
    users, items = dataset.interaction_user(), dataset.arrays["interaction_item"]
    split = dataset.arrays["interaction_split"]
    test, train = np.flatnonzero(split == 2)[[3, 0, 2]], np.flatnonzero(split == 0)[0]
    rows = [(users[r], items[r], 10 * n, n % 2) for n, r in enumerate([*test, train])]
    path = tmp_path / "r.csv"
    columns = ["user_id", "item_id", "score_0_99", "clean"]
    pd.DataFrame([*rows, ("nobody", 0, 1, 1)], columns=columns).to_csv(path, index=False)
    pairs = recorded_pairs(dataset, RecordedScores(path), context=8)
    assert pairs.left_out == 2
    np.testing.assert_array_equal(pairs.events.user, users[test])
    np.testing.assert_array_equal(pairs.events.item, items[test])
    np.testing.assert_array_equal(pairs.events.label, dataset.arrays["interaction_label"][test])
    np.testing.assert_array_equal(pairs.clean, [False, True, False])


def test_auc_on_pairs_is_of_all_and_of_the_clean_ones():
    events = events_of(random_dataset(1), "test", 4)
    events = replace(events, label=(np.arange(len(events)) % 2).astype(np.int8))
    clean = np.arange(len(events)) < 6
    scores = np.where(clean, events.label, 1 - events.label) * 0.5 + 0.25
    result = accuracy_on_pairs(Pairs(events, clean), scores, 20, 0)
    assert result["auc_clean_pairs"]["value"] == 1.0
    assert result["auc_pairs"]["value"] < 0.5


def test_a_model_is_timed_only_where_it_was_really_asked():
    class Scorer:
        calls = 0

        def probabilities(self, user, items, likes, candidate):
            self.calls += len(user) if self.fresh else 0
            return np.full(len(user), 0.5, np.float32)

    events = events_of(random_dataset(1), "test", 4)
    for fresh in (True, False):
        scorer = Scorer()
        scorer.fresh = fresh
        answers, timing = ask_and_time(scorer, events)
        assert len(answers) == len(events)
        assert all((value is not None) == fresh for value in timing.values())


@pytest.mark.skipif(not DATA.is_dir(), reason="the original files are not here")
def test_the_recorded_answers_are_the_original_ones():
    original = DATA / "ml-100k" / "online_llm_scores.csv"
    assert RECORDED["ml-100k"].path.read_bytes() == original.read_bytes()
    for name, code in RECORDED["anime"].raw.items():
        assert hashlib.sha256((DATA / "anime" / name).read_bytes()).hexdigest() == code


@pytest.mark.parametrize(("name", "counts"), [("ml-100k", (374, 227)), ("anime", (300, 300))])
def test_the_recorded_answers_are_as_their_data_card_says(name, counts):
    path = RECORDED[name].path
    table = RecordedScores(path).table
    assert (len(table), table["clean"].sum()) == counts
    assert not table.duplicated(["user_id", "item_id"]).any()
    card = (path.parent / "DATA_CARD.md").read_text("utf-8")
    assert f"| {len(table)} pairs of {table['user_id'].nunique()} users" in card
    assert f"| {table['clean'].sum()} |" in card
    for stated in (*RECORDED[name].raw.values(), *RECORDED[name].settings):
        assert f"`{stated}`" in card


def test_a_recording_of_another_copy_or_another_build_is_not_used(tmp_path, monkeypatch):
    dataset = random_dataset(1)
    path = tmp_path / "r.csv"
    path.write_text("user_id,item_id,score_0_99\n0,0,5\n")
    recording = Recording(path, {"ratings.csv": "ab"}, {"like_threshold": 8.0})
    fitting = {"raw": {"ratings.csv": "ab"}, "settings": {"like_threshold": 8.0}}
    for changes, reason in (
        (fitting, None),
        ({**fitting, "raw": {"ratings.csv": "cd"}}, "another ratings.csv"),
        ({**fitting, "settings": {"like_threshold": 6.0}}, "like_threshold 6.0 in place of 8.0"),
    ):
        copy = replace(dataset, manifest={**dataset.manifest, **changes})
        assert recorded_scorer(copy) is None
        assert why_not_recorded(copy) == f"no recorded answers for {copy.name}"
        with monkeypatch.context() as patch:
            patch.setitem(RECORDED, copy.name, recording)
            assert (recorded_scorer(copy) is None) == (reason is not None)
            if reason is not None:
                assert why_not_recorded(copy).endswith(f"do not fit this build ({reason})")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"simulators": ("paper", "virtual-taobao")},
            "--simulators virtual-taobao: unknown; choose from paper",
        ),
        ({"seeds": 0}, "--seeds is 0"),
        ({"total_steps": 0}, "total_steps is 0"),
        ({"sessions_per_user": 0}, "--sessions-per-user is 0"),
        ({"kuaisim": KuaiSimTraining(dropout=1.0)}, "--kuaisim.dropout is 1.0"),
        ({"suber": Suber(pairs=0)}, "--suber.pairs is 0"),
        ({"dataset": "nothing-such"}, "nothing-such"),
    ],
)
def test_senseless_arguments_are_refused_before_any_work(arguments, message, monkeypatch):
    monkeypatch.setattr(command, "measure", lambda *_: pytest.fail("work was begun"))
    with pytest.raises(InputError) as caught:
        run_table6(**arguments)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_every_simulator_has_a_row(tmp_path, monkeypatch, capsys):
    dataset = random_dataset(1, num_users=40)
    users, items = dataset.interaction_user(), dataset.arrays["interaction_item"]
    rows = np.flatnonzero(dataset.arrays["interaction_split"] == 2)[:20]
    scores = pd.DataFrame(
        {"user_id": users[rows], "item_id": items[rows], "score_0_99": rows % 100}
    )
    scores.assign(clean=rows % 2).to_csv(tmp_path / "r.csv", index=False)
    monkeypatch.setitem(RECORDED, "invented", Recording(tmp_path / "r.csv"))
    short = partial(command.measure, history_length=8, session_capacity=12)
    monkeypatch.setattr(command, "measure", short)
    (tmp_path / "v.json").write_text('{"rows": [{"simulator": "taste", "tau": 0.25}]}')
    run_table6(
        str(write_pack(dataset, tmp_path / "pack")),
        seeds=2,
        total_steps=1000,
        sessions_per_user=1,
        resamples=20,
        batch=8,
        repeats=1,
        kuaisim=KuaiSimTraining(window=8, epochs=1),
        validity=tmp_path / "v.json",
        json=tmp_path / "t.json",
    )
    result = json.loads((tmp_path / "t.json").read_text())
    by_name = {row["simulator"]: row for row in result["rows"]}
    assert tuple(by_name) == NAMES
    assert all(row.keys() >= KEYS for row in result["rows"])
    for name, row in by_name.items():
        assert row["auc_pairs"]["value"] is not None
        if name == "suber":
            assert all(row[key] is None for key in KEYS - {"simulator"})
            continue
        assert 0 < row["random_a_rwd"] < 13
        assert row["t_rwd"] == pytest.approx(12 * row["a_rwd"])
        assert row["seconds_one"] > 0 < row["responses_per_second"]
    assert by_name["soft"]["auc"] == by_name["calibrated"]["auc"] != by_name["paper"]["auc"]
    assert [by_name[name].get("tau") for name in ("soft", "paper")] == [0.25, None]
    assert len(by_name["kuaisim"]["model"]["validation_auc"]) == 1
    calls = 2 * by_name["paper"]["train_steps"] + 3 * by_name["paper"]["session_steps"]
    shown = capsys.readouterr().out
    assert f"its rewards would take {calls:,} calls" in shown
    assert "suber: its tau would take the answers about all test items" in shown
