"""The search for settings: what it draws, how it ranks, and what it refuses."""

import json

import jax
import numpy as np
import pytest

from agents.algorithms.a2c import A2CConfig
from benchmarks import search as module
from benchmarks.search import RANGES, draw_settings, search
from jaxsim import InputError
from tests.agents.conftest import learnable_dataset


def test_settings_are_drawn_within_their_ranges_and_the_first_are_the_defaults():
    names = ("learning_rate", "gae_lambda")
    drawn = draw_settings(jax.random.key(0), A2CConfig(), names, 500)
    for name in names:
        low, high = RANGES[name]
        values = np.asarray(drawn[name])
        assert values[0] == np.float32(getattr(A2CConfig(), name))
        assert low <= values[1:].min() < values[1:].max() <= high * 1.0001
    # Learning rates by order of magnitude, shares evenly.
    low, high = RANGES["learning_rate"]
    assert np.median(drawn["learning_rate"]) == pytest.approx((low * high) ** 0.5, rel=0.2)
    assert np.median(drawn["gae_lambda"]) == pytest.approx(RANGES["gae_lambda"][1] / 2, rel=0.2)


def test_a_sweep_covers_the_range_evenly_and_includes_the_default():
    values = draw_settings(jax.random.key(0), A2CConfig(), ("gamma",), 5, is_sweep=True)["gamma"]
    np.testing.assert_allclose(values, [A2CConfig().gamma, 0, 0.33, 0.66, 0.99], rtol=1e-5)


@pytest.mark.slow
def test_a_search_ranks_its_trials_and_shows_the_baselines(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(module, "load_dataset", lambda name: learnable_dataset())
    small = {"history_length": 4, "session_capacity": 10}
    monkeypatch.setattr(module, "make", lambda packed, **world: _make(packed, **small, **world))
    whole = ("total_steps=200", "num_envs=4", "rollout_length=2", "width=4")
    path = tmp_path / "search.json"
    search("a2c", ("learning_rate",), trials=3, users=4, whole=whole, json=path)
    actual = json.loads(path.read_text())
    rewards = [row["a_rwd"] for row in actual["rows"]]
    assert len(rewards) == 3
    assert rewards == sorted(rewards, reverse=True)
    assert actual["baselines"]["oracle"] >= actual["baselines"]["random"]
    assert "oracle" in capsys.readouterr().out


def _make(packed, **settings):
    import jaxsim

    return jaxsim.make(packed, **settings)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"algorithm": "sarsa"}, "unknown algorithm 'sarsa'; known: ppo"),
        ({"settings": ("clip_range",)}, "a2c has no setting 'clip_range' to search; known: "),
        ({"settings": ("width",)}, "no setting 'width' to search"),
        ({"whole": ("num_envs",)}, "--whole num_envs: give NAME=NUMBER"),
        ({"whole": ("learning_rate=3",)}, "give NAME=NUMBER of a whole-number setting"),
        ({"whole": ("num_envs=0",)}, "num_envs is 0"),
        ({"trials": 0}, "--trials 0: give a whole number from 1"),
        (
            {"settings": ("gamma", "learning_rate"), "sweep": True},
            "--sweep needs exactly one setting",
        ),
    ],
    ids=[
        "algorithm",
        "other's setting",
        "whole number",
        "no value",
        "not whole",
        "zero",
        "trials",
        "sweep",
    ],
)
def test_what_cannot_be_searched_is_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        search(**{"algorithm": "a2c", "settings": ("learning_rate",), **arguments})
