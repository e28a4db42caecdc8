"""The taste model as a predictor: probabilities, fits on changed data, and keywords taken away."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxsim
from benchmarks.fidelity import taste
from benchmarks.fidelity.cold_items import unseen_folds
from benchmarks.fidelity.events import events_of
from benchmarks.fidelity.predictor import CannotFitError, Predictor
from benchmarks.fidelity.study import Settings, Study
from benchmarks.fidelity.taste import TASTE
from benchmarks.fidelity.variants import with_labels, with_permuted_keywords, without_interactions
from jaxsim import Dataset
from tests.benchmarks.fidelity.conftest import training_data
from tests.factory import make_dataset

WITH, WITHOUT = TASTE


def scores(predictor: Predictor, dataset: Dataset, **settings) -> np.ndarray:
    return predictor.fit(training_data(dataset, **settings)).predict(events_of(dataset, "test"))


def test_scores_are_the_probabilities_of_the_calibrated_environment(people):
    events = events_of(people, "test")
    env, params = jaxsim.make(people, semantics="calibrated", repeats="allow")
    items = jnp.where(events.present, events.history_items, -1)

    def respond(items, likes, candidate):
        return env.respond(jax.random.key(0), items, likes, candidate, params).probability

    expected = jax.vmap(respond)(items, jnp.asarray(events.history_labels), events.item)
    np.testing.assert_allclose(scores(WITH, people), expected, atol=1e-5)


def test_without_keywords_the_vectors_do_not_matter(people):
    """And with them they do."""
    permuted = with_permuted_keywords(people, 0)
    np.testing.assert_array_equal(scores(WITHOUT, people), scores(WITHOUT, permuted))
    assert (scores(WITH, people) != scores(WITH, permuted)).any()


@pytest.mark.parametrize("predictor", TASTE, ids=lambda p: p.name)
def test_changed_labels_are_learnt(people, predictor):
    """With every training label a like, any item is liked more than with every label a dislike."""
    labels = np.ones_like(people.arrays["interaction_label"])
    liked, disliked = (
        predictor.fit(training_data(with_labels(people, x), changed=True)) for x in (labels, 1 - labels)
    )  # fmt: skip
    events = events_of(people, "test")
    assert (liked.predict(events) > disliked.predict(events)).all()


def test_an_unseen_item_gets_no_effect_of_its_own(people):
    """Items without interactions and without keywords, categories and years in common with others: mean only."""
    item = people.arrays["interaction_item"]
    apart = {name: np.array(x) for name, x in people.arrays.items()}
    apart["item_categories"][0] = -1
    for side in ("pos", "neg"):
        apart[f"item_{side}_embedding"][0] = 0
    assert people.taste is not None
    years = {**people.taste, "item_year": people.taste["item_year"].copy()}
    years["item_year"][0] = np.nan
    bare = without_interactions(replace(people, arrays=apart, taste=years), item == 0)
    parameters = WITH.fit(replace(training_data(people), dataset=bare, changed=True)).parameters
    assert parameters["item_effect"][0] == 0
    assert (parameters["item_effect"][1:] != 0).any()


def test_weights_are_fitted_once_and_without_the_labels_of_the_fold(people, monkeypatch):
    seen = []
    original = taste.train_taste

    def train(arrays, *rest):
        seen.append(len(arrays["interaction_item"]))
        return original(arrays, *rest)

    monkeypatch.setattr(taste, "train_taste", train)
    study = Study.of(people, Settings(resamples=2), TASTE)
    unseen = unseen_folds(study)[0]
    for ratings in (unseen, replace(study.data, changed=True, weights_from=unseen)):
        study.fit(ratings)
    assert seen == [len(unseen.dataset.arrays["interaction_item"])] * 2  # with and without keywords
    assert seen[0] < len(people.arrays["interaction_item"])


def test_what_lacks_is_said(people):
    with pytest.raises(CannotFitError, match="needs a dataset with a taste model: build it again"):
        WITH.fit(training_data(replace(people, taste=None)))
    sequences = [(list(range(10)), [0, 1] * 5), (list(range(9, -1, -1)), [0, 1, 1, 0, 1] * 2)]
    bare = make_dataset([[0]] * 10, [[]] * 10, [[]] * 10, sequences)
    with pytest.raises(CannotFitError, match="is the same as taste: no item has keywords"):
        WITHOUT.fit(training_data(bare))
    everything = np.ones(len(people.arrays["interaction_item"]), bool)
    nothing = without_interactions(people, everything)
    with pytest.raises(CannotFitError, match="needs training interactions"):
        WITH.fit(replace(training_data(people), dataset=nothing, changed=True))
