"""Off-policy evaluation: estimators by hand and on small problems with known values, and the command."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks.ope import command, measure
from benchmarks.ope.estimators import FIRST, SESSION, effective_size, first_step, session
from benchmarks.ope.measure import judged
from benchmarks.ope.policies import PAIRS, EpsilonSoftmax
from benchmarks.ope.reward_model import cross_fitted, pair_features
from jaxsim import InputError
from tests.factory import random_dataset
from tests.paths import RESULTS, needs_results

ONE = np.ones((1, 2))


def test_estimators_of_one_recommendation_by_hand():
    found = first_step(
        weight=np.array([2.0, 0.5]),
        reward=np.array([1.0, 0.0]),
        predicted=np.array([0.6, 0.4]),
        value=np.array([0.5, 0.7]),
        replicates=np.array([[1.0, 1.0], [2.0, 0.0]]),
    )
    assert list(found) == list(FIRST)
    np.testing.assert_allclose(found["ips"], [1.0, 2.0])
    np.testing.assert_allclose(found["snips"], [2 / 2.5, 1.0])
    np.testing.assert_allclose(found["dm"], [0.6, 0.5])
    np.testing.assert_allclose(found["dr"], [0.6 + (2 * 0.4 - 0.5 * 0.4) / 2, 0.5 + 2 * 0.4])


def test_estimators_of_a_session_by_hand():
    """The second session ends after one step: its weight stays, and it earns nothing more."""
    found = session(np.array([[2.0, 3.0], [0.5, 1.0]]), np.array([[1.0, 1.0], [1.0, 0.0]]), ONE)
    assert list(found) == list(SESSION)
    np.testing.assert_allclose(found["is"], [(6 * 2 + 0.5) / 2])
    np.testing.assert_allclose(found["pdis"], [(2 + 6 + 0.5) / 2])
    np.testing.assert_allclose(found["wpdis"], [2.5 / 2.5 + 6 / 6.5])


def test_without_any_weight_a_ratio_is_zero():
    nothing = np.zeros(2)
    assert first_step(nothing, nothing, nothing, nothing, ONE)["snips"] == [0]
    assert effective_size(nothing) == 0
    assert effective_size(np.array([1.0, 1.0, 0.0])) == 2


@pytest.mark.parametrize("seed", range(3))
def test_weighted_estimators_are_unbiased_and_the_direct_method_is_as_good_as_its_model(seed):
    rng = np.random.default_rng(seed)
    logging, target = rng.dirichlet(np.ones(4) * 3, size=(2, 3))
    rate, model = rng.uniform(size=(2, 3, 4))
    truth = (target * rate).sum(axis=1).mean()
    found = []
    for _ in range(200):
        context = rng.integers(0, 3, 100)
        action = np.array([rng.choice(4, p=logging[c]) for c in context])
        reward = (rng.uniform(size=100) < rate[context, action]).astype(float)
        weight = target[context, action] / logging[context, action]
        value = (target * model).sum(axis=1)[context]
        predicted = model[context, action]
        found.append(first_step(weight, reward, predicted, value, np.ones((1, 100))))
    for name in FIRST:
        values = np.array([x[name][0] for x in found])
        aim = (target * model).sum(axis=1).mean() if name == "dm" else truth
        error = values.std() / np.sqrt(len(values))
        slack = 0.01 if name == "snips" else 0.0  # its bias is of order 1 / n
        assert abs(values.mean() - aim) < 4.5 * error + slack, name


@pytest.mark.parametrize("seed", range(3))
def test_estimators_of_sessions_are_unbiased(seed):
    """Two steps of two actions; the second step depends on the first action."""
    rng = np.random.default_rng(seed)
    logging, target = (np.array([[p, 1 - p] for p in rng.uniform(0.3, 0.7, 3)]) for _ in range(2))
    rate = rng.uniform(size=(3, 2))
    truth = (target[0] * (rate[0] + (target[1:] * rate[1:]).sum(axis=1))).sum()
    count = 60_000
    state, weights, rewards = np.zeros(count, int), [], []
    for _ in range(2):
        action = (rng.uniform(size=count) < logging[state, 1]).astype(int)
        weights.append(target[state, action] / logging[state, action])
        rewards.append((rng.uniform(size=count) < rate[state, action]).astype(float))
        state = 1 + action
    found = session(np.stack(weights, 1), np.stack(rewards, 1), np.ones((1, count)))
    largest = np.prod([(target / logging).max()] * 2)
    for name in SESSION:
        assert abs(found[name][0] - truth) < 4.5 * 2 * largest / np.sqrt(count), name


def test_errors_are_judged_by_hand():
    estimates = [{"value": v, "low": v - 1, "high": v + 1} for v in (1.0, 2.0, 6.0)]
    row = judged(estimates, truth=2.5)
    assert (row["mean"], row["bias"]) == (3.0, 0.5)
    assert row["rmse"] == pytest.approx(np.sqrt((1.5**2 + 0.5**2 + 3.5**2) / 3))
    assert row["coverage"] == pytest.approx(1 / 3)
    assert row["width"] == 2
    assert row["coverage_low"] < 1 / 3 < row["coverage_high"]
    assert row["bias_low"] < 0.5 < row["bias_high"]


def test_each_half_is_predicted_by_a_model_of_the_other():
    """Even rows are all likes, odd ones all dislikes, so no half has anything to tell apart."""
    features = np.zeros((2, 3, 4), np.float32)
    even = np.arange(10) % 2 == 0
    where = np.zeros(10, np.int64)
    halves = cross_fitted(features, where, where, even.astype(np.float32))
    assert [rows.tolist() for rows, _ in halves] == [[0, 2, 4, 6, 8], [1, 3, 5, 7, 9]]
    assert [float(q.mean()) for _, q in halves] == [0.0, 1.0]


@pytest.mark.parametrize("seed", range(3))
def test_the_model_learns_which_items_are_liked(seed):
    rng = np.random.default_rng(seed)
    item_context = rng.standard_normal((40, 5))
    items = rng.integers(0, 40, (30, 8))
    features = pair_features(item_context, items, rng.choice([-1, 1], (30, 8)))
    np.testing.assert_allclose(features.mean(axis=(0, 1)), 0, atol=1e-5)
    user, item = rng.integers(0, 30, 2000), rng.integers(0, 40, 2000)
    rate = 1 / (1 + np.exp(-2 * item_context[:, -1]))
    reward = (rng.uniform(size=2000) < rate[item]).astype(float)
    for _, predicted in cross_fitted(features, user, item, reward):
        assert np.corrcoef(predicted.mean(axis=0), rate)[0, 1] > 0.95


@pytest.mark.slow
def test_probabilities_of_a_policy_by_hand(simulator):
    _, env, params = simulator
    obs, _ = env.reset(jax.random.key(0), params)
    mask = np.asarray(env.action_mask(obs, params))
    ranking = np.linspace(0, 1, env.num_items)
    for top in (None, 3):
        policy = EpsilonSoftmax(
            jnp.float32(0.5), jnp.float32(0.1), jnp.asarray(ranking, jnp.float32), top=top
        )
        soft = np.where(mask, np.exp(ranking / 0.5), 0)
        if top:
            soft[soft < np.sort(soft)[-top]] = 0
        expected = 0.1 * mask / mask.sum() + 0.9 * soft / soft.sum()
        found = np.asarray(policy.probabilities(env, obs, params))
        np.testing.assert_allclose(found, expected, rtol=1e-4)
        best = jnp.int32(np.argmax(expected))
        assert float(policy.propensity(env, obs, params, best)) == pytest.approx(
            expected.max(), rel=1e-4
        )


@pytest.mark.slow
def test_the_command_writes_what_it_prints(monkeypatch, tmp_path, capsys):
    packed = random_dataset(0, num_users=40, num_items=300, max_sequence=30)
    monkeypatch.setattr(command, "load_dataset", lambda name: packed)
    monkeypatch.setattr(measure, "TRUTH_SESSIONS", 6_000)
    out = tmp_path / "ope.json"
    command.run_ope(sessions=600, logs=12, horizon=2, train_steps=2_048, json=out)
    result = json.loads(out.read_text())
    assert command.format_ope(result) in capsys.readouterr().out
    rows = {(r["logging"], r["target"], r["estimator"]): r for r in result["rows"]}
    assert len(rows) == len(PAIRS) * (len(FIRST) + len(SESSION))
    for value in result["values"].values():
        # The exact value is what the simulator gives.
        assert abs(value["first"] - value["simulated_first"]) < 4.5 * 0.5 / np.sqrt(6_000)
    for logging, target in PAIRS[:2]:
        for name in ("ips", "dr"):
            row = rows[logging, target, name]
            assert row["support"] == pytest.approx(1)
            assert abs(row["bias"]) < 4.5 * row["rmse"] / np.sqrt(12)
            assert row["coverage"] >= 0.6
    assert rows["like_rate_top", "learned", "ips"]["support"] < 1


def test_mistakes_are_one_line():
    for options, message in (
        ({"logs": 1}, r"^--logs 1: give a whole number from 2$"),
        ({"sessions": 3}, r"^--sessions 3: give a whole number from 4$"),
        ({"horizon": 0}, r"^--horizon 0: give a whole number from 1$"),
    ):
        with pytest.raises(InputError, match=message):
            command.run_ope(**options)


@needs_results
def test_the_words_of_the_page_on_logs_hold_of_the_kept_result():
    """If this fails after recording the result again, reword the end of docs/logs.md."""
    result = json.loads((RESULTS / "ope-ml-100k.json").read_text("utf-8"))
    rows = {(r["logging"], r["target"], r["estimator"]): r for r in result["rows"]}
    errors = {pair: {e: rows[(*pair, e)]["rmse"] for e in FIRST} for pair in PAIRS}
    best = [min(found, key=lambda e, found=found: found[e]) for found in errors.values()]
    assert sorted(best) == ["dm", "dm", "snips", "snips", "snips", "snips"]
    worse = [found["dr"] / found["snips"] for found in errors.values()]
    assert sum(share < 1.1 for share in worse) == 4
    assert min(worse) > 0.95
    assert max(rows[(*pair, "dm")]["coverage"] for pair in PAIRS) < 0.2
    for pair in PAIRS:
        of_sessions = [rows[(*pair, e)] for e in SESSION]
        if pair == ("learned_explored", "learned"):
            assert all(row["coverage_high"] >= 0.95 for row in of_sessions)
        else:
            assert min(row["rmse"] for row in of_sessions) > 0.5
    top = rows["like_rate_top", "learned", "ips"]
    assert top["bias"] == pytest.approx(-(1 - top["support"]) * top["truth"], rel=0.1)
