import pytest

from benchmarks.fidelity.page.words import best_model, percent, range_of, sentences, verdict


def estimate(value, low=None, high=None):
    return {"value": value, "low": low, "high": high}


@pytest.mark.parametrize(
    ("difference", "expected"),
    [
        (estimate(0.1, 0.05, 0.2), "is better than"),
        (estimate(-0.1, -0.2, -0.05), "is worse than"),
        (estimate(0.1, -0.05, 0.2), "is not clearly different from"),
        (estimate(0.1), "cannot be compared with"),
        (None, "cannot be compared with"),
    ],
)
def test_the_interval_decides(difference, expected):
    assert verdict(difference) == expected


def test_shares():
    assert percent(0.6725) == "67.2%"
    assert percent(None) == "-"
    assert range_of(estimate(0.5, 0.25, 0.75)) == " (25.0% to 75.0%)"
    assert range_of(estimate(0.5)) == ""


@pytest.mark.parametrize(
    ("error", "meaning"),
    [
        (estimate(0.1, 0.05, 0.2), "too easily pleased"),
        (estimate(-0.1, -0.2, -0.05), "too hard to please"),
        (estimate(0.0, -0.1, 0.1), "about as hard to please as people"),
    ],
)
def test_whether_users_are_easily_pleased(result, error, meaning):
    changed = {**result, "like_rate_error": {**result["like_rate_error"], "paper": error}}
    assert any(meaning in sentence for sentence in sentences(changed))


def test_the_best_model_is_the_first_that_was_judged(result):
    assert best_model(result) == "taste"
    assert best_model({"auc": {"f_sta": estimate(0.9), "soft": estimate(0.8)}}) == "soft"
    assert best_model({"auc": {}}) is None


def test_what_is_not_defined_is_not_said(result):
    nothing = estimate(None)
    changed = {
        **result,
        "auc": dict.fromkeys(result["auc"], nothing),
        "like_rate_error": {},
        "ece": {},
        "controls": {},
        "cold_items": {},
        "cold_curve": [],
    }
    assert sentences(changed) == []


def test_the_gain_by_keywords_on_new_items_is_said(result):
    row = {**result["cold_curve"][0], "keyword_gain": {"taste": estimate(0.02, 0.01, 0.03)}}
    last = sentences({**result, "cold_curve": [row]})[-1]
    assert "keywords change the ROC-AUC of taste by +2.0 points (+1.0% to +3.0%)" in last
