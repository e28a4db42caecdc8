import jax
import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from benchmarks import fidelity
from jaxsim import Dataset, make
from jaxsim.ensemble import majority_probability
from tests.factory import make_dataset, random_dataset


@pytest.fixture
def two_users() -> Dataset:
    """Ten interactions of user 0 (validation: position 8, test: 9); user 1 has four, all training."""
    items = [[0], [0], [1], [1], [0], [1], [0], [1], [0], [1]]
    return make_dataset(
        items,
        [[0]] * 10,
        [[1]] * 10,
        [(list(range(10)), [1, 0, 1, 1, 0, 0, 1, 1, 0, 1]), ([0, 1, 2, 3], [1, 1, 0, 0])],
    )


def test_events_see_what_came_before_and_nothing_of_another_user(two_users):
    validation, test = (fidelity.events_of(two_users, name) for name in ("validation", "test"))
    assert (validation.item.tolist(), test.item.tolist()) == ([8], [9])
    assert (test.user.tolist(), test.label.tolist()) == ([0], [1])
    assert test.history_items[0, -9:].tolist() == list(range(9))
    assert test.history_labels[0, -9:].tolist() == [1, 0, 1, 1, 0, 0, 1, 1, 0]
    assert (test.history_items[0, :-9] == -1).all()
    both = fidelity.events_of(two_users, "validation+test")
    assert both.item.tolist() == [8, 9]


def test_history_stops_at_the_users_first_interaction():
    dataset = make_dataset(
        [[0]] * 6,
        [[0]] * 6,
        [[0]] * 6,
        [([0, 1, 2], [1, 1, 1]), ([3, 4, 5, 0, 1], [0, 1, 0, 1, 0])],
    )
    test = fidelity.events_of(dataset, "test")
    assert test.item.tolist() == [1]
    assert test.history_items[0, -5:].tolist() == [-1, 3, 4, 5, 0]


def test_simple_predictors_by_hand(two_users):
    test = fidelity.events_of(two_users, "test")
    actual = fidelity.simple_predictors(two_users, test)
    # Training: user 0's first eight (likes 5), user 1's four (likes 2); item 9 was never seen in it.
    mean = 7 / 12
    item = mean
    running_n = sum(0.97**k for k in range(9))
    running_likes = sum(0.97 ** (8 - at) for at in (0, 2, 3, 6, 7))
    assert actual["bias"][0] == pytest.approx(item + (5 + 5 * mean) / (8 + 5))
    assert actual["bias_running"][0] == pytest.approx(
        item + (running_likes + 5 * mean) / (running_n + 5)
    )
    # Items 2, 3, 5 and 7 are of item 9's category; of these 2, 3 and 7 were liked.
    assert actual["counts"][0] == pytest.approx((3 + 5 * mean) / (4 + 5))


def test_margins_are_those_of_respond():
    dataset = random_dataset(3, max_sequence=30)
    env, params = make(dataset, history_length=8, session_capacity=12, users="all")
    events = fidelity.events_of(dataset, "validation+test")
    actual = fidelity.margins(env, params, events)
    for at in range(0, len(events.user), 7):
        decision = env.respond(
            jax.random.key(0),
            events.history_items[at],
            events.history_labels[at],
            events.item[at],
            params,
            user=events.user[at],
        )
        sides = [
            -1.0 if np.isneginf(b) else float(b) for b in (decision.beta_pos, decision.beta_neg)
        ]
        assert actual["f_mat"][at] == int(decision.alpha_pos) - int(decision.alpha_neg)
        assert actual["f_sim"][at] == pytest.approx(sides[0] - sides[1], abs=1e-6)
        assert actual["f_sta"][at] == pytest.approx(float(decision.sta_probability), abs=1e-5)


def test_vote_expected_reward_and_calibration_by_hand():
    assert fidelity.vote(np.array([-2.0, 0.0, 0.5])).tolist() == [0.0, 0.5, 1.0]
    half = np.array([0.5])
    one, zero = np.ones(1), np.zeros(1)
    assert majority_probability(half, half, one)[0] == 0.75
    assert majority_probability(half, zero, one)[0] == 0.5
    assert majority_probability(one, zero, zero)[0] == 0.0
    # Bin [0.2, 0.3): mean 0.25 against 0; bin [0.9, 1]: mean 0.95 against 1.
    labels, probabilities = np.array([0, 0, 1, 1]), np.array([0.2, 0.3 - 1e-9, 0.9, 1.0])
    assert fidelity.calibration_error(labels, probabilities) == pytest.approx(
        0.5 * 0.25 + 0.5 * 0.05
    )


def test_permuting_moves_words_and_vectors_together(two_users):
    arrays = fidelity.permuted(random_dataset(1), seed=0)
    original = random_dataset(1).arrays
    rows = {
        tuple(k) + tuple(e)
        for k, e in zip(original["item_pos_keywords"], original["item_pos_embedding"], strict=True)
    }
    moved = [
        tuple(k) + tuple(e)
        for k, e in zip(arrays["item_pos_keywords"], arrays["item_pos_embedding"], strict=True)
    ]
    assert set(moved) == rows
    assert (arrays["item_pos_keywords"] != original["item_pos_keywords"]).any()
    assert (arrays["item_categories"] == original["item_categories"]).all()


def test_soft_score_is_fitted_on_the_labels_given_only():
    rng = np.random.default_rng(0)
    scores = {name: rng.uniform(0.05, 0.95, 200) for name in ("f_mat", "f_sim", "f_sta")}
    labels = (scores["f_sim"] > 0.5).astype(int)
    assert roc_auc_score(labels, fidelity.soft_score(scores, scores, labels)) > 0.95
    assert roc_auc_score(labels, fidelity.soft_score(scores, scores, 1 - labels)) < 0.05
