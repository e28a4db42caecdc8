"""Baselines that show slates, in fixed sessions: the same evaluation as that of single items."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct

from agents.evaluation.baselines import FixedRanking, RepeatLastLiked, baselines
from agents.evaluation.evaluate import evaluate
from agents.evaluation.sessions import fixed_sessions, run_sessions
from tests.conftest import never_leaves
from tests.slates import K, with_rates


@pytest.fixture(scope="module")
def slates(dataset):
    return with_rates(dataset)


@pytest.fixture(scope="module")
def evaluation(slates):
    dataset, env, params = slates
    learned = {"taught": [FixedRanking(jnp.arange(40.0)), FixedRanking(-jnp.arange(40.0))]}
    return evaluate(dataset, env, params, learned, jax.random.key(0), sampled=learned)


@pytest.mark.slow
def test_the_table_of_slates_has_the_rows_and_differences_of_single_items(evaluation):
    """These users are all alike, so the best list for everyone is the oracle's."""
    rows = {(row.policy, row.mode, row.users): row for row in evaluation.rows}
    names = {"random", "popular", "like_rate", "static_best", "oracle"}
    assert {name for name, mode, _ in rows if mode == "baseline"} == names
    for users in ("train", "held_out"):
        best, random = (rows[name, "baseline", users] for name in ("oracle", "random"))
        assert best.a_rwd == rows["static_best", "baseline", users].a_rwd
        if users == "train":  # only two users are held out
            assert (best.share_of_oracle, random.share_of_oracle) == (1.0, 0.0)
            assert best.a_rwd > random.a_rwd + 0.3
            assert best.paired_random_low > 0
        taught = rows["taught", "greedy", users]
        assert taught.a_rwd == rows["taught", "sampled", users].a_rwd
        assert taught.seeds == 2
        assert 0 < taught.like_rate < 1


@struct.dataclass
class Wanderer:
    """Shows slates by its key, its memory (the number of choices) and the observation."""

    name: str = struct.field(pytree_node=False, default="wanderer")

    def begin(self, env, obs, params):
        return jnp.int32(0)

    def act(self, key, memory, env, obs, state, params):
        scores = jax.random.uniform(key, (env.num_items,)) + memory % 2 * jnp.arange(env.num_items)
        return env.best_slate(scores, obs)

    def remember(self, memory, item, like, params):
        assert item.shape == (K,)
        return memory + like


@pytest.mark.slow
@pytest.mark.parametrize("repeats", ["mask", "allow"])
def test_a_run_is_a_plain_loop(dataset, repeats):
    _, env, params = with_rates(dataset, repeats=repeats)
    params = never_leaves(params.replace(session_users=params.session_users[:4]))
    sessions = fixed_sessions(jax.random.key(0), env, params, repeats=2)
    sessions = sessions._replace(durations=jnp.arange(8, dtype=jnp.int32) % 6 + 1)
    outcome = run_sessions(env, params, Wanderer(), sessions)
    returns, repeated, shown = [], 0, np.zeros(env.num_items, int)
    step, act = jax.jit(env.step_env), jax.jit(Wanderer().act, static_argnums=2)
    for user, key, duration in zip(*sessions, strict=True):
        obs, state = env.reset_user(user, params)
        memory, earned = jnp.int32(0), 0
        for time in range(int(duration)):
            key_env, key_policy = jax.random.split(jax.random.fold_in(key, time))
            slate = act(key_policy, memory, env, obs, state, params)
            held = np.asarray(obs.items)
            obs, state, reward, _, info = step(key_env, state, slate, params)
            place = int(info["place"])
            assert reward == (place >= 0)
            repeated += place >= 0 and slate[place] in held
            memory = memory + info["response"].like
            earned += float(reward)
            np.add.at(shown, np.asarray(slate), 1)
        returns.append(earned)
    np.testing.assert_array_equal(outcome.returns, returns)
    np.testing.assert_array_equal(outcome.recommended, shown)
    assert outcome.repeated.sum() == repeated
    assert (repeated > 0) == (repeats == "allow")


def test_a_ranking_shows_its_best_items_that_are_allowed(slates):
    dataset, env, params = slates
    obs, state = env.reset_user(jnp.int32(2), params)
    allowed = np.flatnonzero(env.action_mask(obs, params))
    policies = baselines(dataset, env, params)
    by_number = FixedRanking(jnp.arange(env.num_items, dtype=jnp.float32))
    slate = by_number.act(jax.random.key(0), (), env, obs, state, params)
    np.testing.assert_array_equal(slate, allowed[::-1][:K])
    best = policies["oracle"].act(jax.random.key(0), None, env, obs, state, params)
    rates = np.asarray(env.scores(state, params))
    np.testing.assert_array_equal(best, allowed[np.argsort(-rates[allowed])][:K])
    drawn = [
        policies["random"].act(jax.random.key(seed), (), env, obs, state, params)
        for seed in range(8)
    ]
    assert len({tuple(slate.tolist()) for slate in drawn}) == 8
    assert np.isin(drawn, allowed).all()


def test_what_was_liked_last_comes_first_where_repeats_are_allowed(dataset):
    _, env, params = with_rates(dataset, repeats="allow")
    obs, state = env.reset_user(jnp.int32(2), params)
    items, responses = (np.asarray(x) for x in (obs.items, obs.responses))
    liked = items[responses > 0][::-1]
    assert len(liked) >= K
    slate = RepeatLastLiked().act(jax.random.key(0), (), env, obs, state, params)
    np.testing.assert_array_equal(slate, liked[:K])
