"""Fitting whether and when users return: ends of sessions and likelihood by hand, what it recovers and refuses."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from prep import return_model
from prep.departure_model import item_arrays, read_log
from prep.regression import clear_terms
from prep.return_model import ReturnFit, fit_returns, session_ends, standard_errors, train_visits
from tests.prep.test_departure_model import two_users
from tests.visit_logs import Truth, draw_visit_logs

SEEDS = range(5)
TERMS = [(part, name) for part in ("return", "gap") for name in ("satisfaction", "sessions")]


def standard(ends):
    return {name: (x - x.mean()) / x.std() for name, x in ends.features.items()}


@pytest.fixture(scope="module")
def small():
    """Ends of sessions of invented logs, their features, and a fit with all terms."""
    arrays = draw_visit_logs(1, users=150)
    log, _ = read_log(arrays, 30.0)
    ends = session_ends(log, arrays, item_arrays(arrays)["item_rate"], 30.0)
    terms = {part: ["satisfaction", "sessions"] for part in ("return", "gap")}
    known = standard(ends)
    return ends, known, terms, fit_returns(ends, known, terms, 2)


def test_ends_of_sessions_by_hand(monkeypatch):
    """User 0: a return after 119 minutes, then the end of the training log, which is the last time of all; user 1:
    not seen to return for 151 minutes."""
    monkeypatch.setattr("prep.departure_model.MIN_ENDS", 1)
    arrays = two_users()
    log, _ = read_log(arrays, 30.0)
    rate = item_arrays(arrays)["item_rate"]
    ends = session_ends(log, arrays, rate, 30.0)
    assert ends.user.tolist() == [0, 1]
    assert ends.row.tolist() == [2, 6]
    assert ends.returned.tolist() == [True, False]
    np.testing.assert_allclose(np.exp(ends.log_time), [(9000 - 1860) / 60 - 30, 9051 / 60 - 30])
    np.testing.assert_allclose(ends.features["sessions"], np.log([1, 1]))
    liked = np.array([1, 0, 1]) - rate
    np.testing.assert_allclose(ends.features["satisfaction"][0], liked.mean(), rtol=1e-6)
    assert return_model.sessions_so_far(log).tolist() == [1, 1, 1, 2, 2, 1, 1]
    assert return_model.training_sessions(log, arrays).tolist() == [2, 1]


def plain_likelihood(ends, known, fit):
    """One end at a time: pi f(g) for a return, 1 - pi F(c) otherwise."""
    values = []
    for i in range(len(ends.user)):
        features = np.array([known["satisfaction"][i], known["sessions"][i]])
        pi = 1 / (1 + np.exp(-fit.intercept - features @ fit.return_weights))
        gap = [
            stats.norm(m + features @ fit.gap_weights, s)
            for m, s in zip(fit.means, fit.scales, strict=True)
        ]
        mixture = zip(fit.weights, gap, strict=True)
        if ends.returned[i]:
            values.append(np.log(pi * sum(w * x.pdf(ends.log_time[i]) for w, x in mixture)))
        else:
            values.append(np.log(1 - pi * sum(w * x.cdf(ends.log_time[i]) for w, x in mixture)))
    return np.array(values)


def test_the_likelihood_and_its_slopes_by_hand(small):
    ends, known, terms, _ = small
    fit = ReturnFit(
        0.3, np.array([0.2, -0.4]), np.array([0.3, 0.7]), np.array([4.0, 8.0]), np.array([1.0, 0.5]),
        np.array([0.1, 0.3]),
    )  # fmt: skip
    part = ends._replace(
        user=ends.user[:40], returned=ends.returned[:40], log_time=ends.log_time[:40]
    )
    known = {name: x[:40] for name, x in known.items()}
    assert 5 < part.returned.sum() < 35
    designs = return_model._designs(part, known, terms)
    belief = return_model._expect(part, designs, fit)
    np.testing.assert_allclose(belief.log_likelihood, plain_likelihood(part, known, fit).sum())
    slopes = return_model._scores(part, designs, fit)
    at = fit.vector()
    assert slopes.shape == (40, len(at)) == (40, 10)
    np.testing.assert_allclose(fit.moved_to(at).vector(), at)
    for i in range(len(at)):
        step = 1e-5 * np.eye(len(at))[i]
        ahead, behind = (plain_likelihood(part, known, fit.moved_to(at + x)) for x in (step, -step))
        np.testing.assert_allclose(slopes[:, i], (ahead - behind) / 2e-5, atol=1e-5)


def test_the_fit_is_a_maximum(small):
    """No slope is left, and a step in any direction makes the likelihood smaller."""
    ends, known, terms, fit = small
    designs = return_model._designs(ends, known, terms)
    errors = standard_errors(ends, known, terms, fit)
    slopes = return_model._scores(ends, designs, fit).sum(axis=0)
    assert (np.abs(slopes * errors) < 0.05).all()
    at = fit.vector()
    best = return_model._expect(ends, designs, fit).log_likelihood
    for i, error in enumerate(errors):
        for sign in (-1, 1):
            moved = fit.moved_to(at + sign * error * np.eye(len(at))[i])
            assert return_model._expect(ends, designs, moved).log_likelihood < best


@pytest.mark.slow
def test_known_parameters_are_recovered():
    """Within two standard errors in nearly all of several draws, and with as many components as there are."""
    truth = Truth()
    inside, kept = [], dict.fromkeys(TERMS, 0)
    for seed in SEEDS:
        arrays = draw_visit_logs(seed)
        _, entry = train_visits(arrays, 30.0)
        log, _ = read_log(arrays, 30.0)
        ends = session_ends(log, arrays, item_arrays(arrays)["item_rate"], 30.0)
        scale = ends.features["sessions"].std()
        true = (
            truth.return_satisfaction, truth.return_sessions * scale, truth.gap_satisfaction,
            truth.gap_sessions * scale,
        )  # fmt: skip
        rows = {(row["part"], row["term"]): row for row in entry["table"]}
        for term, value in zip(TERMS, true, strict=True):
            row = rows[term]
            inside.append(abs(row["coefficient"] - value) <= 2 * row["error"])
            kept[term] += row["kept"]
            assert row["kept"] == (row["low"] > 0 or row["high"] < 0)
            assert row["kept"] == (term[1] in entry["terms"][term[0]])
        assert len(entry["means"]) == 2
        np.testing.assert_allclose(sorted(entry["weights"], reverse=True), truth.weights, atol=0.12)
        centre = np.array(truth.means) + truth.gap_sessions * ends.features["sessions"].mean()
        np.testing.assert_allclose(sorted(entry["means"]), centre, atol=0.3)
        np.testing.assert_allclose(entry["scales"], truth.scales, atol=0.25)
    assert np.mean(inside) >= 0.8
    assert kept[TERMS[0]] == kept[TERMS[1]] == kept[TERMS[3]] == len(SEEDS)
    assert kept[TERMS[2]] <= 2  # it has no effect


def test_only_training_interactions_are_read(monkeypatch):
    monkeypatch.setattr(return_model, "MAX_COMPONENTS", 1)
    arrays = draw_visit_logs(2, Truth(weights=(1.0,), means=(6.0,), scales=(1.0,)), users=250)
    fitted, entry = train_visits(arrays, 30.0)
    assert entry["returns"] >= 100
    user = np.repeat(np.arange(250), np.diff(arrays["user_offsets"]))
    order = np.argsort(np.r_[user, user], kind="stable")
    twice = {
        name: np.r_[x, x][order] if name.startswith("interaction_") else x
        for name, x in arrays.items()
    }
    twice["user_offsets"] = 2 * arrays["user_offsets"]
    later = np.r_[np.zeros(len(user), bool), np.ones(len(user), bool)][order]
    twice["interaction_split"][later] = 2
    twice["interaction_time"][later] += 10**9
    twice["interaction_label"][later] = 1
    again, same = train_visits(twice, 30.0)
    assert same == entry
    for name, array in fitted.items():
        np.testing.assert_array_equal(again[name], array)
    assert fitted["item_rate"].dtype == np.float32
    assert fitted["user_sessions"].dtype == np.int32


def test_gaps_that_are_all_equal_and_likes_that_never_differ_are_fitted():
    arrays = draw_visit_logs(
        3, replace(Truth(), scales=(0.0, 0.0), means=(6.0, 6.0), gap_sessions=0.0), users=250
    )
    arrays["interaction_label"][:] = 1
    _, entry = train_visits(arrays, 30.0)
    assert all(np.isfinite([row["error"] for row in entry["table"]]))
    np.testing.assert_allclose(entry["means"], 6.0, atol=0.02)
    assert {row["term"] for row in entry["table"]} == {"satisfaction", "sessions"} - {
        "satisfaction"
    }


def test_logs_without_returns_are_refused():
    arrays = draw_visit_logs(0, replace(Truth(), intercept=-5.0), users=60)
    fitted, entry = train_visits(arrays, 30.0)
    assert fitted is None
    assert entry["none_because"].endswith("gaps of more than 30 minutes, fewer than 100")
    arrays["interaction_time"][:] = 5
    assert train_visits(arrays, 30.0)[1]["none_because"] == "all times are equal"


def test_terms_are_dropped_until_all_are_clear():
    """ "b" is clear only beside "a", which is not."""

    def fit(names):
        return (
            [(1.0, 0.6), (1.0, 0.4), (1.0, 0.1)]
            if len(names) == 3
            else [(0.5, 0.4), (1.2, 0.1)][-len(names) :]
        )

    rows = clear_terms(["a", "b", "c"], fit)
    assert [rows[name]["kept"] for name in "abc"] == [False, False, True]
    assert [rows[name]["coefficient"] for name in "abc"] == [1.0, 0.5, 1.2]
