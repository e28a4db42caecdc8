"""The whole measurement: no test label decides a pick or a simulated value, and gaps of a dataset are noted."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from benchmarks.fidelity.study import Settings as FidelitySettings
from benchmarks.fidelity.study import Study
from benchmarks.fidelity.variants import with_labels
from benchmarks.validity import command
from benchmarks.validity.long_table import long_table
from benchmarks.validity.measure import validity
from benchmarks.validity.page import format_page
from benchmarks.validity.policies import policies
from benchmarks.validity.replay import Replay
from benchmarks.validity.report import format_report, format_summary
from benchmarks.validity.simulators import JUDGED, probabilities, simulators
from jaxsim import InputError
from jaxsim.dataset import TEST
from prep.synthetic import true_like_probability
from tests.benchmarks.fidelity.page.test_page import outline
from tests.benchmarks.validity.conftest import SMALL
from tests.factory import write_pack


@pytest.mark.parametrize("option", ["json", "csv", "html"])
def test_a_folder_is_refused_before_any_work(tmp_path, option):
    with pytest.raises(InputError, match=f"--{option} .*: is a folder; give a file"):
        command.run_validity("no such dataset", **{option: tmp_path})


def test_settings_are_checked_before_the_dataset_is_read():
    with pytest.raises(InputError, match="--draws is 0: give a whole number from 1"):
        command.run_validity("no such dataset", draws=0)


# ---- whole reports -----------------------------------------------------------------------------------------


def replayed(dataset):
    """Picks of every policy and probabilities of every simulator."""
    replay = Replay.of(dataset, SMALL)
    study = Study.of(dataset, FidelitySettings(resamples=2, context=SMALL.context), JUDGED)
    scores = probabilities(simulators(study), replay.candidates)
    return {p.name: p.picked for p in policies(study, replay, scores)}, scores


@pytest.mark.slow
def test_no_test_label_reaches_a_pick_or_a_simulated_value(people):
    labels = people.arrays["interaction_label"].copy()
    labels[people.arrays["interaction_split"] == TEST] ^= 1
    ours, theirs = replayed(people), replayed(with_labels(people, labels))
    assert set(ours[1]) == {p.name for p in JUDGED}
    for one, other in zip(ours, theirs, strict=True):
        assert one.keys() == other.keys()
        for name, values in one.items():
            np.testing.assert_array_equal(values, other[name], err_msg=name)


@pytest.mark.slow
def test_training_labels_do_reach_them(people):
    """So that the test above cannot pass because nothing is learned."""
    flipped = with_labels(people, people.arrays["interaction_label"] ^ 1)
    ours, theirs = replayed(people), replayed(flipped)
    assert (ours[0]["like_rate"] != theirs[0]["like_rate"]).any()
    names = ("taste", "paper", "soft", "kuaisim", "bias_residual", "bias_running", "counts")
    for name in (*names, "item_rate"):
        assert (ours[1][name] != theirs[1][name]).any(), name


@pytest.mark.slow
def test_the_result_has_the_keys_that_others_read(result):
    assert {"dataset", "policies", "rows", "split_half"} <= set(result)
    keys = {"simulator", "tau", "tau_low", "tau_high", "spearman", "value_error", "optimism"}
    assert all(set(row) == keys for row in result["rows"])
    assert {row["simulator"] for row in result["rows"]} == {p.name for p in JUDGED}
    assert len(result["policies"]) >= 18
    assert result["simulators"]["taste"]["tau"]["value"] == result["rows"][0]["tau"]
    json.dumps(result, allow_nan=False)
    own = result["simulators"]["taste"]
    greedy = next(row for row in result["policies"] if row["policy"] == own["own"])
    assert own["own_simulated"]["value"] == greedy["simulated"]["taste"]["value"]
    # Nothing is more probable to the model than the picks that are greedy on it.
    assert own["own_simulated"]["value"] == max(
        row["simulated"]["taste"]["value"] for row in result["policies"]
    )


@pytest.mark.slow
def test_every_form_shows_the_whole_result(result):
    text = format_report(result)
    assert "nan" not in text
    for row in result["policies"]:
        assert row["policy"] in text
    assert "Kendall's tau" in format_summary(result)
    table = long_table(result)
    assert len(table) > 1000
    assert not table.duplicated(["group", "model", "metric"]).any()
    page = format_page({**result, "dataset": "<script>alert(1)</script>"})
    parsed = outline(page)
    words = " ".join(parsed.texts)
    for part in ("What it means", "Who promises too much", "The recommenders", "How this was"):
        assert part in words
    assert parsed.tags.count("svg") == len(result["simulators"])
    assert parsed.tags == outline(format_page(result)).tags


@pytest.mark.slow
def test_the_seed_decides_everything(people):
    results = [validity(people, replace(SMALL, seed=seed)) for seed in (1, 1, 2)]
    for one in results:
        del one["seconds"], one["processor_seconds"]
    assert results[0] == results[1]
    assert results[0]["policies"] != results[2]["policies"]


@pytest.mark.slow
def test_the_command_writes_json_csv_and_html(people, tmp_path, capsys):
    folder = write_pack(people, tmp_path / "pack")
    files = {name: tmp_path / "out" / f"validity.{name}" for name in ("json", "csv", "html")}
    settings = {"picks": 2, "min_interactions": 5, "resamples": 5, "halves": 3, "draws": 1}
    command.run_validity(str(folder), context=3, seed=2, **settings, **files)
    result = json.loads(files["json"].read_text("utf-8"))
    assert {key: result[key] for key in settings} == settings
    assert len(pd.read_csv(files["csv"])) > 1000
    assert "<svg" in files["html"].read_text("utf-8")
    assert "replaying" in capsys.readouterr().out


@pytest.mark.slow
def test_a_synthetic_dataset_is_compared_with_its_truth(people):
    """Labels drawn from the truth: it ranks policies as the drawn likes do, and is its own best simulator."""
    rng = np.random.default_rng(0)
    users, items = people.num_users, people.num_items
    nothing = pd.Series([np.full(8, -1, np.int32)] * users)
    dataset = replace(
        people,
        manifest={**people.manifest, "synthetic": {"taste": 0.0}},
        items=people.items.assign(quality=rng.normal(0, 3, items).astype(np.float32)),
        users=people.users.assign(
            bias=np.zeros(users, np.float32), liked_keywords=nothing, annoying_keywords=nothing
        ),
    )
    user, item = dataset.interaction_user(), dataset.arrays["interaction_item"]
    chance = true_like_probability(dataset, user, item)
    dataset = with_labels(dataset, (rng.random(len(item)) < chance).astype(np.int8))
    result = validity(dataset, SMALL)
    truth = result["truth"]
    assert truth["real"]["tau"]["value"] > 0.7
    assert truth["item_rate"]["tau"]["value"] > 0.5
    assert "own" not in truth["real"]
    best = max(result["policies"], key=lambda row: row["true"]["value"])
    assert "item_rate" in str(best["same_as"]) or "taste" in best["policy"]
    assert "against the true probabilities" in format_report(result)
    assert "Against the truth" in format_page(result)
    assert "truth" in set(long_table(result)["group"])


@pytest.mark.slow
def test_labels_of_one_class_have_no_ranking(people):
    result = validity(with_labels(people, np.ones_like(people.arrays["interaction_label"])), SMALL)
    assert result["split_half"] == {"value": None, "low": None, "high": None}
    assert all(row["tau"] is None for row in result["rows"])
    assert any(line.startswith("bias_residual: left out") for line in result["notes"])
    assert "nan" not in format_report(result)
    assert format_page(result).startswith("<!doctype html>")
    json.dumps(result, allow_nan=False)
