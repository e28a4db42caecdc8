from dataclasses import replace

import numpy as np
import pytest

from benchmarks.fidelity.controls import controls
from benchmarks.fidelity.predictor import Fitted, Predictor
from benchmarks.fidelity.study import Settings, Study, predictions
from benchmarks.fidelity.variants import with_labels
from jaxsim import Dataset
from tests.factory import make_dataset, random_dataset

pytestmark = pytest.mark.slow  # they measure whole reports


def controls_of(study: Study):
    fitted = study.fit(study.data)
    return controls(study, predictions(fitted, study.events), fitted)


@pytest.fixture(scope="module")
def opinionated() -> Dataset:
    """Half of 200 users like everything, the others nothing; half of the items are liked by everybody."""
    dataset = random_dataset(7, num_users=200, max_sequence=30)
    user, item = dataset.interaction_user(), dataset.arrays["interaction_item"]
    labels = (user % 2 == 1) | (item % 4 == 0)
    return with_labels(dataset, labels.astype(np.int8))


def test_with_exchanged_histories_nothing_personal_is_left(opinionated):
    result = controls_of(Study.of(opinionated, Settings(resamples=20, repeats=8)))
    assert result["bias_running_within_item"]["value"] > 0.95
    for name in ("bias_running", "bias", "bias_residual", "taste"):
        assert abs(result[f"{name}_exchanged"]["value"] - 0.5) < 0.1


def test_with_shuffled_labels_nothing_is_left(opinionated):
    result = controls_of(Study.of(opinionated, Settings(resamples=20, repeats=8)))
    for name in ("bias_running", "bias", "bias_residual", "counts", "taste"):
        assert abs(result[f"{name}_labels_shuffled"]["value"] - 0.5) < 0.1
    assert "f_sta_labels_shuffled" not in result  # to train it again takes long
    assert "f_mat_labels_shuffled" not in result  # it is not fitted


def test_shuffled_labels_are_what_a_predictor_sees_but_not_what_it_is_judged_by(people):
    def fit(data):
        assert data.changed == bool(
            (data.dataset.arrays["interaction_label"] != people.arrays["interaction_label"]).any()
        )
        return Fitted(lambda events: events.label.astype(float), {"anything": np.zeros(1)})

    spy = Predictor("spy", "model", "", fit, refit="fast")
    result = controls_of(Study.of(people, Settings(resamples=5, repeats=4), (spy,)))
    assert result["spy_within_item"]["value"] == 1.0
    assert 0.2 < result["spy_labels_shuffled"]["value"] < 0.8


def test_permuted_keywords_reach_the_dataset_and_the_simulator(people):
    seen = []

    def fit(data):
        seen.append(
            (data.dataset.arrays["item_pos_keywords"].tobytes(), data.simulator, data.changed)
        )
        return Fitted(lambda events: data.simulator.margins(events)[0])

    words = Predictor("words", "model", "", fit, refit="fast", uses_keywords=True)
    others = Predictor("others", "model", "", fit, refit="fast")
    result = controls_of(Study.of(people, Settings(resamples=5, repeats=3), (words, others)))
    assert "words_permuted" in result
    assert "others_permuted" not in result
    assert len({keywords for keywords, *_ in seen}) == 4  # the dataset's own and three permutations
    assert len({id(simulator) for _, simulator, _ in seen}) == 4


def test_the_best_model_gives_the_control_its_plain_name(people):
    result = controls_of(Study.of(people, Settings(resamples=5, repeats=2)))
    assert result["exchanged"] == result["taste_exchanged"]


def test_without_keywords_they_are_not_permuted():
    sequences = [(list(range(10)), [0, 1] * 5), (list(range(9, -1, -1)), [0, 1, 1, 0, 1] * 2)]
    bare = make_dataset([[0]] * 10, [[]] * 10, [[]] * 10, sequences)
    study = Study.of(bare, Settings(resamples=5, repeats=2))
    result = controls_of(study)
    assert not any(name.endswith("_permuted") for name in result)
    assert "permuted keywords: skipped, because no item has keywords" in study.notes


def test_one_user_has_nobody_to_exchange_with(two_users):
    study = Study.of(two_users, Settings(resamples=5, repeats=2))
    assert not any("exchanged" in name for name in controls_of(study))
    assert any(line.startswith("exchanged histories: skipped") for line in study.notes)


@pytest.mark.parametrize(
    ("counts", "line"),
    [
        ({}, "reviews: the manifest does not say whether keywords come from reviews"),
        (
            {"review_replies": 0, "review_replies_not_training": 0},
            "reviews: no keyword comes from a review, so there are no test reviews to remove",
        ),
        (
            {"review_replies": 1200, "review_replies_not_training": 34},
            "reviews: keywords come from 1,200 training reviews; replies to 34 other reviews were removed when "
            "the dataset was built",
        ),
    ],
)
def test_it_is_said_whether_test_reviews_are_among_the_keywords(people, counts, line):
    dataset = replace(people, manifest={**people.manifest, "counts": counts})
    study = Study.of(dataset, Settings(resamples=5, repeats=1), ())
    controls_of(study)
    assert line in study.notes
