from itertools import pairwise

import numpy as np
import pytest

from benchmarks.fidelity.cold_items import (
    FOLDS,
    cold_items,
    cold_scores,
    item_folds,
    training_rank,
    unseen_folds,
)
from benchmarks.fidelity.predictor import CannotFitError, Fitted, Predictor
from benchmarks.fidelity.study import Settings, Study
from jaxsim.dataset import TRAIN
from tests.factory import make_dataset


def test_folds_part_the_items_evenly():
    fold = item_folds(23, seed=0)
    assert np.bincount(fold).tolist() == [5, 5, 5, 4, 4]
    assert (fold != item_folds(23, seed=1)).any()


def test_ranks_order_the_training_ratings_of_each_item(people):
    rank = training_rank(people, seed=0)
    item, split = (people.arrays[f"interaction_{n}"] for n in ("item", "split"))
    for number in range(people.num_items):
        own = np.sort(rank[(item == number) & (split == TRAIN)])
        assert own.tolist() == list(range(len(own)))
    assert (rank[split != TRAIN] > 10**9).all()
    assert (rank != training_rank(people, seed=1)).any()


def test_the_smaller_choices_are_parts_of_the_larger_ones(people):
    rank = training_rank(people, seed=0)
    chosen = [set(np.flatnonzero(rank < ratings)) for ratings in (0, 1, 2, 5)]
    assert all(a <= b for a, b in pairwise(chosen))


@pytest.mark.parametrize("ratings", [0, 2])
def test_nothing_of_a_cold_item_is_seen_beyond_its_ratings(people, ratings):
    seen = []

    def fit(data):
        assert data.changed
        items = data.dataset.arrays["interaction_item"]
        train = data.dataset.arrays["interaction_split"] == TRAIN
        counts = np.bincount(items, minlength=people.num_items)
        in_training = np.bincount(items[train], minlength=people.num_items)

        def predict(events):
            cold = np.unique(events.item)
            assert (in_training[cold] <= ratings).all()
            assert (counts[cold] == in_training[cold]).all()  # no validation and test labels either
            if ratings == 0:
                assert not np.isin(events.history_items, cold).any()
                assert not np.isin(data.validation.history_items, cold).any()
            seen.append(len(events))
            return np.zeros(len(events))

        return Fitted(predict)

    study = Study.of(people, Settings(resamples=5))
    scores = cold_scores(
        study, [Predictor("spy", "baseline", "", fit, refit="fast")], ratings, unseen_folds(study)
    )
    assert len(seen) == FOLDS
    assert sum(seen) == len(study.events)  # each event is judged once
    assert (scores["spy"] == 0).all()


def test_with_ratings_enough_the_fit_is_the_usual_one_but_for_other_splits(people):
    """All training ratings stay, so only validation and test interactions of the fold are missing."""
    study = Study.of(people, Settings(resamples=5))
    bias = [p for p in study.predictors if p.name == "bias"]
    usual = study.fit(study.data, bias)["bias"].predict(study.events)
    np.testing.assert_allclose(cold_scores(study, bias, 10**6, unseen_folds(study))["bias"], usual)


def test_a_predictor_that_fails_in_a_fold_is_left_out(people):
    calls = []

    def fit(data):
        calls.append(None)
        if len(calls) == 3:
            raise CannotFitError("has had enough")
        return Fitted(lambda events: np.zeros(len(events)))

    study = Study.of(people, Settings(resamples=5))
    moody = Predictor("moody", "baseline", "", fit, refit="fast")
    assert cold_scores(study, [moody], 0, unseen_folds(study)) == {}
    assert study.notes[-1] == "moody: left out, because it has had enough"


def test_the_curve_has_slow_predictors_in_its_first_row_only(people):
    def zeros(data):
        return Fitted(lambda events: np.zeros(len(events)))

    predictors = (
        Predictor("fast", "model", "", zeros, refit="fast"),
        Predictor("slow", "model", "", zeros, refit="slow"),
        Predictor("packed", "model", "", zeros),
    )
    for refit, expected in ((True, {"fast", "slow"}), (False, {"fast"})):
        study = Study.of(people, Settings(resamples=5, refit_f_sta=refit), predictors)
        result = cold_items(study, None)
        assert set(result["cold_items"]) == expected
        assert [row["ratings"] for row in result["cold_curve"]] == [0, 1, 5]
        assert all(set(row["auc"]) == {"fast"} for row in result["cold_curve"][1:])


def test_it_takes_as_many_items_as_folds():
    sequences = [(list(range(4)) * 2, [0, 1] * 4)]
    study = Study.of(
        make_dataset([[0]] * 4, [[0]] * 4, [[0]] * 4, sequences), Settings(resamples=5)
    )
    assert cold_items(study, None) == {"cold_items": {}, "cold_curve": []}
    assert study.notes[-1] == "cold items: skipped, because it takes 5 items"
