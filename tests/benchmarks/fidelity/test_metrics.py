import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, brier_score_loss, roc_auc_score
from sklearn.metrics import log_loss as sklearn_log_loss

from benchmarks.fidelity import metrics
from benchmarks.fidelity.bootstrap import UserBootstrap


def sample(seed: int, levels: int, count: int = 60):
    """Users, labels and scores with ties on a grid of `levels` numbers."""
    rng = np.random.default_rng(seed)
    users = rng.integers(0, 8, count)
    labels = rng.integers(0, 2, count).astype(np.int8)
    scores = rng.integers(0, levels, count) / levels
    return users, labels, scores


def repeated(bootstrap: UserBootstrap, row: int, *values: np.ndarray) -> list[np.ndarray]:
    """Values of the events of a resample, each as often as its user was drawn."""
    times = bootstrap.weights[row].astype(int)[bootstrap.code]
    return [np.repeat(x, times) for x in values]


def within(labels, scores, blocks) -> float:
    """ROC-AUC over pairs in one block, pair by pair."""
    wins = pairs = 0.0
    for liked in np.flatnonzero(labels == 1):
        for other in np.flatnonzero((labels == 0) & (blocks == blocks[liked])):
            pairs += 1
            wins += (scores[liked] > scores[other]) + 0.5 * (scores[liked] == scores[other])
    return wins / pairs if pairs else float("nan")


@pytest.mark.parametrize("levels", [1, 3, 1000])
def test_ranking_metrics_agree_with_scikit_learn_on_repeated_samples(levels):
    users, labels, scores = sample(levels, levels)
    bootstrap = UserBootstrap(users, 12, 0)
    auc = metrics.auc(bootstrap, labels, scores)
    precision = metrics.dislike_precision(bootstrap, labels, scores)
    assert auc.shape == precision.shape == (13,)
    for row in range(13):
        y, s = repeated(bootstrap, row, labels, scores)
        assert auc[row] == pytest.approx(roc_auc_score(y, s), abs=1e-12)
        assert precision[row] == pytest.approx(average_precision_score(1 - y, -s), abs=1e-12)


def test_the_resamples_are_worked_on_in_chunks(monkeypatch):
    users, labels, scores = sample(0, 20)
    bootstrap = UserBootstrap(users, 30, 0)
    whole = (
        metrics.auc(bootstrap, labels, scores),
        metrics.dislike_precision(bootstrap, labels, scores),
    )
    monkeypatch.setattr(metrics, "_CELLS_AT_ONCE", 70)
    parts = (
        metrics.auc(bootstrap, labels, scores),
        metrics.dislike_precision(bootstrap, labels, scores),
    )
    np.testing.assert_allclose(parts, whole)


@given(st.integers(0, 10**6), st.integers(1, 8), st.integers(1, 6))
@settings(max_examples=40, deadline=None)
def test_auc_within_blocks_counts_the_pairs_of_a_block(seed, levels, num_blocks):
    users, labels, scores = sample(seed, levels, 25)
    blocks = np.random.default_rng(seed).integers(0, num_blocks, 25)
    bootstrap = UserBootstrap(users, 3, seed)
    actual = metrics.auc(bootstrap, labels, scores, blocks)
    for row in range(4):
        expected = within(*repeated(bootstrap, row, labels, scores, blocks))
        assert actual[row] == pytest.approx(expected, abs=1e-12, nan_ok=True)


def test_auc_within_items_by_hand():
    # Item 0: like 0.9 against dislikes 0.1, 0.9 (1 and 1/2); item 1: like 0.2 against dislike 0.3 (0).
    labels = np.array([1, 0, 0, 1, 0], np.int8)
    scores = np.array([0.9, 0.1, 0.9, 0.2, 0.3])
    items = np.array([0, 0, 0, 1, 1])
    bootstrap = UserBootstrap(np.arange(5), 0, 0)
    assert metrics.auc(bootstrap, labels, scores, items)[0] == pytest.approx(1.5 / 3)


@pytest.mark.parametrize("label", [0, 1])
def test_one_class_has_no_auc(label):
    labels = np.full(6, label, np.int8)
    bootstrap = UserBootstrap(np.arange(6), 4, 0)
    assert np.isnan(metrics.auc(bootstrap, labels, np.arange(6.0))).all()
    precision = metrics.dislike_precision(bootstrap, labels, np.arange(6.0))
    assert np.isnan(precision).all() if label else (precision == 1).all()


def test_losses_agree_with_scikit_learn():
    users, labels, scores = sample(5, 1000)
    probabilities = 0.01 + 0.98 * scores
    bootstrap = UserBootstrap(users, 6, 0)
    loss = metrics.log_loss(bootstrap, labels, probabilities)
    brier = metrics.brier_score(bootstrap, labels, probabilities)
    for row in range(7):
        y, p = repeated(bootstrap, row, labels, probabilities)
        assert loss[row] == pytest.approx(sklearn_log_loss(y, p, labels=[0, 1]))
        assert brier[row] == pytest.approx(brier_score_loss(y, p))
    certain = metrics.log_loss(bootstrap, labels, 1.0 - labels)
    assert np.isfinite(certain).all()
    assert certain[0] == pytest.approx(sklearn_log_loss(labels, 1.0 - labels, labels=[0, 1]))


def test_calibration_error_by_hand():
    # Bin [0.2, 0.3): mean 0.25 against 0; bin [0.9, 1]: mean 0.95 against 1.
    labels, probabilities = np.array([0, 0, 1, 1], np.int8), np.array([0.2, 0.3 - 1e-9, 0.9, 1.0])
    bootstrap = UserBootstrap(np.array([0, 1, 0, 1]), 8, 0)
    actual = metrics.calibration_error(bootstrap, labels, probabilities)
    assert actual[0] == pytest.approx(0.5 * 0.25 + 0.5 * 0.05)
    for row in range(9):
        y, p = repeated(bootstrap, row, labels, probabilities)
        low = p < 0.5
        gaps = [len(y[m]) / len(y) * abs(y[m].mean() - p[m].mean()) for m in (low, ~low) if m.any()]
        assert actual[row] == pytest.approx(sum(gaps))


def test_bins_hold_their_ends():
    assert metrics.bins_of(np.array([0.0, 0.05, 0.1, 0.999, 1.0])).tolist() == [0, 0, 1, 9, 9]
