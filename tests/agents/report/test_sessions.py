"""Sample sessions: which are shown, that they are those of the evaluation, and that reasons fit responses."""

import jax
import numpy as np
import pytest

from agents.evaluation.baselines import RandomPolicy
from agents.evaluation.returns import Returns
from agents.evaluation.sessions import fixed_sessions, run_sessions
from agents.report.reasons import Vocabulary, describe_session
from agents.report.sessions import SampleSession, choose_sessions, sample_sessions
from tests.agents.report.conftest import reported_run
from tests.conftest import simulator_of
from tests.factory import random_dataset


@pytest.mark.parametrize(
    ("sizes", "count", "expected"),
    [
        ([8, 8], 4, [[0, 4], [0, 4]]),
        ([8, 8], 3, [[0, 4], [0]]),
        ([8], 3, [[0, 2, 5]]),
        ([8, 1], 4, [[0, 2, 5], [0]]),  # a small group leaves its places to the other
        ([2, 1], 9, [[0, 1], [0]]),
        ([8, 8], 0, [[], []]),
    ],
)
def test_sessions_are_spread_over_groups_and_users(sizes, count, expected):
    assert [rows.tolist() for rows in choose_sessions(sizes, count)] == expected


class Prepared:
    """As much of a `PreparedRun` as sessions need."""

    def __init__(self, semantics: str) -> None:
        data = random_dataset(3, num_users=12, window=14, width=4, num_blocks=1)
        settings = {"history_length": 4, "session_capacity": 8, "users": "train"}
        self.dataset, self.env, self.params = simulator_of(data, semantics=semantics, **settings)
        self.config = reported_run().config

    def recorded(self, policy) -> Returns:
        """What an evaluation writes down."""
        key, returns, sessions = jax.random.key(self.config.evaluation_seed), {}, {}
        for group in ("train", "held_out"):
            users = self.dataset.session_users(group)
            if len(users):
                fixed = fixed_sessions(key, self.env, self.params.replace(session_users=users))
                returns["greedy", group] = run_sessions(
                    self.env, self.params, policy, fixed
                ).returns[None]
                sessions[f"users/{group}"] = np.asarray(fixed.users)
        return Returns(None, "random", {}, {}, returns, sessions)


@pytest.mark.slow
@pytest.mark.parametrize("semantics", ["paper", "released", "calibrated", "soft"])
def test_sessions_and_reasons_are_those_of_the_evaluation(semantics):
    run, policy = Prepared(semantics), RandomPolicy()
    samples = sample_sessions(run, policy, run.recorded(policy), 6)
    assert len(samples) == 6
    vocabulary, ticks = Vocabulary(run.dataset), []
    for session in samples:
        assert session.recorded is not None
        assert session.earned == pytest.approx(session.recorded)
        told = describe_session(run, vocabulary, session, 1, lambda: ticks.append(1))
        assert not told["differs"]
        assert ["flips" in step for step in told["steps"]] == [True] + [False] * (
            len(told["steps"]) - 1
        )
        _check(run, vocabulary.to_json(), session, told)
    assert len(ticks) == sum(len(session.steps) for session in samples)


def _check(run: Prepared, known: dict, session: SampleSession, told: dict) -> None:
    """The reasons of each step fit its response, and what is shared is shared."""
    items, past = known["items"], list(told["history"])
    for step in told["steps"]:
        name, _, pros, cons = items[step["item"]]
        assert name == str(session.steps["title"].iloc[len(past) - len(told["history"])])
        if "votes" in step:
            assert step["like"] == (sum(step["votes"]) >= 2)
            assert step["all"] == len(past) >= step["read"]
            for word, side, positions in step["matched"]:
                assert word in (pros if side else cons)
                assert all(past[p][1] == side for p in positions)
                assert all(word in items[past[p][0]][2 if side else 3] for p in positions)
            for side in (0, 1):
                matched = [len(p) for _, polarity, p in step["matched"] if polarity == side]
                assert step["alpha"][side] == sum(matched)
            if not step["coins"][0] and run.env.semantics == "paper":
                assert step["votes"][0] == (step["alpha"][1] > step["alpha"][0])
        else:
            assert step["p"] == pytest.approx(step["posterior"], abs=2e-3)
            log_odds = sum(value for _, value in step["sums"])
            assert 1 / (1 + np.exp(-log_odds)) == pytest.approx(step["p"], abs=2e-3)
            taste = dict(step["sums"])["taste"]
            assert sum(value for _, value in step["parts"]) == pytest.approx(taste, abs=5e-3)
            shares = sum(share[1] for share in step["shares"]) + step["rest"][1]
            assert shares == pytest.approx(taste, abs=5e-3)
            if run.env.semantics == "soft":
                assert step["like"] == (step["p"] >= 0.5)
        past.append([step["item"], step["like"]])


@pytest.mark.slow
def test_a_session_that_earned_something_else_is_marked():
    run, policy = Prepared("paper"), RandomPolicy()
    returns = run.recorded(policy)
    returns.returns["greedy", "train"] = returns.returns["greedy", "train"] + 1
    samples = sample_sessions(run, policy, returns, 4)
    assert [s.is_as_recorded for s in samples] == [s.group != "train" for s in samples]
    returns.sessions["users/train"] = (
        returns.sessions["users/train"] + 1
    )  # other sessions: nothing is known
    assert all(s.is_as_recorded for s in sample_sessions(run, policy, returns, 4))
