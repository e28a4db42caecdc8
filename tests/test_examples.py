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
def test_rejax_learns(built):
    pytest.importorskip("rejax")
    for seed in (0, 1):
        before, after = example("rejax_ppo").main(total_timesteps=204_800, seed=seed)
        assert after > before + 0.05


@pytest.mark.slow
@pytest.mark.parametrize("agent", ["dqn", "ppo", "trpo"])
def test_agents_of_stable_baselines3_learn(agent, built):
    """A short training: more likes than the same model had before it, with both seeds."""
    pytest.importorskip("sb3_contrib")
    for seed in (0, 1):
        outcome = example("sb3_agents").main(agent, steps=24_000, seed=seed)
        assert 30 < outcome.like_rate < 40
        assert outcome.trained > outcome.untrained + 1


@pytest.mark.slow
def test_maskable_ppo_earns_more_than_like_rate(built):
    """With both seeds: the difference is 1.8 likes or more, and its standard error 0.3."""
    pytest.importorskip("sb3_contrib")
    for seed in (0, 1):
        outcome = example("sb3_agents").main("maskable_ppo", seed=seed)
        assert outcome.trained > outcome.like_rate


def test_purejaxrl_is_missed_in_one_line(tmp_path):
    with pytest.raises(SystemExit, match=r"no ppo\.py there; clone purejaxrl"):
        example("purejaxrl_ppo").main(tmp_path)
