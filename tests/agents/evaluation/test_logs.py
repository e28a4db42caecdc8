"""Logs: their columns, exact propensities, and the same sessions as in an evaluation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from agents.algorithms.dqn import DQN, DQNConfig
from agents.algorithms.ppo import PPO, PPOConfig
from agents.evaluation.baselines import FixedRanking, RandomPolicy, RepeatLastLiked, baselines
from agents.evaluation.exploring import exploring
from agents.evaluation.logs import log_sessions, log_sessions_of
from agents.evaluation.oracle import Oracle
from agents.evaluation.sessions import FixedSessions, run_sessions
from jaxsim import InputError
from tests.conftest import CAPACITY, simulator_of
from tests.departure_logs import with_departure
from tests.factory import random_dataset
from tests.signals_factory import with_signals

CONFIG = {"num_envs": 2, "width": 8}


@pytest.fixture(scope="module")
def leaving():
    plain = random_dataset(0, num_users=23, window=12, width=4, num_blocks=1)
    return with_departure(with_signals(plain))


@pytest.fixture(scope="module")
def rated(leaving):
    return simulator_of(leaving, semantics="calibrated", reward="rating", departure="fitted")


@pytest.fixture(scope="module")
def log(rated):
    return log_sessions(*rated, RandomPolicy(), jax.random.key(0), 30)


@pytest.mark.slow
def test_a_row_has_what_the_step_had(log, leaving):
    assert list(log) == [
        "episode", "step", "user", "user_group", "item", "title", "like", "rating", "duration", "reward",
        "propensity", "probability", "departure_probability", "terminated", "truncated", "invalid_action",
    ]  # fmt: skip
    by_episode = log.groupby("episode")
    assert by_episode.ngroups == 30
    for _, steps in by_episode:
        assert steps["step"].tolist() == list(range(1, len(steps) + 1))
        assert steps["user"].nunique() == 1
        ends = (steps["terminated"] | steps["truncated"]).tolist()
        assert ends == [False] * (len(steps) - 1) + [True]
        assert steps["item"].is_unique  # repeats are masked
        assert steps["truncated"].iloc[-1] == (len(steps) == CAPACITY)
    assert not log["invalid_action"].any()
    assert (log["reward"] == log["rating"]).all()
    assert ((log["rating"] >= 4) == (log["like"] == 1)).all()
    assert (log["title"] == [leaving.item_name(i) for i in log["item"]]).all()
    held_out = log["user_group"] == "held_out"
    assert (held_out == (log["user"] % 10 == 9)).all()
    assert 0 < held_out.mean() < 1


@pytest.mark.slow
def test_it_is_a_function_of_the_key(log, rated):
    """And the first episodes do not depend on how many follow."""
    again = log_sessions(*rated, RandomPolicy(), jax.random.key(0), 30)
    assert again.equals(log)
    fewer = log_sessions(*rated, RandomPolicy(), jax.random.key(0), 7)
    assert fewer.equals(log[log["episode"] < 7])
    other = log_sessions(*rated, RandomPolicy(), jax.random.key(1), 30)
    assert not other["item"].equals(log["item"])


@pytest.mark.slow
def test_propensities_of_random_are_one_over_what_is_allowed(log, rated):
    """The window holds the history and the steps before."""
    lengths = np.asarray(rated.params.histories.length)[log["user"]]
    np.testing.assert_allclose(
        log["propensity"], 1 / (rated.env.num_items - lengths - (log["step"] - 1)), rtol=1e-6
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", ["random", "oracle"])
def test_sums_are_those_of_an_evaluation(rated, name):
    dataset, env, params = rated
    policy = baselines(dataset, env, params)[name]
    users = params.session_users[:6]
    keys = jax.random.split(jax.random.key(3), 6)
    outcome = run_sessions(
        env, params, policy, FixedSessions(users, keys, jnp.full(6, CAPACITY, jnp.int32))
    )
    log = log_sessions_of(dataset, env, params, policy, users, keys)
    sums = log.groupby("episode")[["reward", "like"]].sum()
    np.testing.assert_allclose(sums["reward"], outcome.returns, rtol=1e-6)
    np.testing.assert_array_equal(sums["like"], outcome.likes)
    np.testing.assert_array_equal(log.groupby("episode").size(), outcome.steps)
    if name == "oracle":
        assert (log["propensity"] == 1).all()


def policies(env, params):
    """Policies that draw in every way, and one that does not."""
    for kind, config in ((PPO, PPOConfig(**CONFIG)), (DQN, DQNConfig(**CONFIG))):
        algorithm = kind(env, config)
        obs, _ = env.reset(jax.random.key(0), params)
        variables = algorithm.network.init(jax.random.key(1), obs)
        for sampled in (True, False):
            yield algorithm.policy_of(variables, sampled=sampled)
            yield exploring(algorithm.policy_of(variables, sampled=sampled), 0.3)
    yield RandomPolicy()
    yield RepeatLastLiked()


@pytest.mark.slow
def test_propensities_add_up_and_are_the_shares_of_what_is_recommended(simulator):
    _, env, params = simulator
    obs, state = env.reset(jax.random.key(2), params)
    items, draws = jnp.arange(env.num_items, dtype=jnp.int32), 4000
    for policy in policies(env, params):
        chances = np.asarray(
            jax.vmap(lambda item, p=policy: p.propensity(env, obs, params, item))(items)
        )
        assert chances.sum() == pytest.approx(1, abs=1e-5)
        assert (chances[~np.asarray(env.action_mask(obs, params))] == 0).all()
        act = jax.jit(jax.vmap(lambda key, p=policy: p.act(key, (), env, obs, state, params)))
        drawn = np.asarray(act(jax.random.split(jax.random.key(4), draws)))
        shares = np.bincount(drawn, minlength=env.num_items) / draws
        error = np.sqrt(chances * (1 - chances) / draws)
        assert (np.abs(shares - chances) <= 5 * error + 1e-6).all()


@pytest.mark.slow
def test_votes_and_slates_have_columns_of_their_own(simulator, leaving):
    votes = log_sessions(*simulator, RandomPolicy(), jax.random.key(0), 5)
    majority = votes[["f_mat", "f_sim", "f_sta"]].sum(axis=1) >= 2
    assert (majority == (votes["like"] == 1)).all()
    shown = simulator_of(
        leaving, semantics="calibrated", slate_size=3, session_capacity=5, taste="latent"
    )
    log = log_sessions(*shown, RandomPolicy(), jax.random.key(0), 12)
    for row in log.itertuples():
        assert len(row.slate) == 3
        assert sum(row.probabilities) == pytest.approx(1, abs=1e-5)
        assert row.like == (row.place >= 0)
        if row.place >= 0:
            assert row.item == row.slate[row.place]
            assert row.title == leaving.item_name(row.item)
    none = log["place"] < 0
    assert log["item"].isna().equals(none)
    assert none.any()
    first = log[log["step"] == 1]
    allowed = shown.env.num_items - np.asarray(shown.params.histories.length)[first["user"]]
    expected = 1 / (allowed * (allowed - 1) * (allowed - 2.0))
    np.testing.assert_allclose(first["propensity"], expected, rtol=1e-5)
    oracle = baselines(*shown)["oracle"]
    assert (log_sessions(*shown, oracle, jax.random.key(0), 2)["propensity"] == 1).all()


@pytest.mark.slow
def test_propensities_of_slates_add_up_over_all_of_them(leaving):
    _, env, params = simulator_of(
        leaving, semantics="calibrated", slate_size=2, session_capacity=5, taste="latent"
    )
    obs, _ = env.reset(jax.random.key(2), params)
    first, second = np.indices((env.num_items, env.num_items)).reshape(2, -1)
    pairs = jnp.asarray(np.stack([first, second], axis=1)[first != second], jnp.int32)
    algorithm = PPO(env, PPOConfig(**CONFIG))
    variables = algorithm.network.init(jax.random.key(1), obs)
    for policy in (RandomPolicy(), *(algorithm.policy_of(variables, x) for x in (True, False))):
        chances = np.asarray(
            jax.vmap(lambda pair, p=policy: p.propensity(env, obs, params, pair))(pairs)
        )
        allowed = np.asarray(env.action_mask(obs, params))[np.asarray(pairs)].all(axis=1)
        assert chances[allowed].sum() == pytest.approx(1, abs=1e-4)


@pytest.mark.slow
def test_a_policy_that_explores_has_the_propensity_of_both_parts(simulator):
    _, env, params = simulator
    obs, _ = env.reset(jax.random.key(2), params)
    ranking = FixedRanking(jnp.arange(env.num_items, dtype=jnp.float32))
    policy = exploring(ranking, 0.2)
    best = ranking.choose(jax.random.key(0), env, obs, params)
    other = int(np.flatnonzero(env.action_mask(obs, params))[0])
    random = 0.2 / int(env.action_mask(obs, params).sum())
    assert float(policy.propensity(env, obs, params, best)) == pytest.approx(0.8 + random)
    assert float(policy.propensity(env, obs, params, jnp.int32(other))) == pytest.approx(random)
    with pytest.raises(InputError, match=r"^--epsilon needs a policy that reads the observation"):
        exploring(Oracle(), 0.2)


def test_no_episode_is_refused(simulator):
    with pytest.raises(InputError, match=r"^episodes is 0: give a whole number from 1$"):
        log_sessions(*simulator, RandomPolicy(), jax.random.key(0), 0)
