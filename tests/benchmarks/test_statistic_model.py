import json

import pytest

import benchmarks.statistic_model as search
from jaxsim import InputError
from tests.factory import random_dataset


@pytest.fixture
def trainings(monkeypatch):
    """Replace training by a lookup of AUCs; collects the settings that would be trained."""
    calls = []

    def train(arrays, config):
        calls.append((config.seed, config.width))
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
