"""The examples run: each with little training, and only where the library that it shows is installed."""

import importlib.util

import pytest

from tests.paths import ROOT


def example(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / "examples" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def built(movielens_cache, monkeypatch):
    """The examples load MovieLens 100K by its name."""
    monkeypatch.setenv("JAXSIM_CACHE_DIR", str(movielens_cache))


@pytest.mark.slow
def test_rejax_trains(built):
    pytest.importorskip("rejax")
    assert example("rejax_ppo").main(total_timesteps=20_480) > 15


@pytest.mark.slow
@pytest.mark.parametrize("agent", ["dqn", "ppo", "trpo"])
def test_agents_of_stable_baselines3_train(agent, built):
    pytest.importorskip("sb3_contrib")
    learned, baseline = example("sb3_agents").main(agent, steps=12_000)
    assert 30 < baseline < 40
    assert learned > 20


@pytest.mark.slow
def test_maskable_ppo_earns_more_than_like_rate(built):
    """With both seeds: the difference is 1.8 likes or more, and its standard error 0.3."""
    pytest.importorskip("sb3_contrib")
    for seed in (0, 1):
        learned, baseline = example("sb3_agents").main("maskable_ppo", seed=seed)
        assert learned > baseline


def test_purejaxrl_is_missed_in_one_line(tmp_path):
    with pytest.raises(SystemExit, match=r"no ppo\.py there; clone purejaxrl"):
        example("purejaxrl_ppo").main(tmp_path)
