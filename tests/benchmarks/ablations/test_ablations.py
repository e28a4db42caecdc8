"""Ablations: what is left out is left out, and differences are to everything."""

import json
from dataclasses import replace

import numpy as np
import pytest

from benchmarks.ablations import measure
from benchmarks.ablations.command import format_ablations
from benchmarks.ablations.keywords import (
    all_keywords,
    filters,
    one_polarity,
    shipped_replies,
    with_keywords,
)
from benchmarks.ablations.measure import FULL, ablate, kernels
from benchmarks.fidelity import simulator
from benchmarks.fidelity.study import Settings, Study
from jaxsim import InputError
from prep.features.keywords import ItemKeywords
from tests.factory import random_dataset
from tests.prep.conftest import reply_text

FILTER = {"min_items": 2, "max_share": 0.1}


@pytest.fixture(scope="module")
def people():
    dataset = random_dataset(1, num_users=40)
    manifest = {"counts": {}, "settings": FILTER, "encoder": {"name": "hashed"}}
    return replace(dataset, manifest={**dataset.manifest, **manifest})


def test_one_polarity_leaves_the_other_empty(people):
    arrays = one_polarity(people, "pos").arrays
    assert (arrays["item_neg_keywords"] == -1).all()
    assert not arrays["item_neg_embedding"].any()
    np.testing.assert_array_equal(arrays["item_pos_keywords"], people.arrays["item_pos_keywords"])


def test_every_filter_changes_one_bound():
    own = {"min_items": 2, "max_share": 0.1}
    changed = list(filters(own))
    assert all((number == 2) != (share == 0.1) for _, number, share in changed)
    assert "--min-items 1" in {name for name, *_ in changed}
    assert "--max-share 0.2" in {name for name, *_ in changed}


def test_keywords_are_those_of_the_replies_and_pass_the_filter(people, tmp_path):
    path = tmp_path / "replies.jsonl"
    texts = [(["fun", "warm"], ["slow"]), (["fun"], ["long"]), (["fun", "rare"], ["slow"])]
    lines = [{"item_id": f"{i}", "reply": reply_text(*text)} for i, text in enumerate(texts)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    items = all_keywords(people, [path])
    assert len(items) == people.num_items
    assert items[0] == ItemKeywords(frozenset({"fun", "warm"}), frozenset({"slow"}))
    changed = with_keywords(people, items, 2, 0.9, "hashed")
    # All three have "fun"; "warm", "long" and "rare" are of one item.
    assert changed.keywords == ["slow"]
    assert changed.arrays["item_neg_keywords"][:3].ravel().tolist() == [0, -1, 0]
    assert (changed.arrays["item_pos_keywords"] == -1).all()
    with pytest.raises(InputError, match=r"replies.jsonl: no reply is about an item"):
        all_keywords(replace(people, items=people.items.assign(item_id="x")), [path])


def test_the_kernel_loses_the_parts_that_it_has(people):
    names = {one.name: one.without for one in kernels(people)}
    assert names["without keywords"] == ("pros", "cons")
    assert names["without mood"] == ("mood",)
    manifest = json.loads(json.dumps(people.manifest))
    del manifest["taste"]["taste_weights"]["year"]
    assert "without year" not in {one.name for one in kernels(replace(people, manifest=manifest))}


def test_no_replies_come_with_an_unknown_dataset(people):
    assert shipped_replies(people) == ()
    manifest = {**people.manifest, "dataset": "ml-100k"}
    assert len(shipped_replies(replace(people, manifest=manifest))) == 1


def test_a_dataset_without_a_taste_model_is_refused(people):
    with pytest.raises(InputError, match="without a taste model: build it again"):
        ablate(replace(people, taste=None), Settings())


@pytest.mark.slow  # fits a model for each ablation
def test_every_ablation_is_measured_beside_everything(people, monkeypatch):
    monkeypatch.setattr(simulator, "BATCH", 32)
    monkeypatch.setattr(measure, "CONTEXTS", (3, 50))
    result = ablate(people, Settings(resamples=20))
    assert result["full"]["name"] == FULL
    assert result["full"]["taste_difference"]["value"] == 0.0
    assert {row["name"] for row in result["keywords"]} == {"pros alone", "cons alone"}
    without = {row["name"]: row for row in result["kernel"]}
    for name in ("without constant", "without keywords"):
        assert without[name]["taste"] != result["full"]["taste"]
        assert without[name]["paper"] == result["full"]["paper"]
    assert all("cold" in row for row in result["kernel"])
    pros = next(row for row in result["keywords"] if row["name"] == "pros alone")
    assert pros["paper"] != result["full"]["paper"]
    assert [row["name"] for row in result["history"]] == ["3 ratings", "50 ratings"]
    assert any(line.startswith("filters and encoders: skipped") for line in result["notes"])
    text = format_ablations(result)
    for group in ("kernel", "keywords", "votes", "history"):
        assert all(row["name"] in text for row in result[group])


def test_the_majority_of_two_votes_is_their_mean(people, monkeypatch):
    study = Study.of(people, Settings(resamples=2), ())
    votes = [np.array(x * len(study.events)) for x in ([1.0], [0.0], [1.0])]
    monkeypatch.setattr(measure, "three_votes", lambda *_: votes)
    rows = {row["name"]: row["like_rate_error"]["value"] for row in measure.vote_rows(study)}
    rate = study.events.label.mean()
    expected = {FULL: 1.0, "without f_mat": 0.5, "without f_sim": 1.0, "without f_sta": 0.5}
    assert rows == pytest.approx({name: x - rate for name, x in expected.items()}, abs=1e-6)
