import json

import jax
import jax.numpy as jnp
import pytest
from flax.traverse_util import unflatten_dict

import benchmarks.statistic_model as search
from jaxsim import InputError
from jaxsim.sasrec import SASRec
from tests.factory import random_dataset, sasrec_weights


@pytest.fixture
def trainings(monkeypatch):
    """Replace training by a lookup of AUCs; collects the settings that would be trained."""
    calls = []

    def train(arrays, config, architecture):
        calls.append((config.seed, config.width, architecture))
        return {}, {"validation_auc": 0.5 + config.width / 1000 + config.seed / 100}

    monkeypatch.setattr(search, "train_sasrec", train)
    monkeypatch.setattr(search, "load_dataset", lambda name: random_dataset(0))
    return calls


def test_each_setting_is_trained_with_each_seed(trainings, tmp_path, capsys):
    search.search_statistic_model(seeds=2, json=tmp_path / "search.json")
    assert len(trainings) == 2 * len(search.VARIANTS)
    result = json.loads((tmp_path / "search.json").read_text("utf-8"))
    assert (result["split"], result["seeds"]) == ("validation", 2)
    assert result["auc"]["default"] == pytest.approx([0.532, 0.542])
    table = capsys.readouterr().out.splitlines()[-len(search.VARIANTS) :]
    assert table[0].split() == ["width", "64", "0.5690", "0.5640", "0.5740"]


def test_seeds_are_from_one():
    with pytest.raises(InputError, match="--seeds is 0: give a whole number from 1"):
        search.search_statistic_model(seeds=0)


def test_the_variant_without_the_common_candidate_does_not_depend_on_it():
    sizes = {"num_items": 6, "num_users": 3, "window": 5, "width": 4, "num_blocks": 1}
    model, variant = SASRec(**sizes), search.WithoutCommonCandidate(**sizes)
    flat = sasrec_weights(model.architecture)
    zero = {**flat, "common_candidate": 0 * flat["common_candidate"]}
    hidden = jnp.array([0.5, -1.0, 2.0, 1.0], jnp.float32)

    def logit(model, weights):
        tree = jax.tree.map(jnp.asarray, unflatten_dict(weights, sep="/"))
        arguments = hidden, jnp.int32(3), jnp.int32(1)
        return float(model.apply({"params": tree}, *arguments, method="logit"))

    assert logit(variant, flat) == pytest.approx(logit(model, zero), abs=1e-6)
    assert logit(model, flat) != pytest.approx(logit(model, zero), abs=1e-3)
