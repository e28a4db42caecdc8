"""The recommenders that are ranked: from bad to good, by like rates, by models, at random, and mixtures of these.

A policy gives a score to each candidate and picks the highest ones of each user. Nothing that it knows comes from
the test split.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
from scipy import sparse

from agents.evaluation.baselines import training_counts
from benchmarks.fidelity.study import Study
from benchmarks.validity.replay import Replay
from benchmarks.validity.settings import EPSILON, RANDOM
from jaxsim import Dataset
from jaxsim.dataset import TRAIN

EPSILONS = (0.25, 0.5, 0.75)
MIXED = ("like_rate", "taste")  # the policies that mixtures with chance are made of
_USERS_AT_ONCE = 64  # rows of a matrix with a column for each item


@dataclass(frozen=True, eq=False)
class Policy:
    """A policy with its picks.

    Attributes:
        name: lower case, with underscores.
        about: what it picks, in a few words.
        picked: bool[E], the candidates that it picks.
        greedy_on: the simulators whose highest probabilities these are.
        built_on: the simulators that it depends on: those that it is greedy on, or a mixture of chance with such.
        same_as: other policies with the same picks, which are left out.
    """

    name: str
    about: str
    picked: np.ndarray
    greedy_on: frozenset[str] = frozenset()
    built_on: frozenset[str] = frozenset()
    same_as: tuple[str, ...] = ()


def policies(
    study: Study, replay: Replay, probabilities: Mapping[str, np.ndarray]
) -> tuple[Policy, ...]:
    """All policies, each with different picks.

    Args:
        study: for the training data; notes what cannot be made.
        replay: what they pick from.
        probabilities: of its candidates, by simulator.
    """
    count = replay.settings.picks
    scores = {name: (about, score) for name, about, score in _plain(study, replay)}
    simple = [
        Policy(name, about, replay.place(score) < count) for name, (about, score) in scores.items()
    ]
    greedy = [
        Policy(
            f"greedy_{name}",
            f"what {name} finds most probable to be liked",
            replay.place(probability) < count,
            greedy_on=frozenset({name}),
            built_on=frozenset({name}),
        )
        for name, probability in probabilities.items()
    ]
    distinct = _distinct([*simple, *greedy])
    base = {"like_rate": scores["like_rate"][1], "taste": probabilities.get("taste")}
    built_on = {name: p.built_on for p in distinct for name in (p.name, *p.same_as)}
    mixtures: list[Policy] = []
    for name in MIXED:
        score, origin = base[name], built_on.get(name, built_on.get(f"greedy_{name}"))
        if score is not None and origin is not None:
            mixtures += _with_chance(replay, name, score, origin)
    return _distinct([*distinct, *mixtures])


def _plain(study: Study, replay: Replay) -> Iterator[tuple[str, str, np.ndarray]]:
    """Name, description and scores float64[E] of the policies that need no simulator."""
    counts, likes = training_counts(replay.dataset)
    item, rate = replay.candidates.item, study.data.item_rate
    random = replay.settings.rng(RANDOM).random(len(item))
    yield "random", "any items, uniformly", random
    yield "popular", "the items with the most training ratings", counts[item]
    yield "unpopular", "the items with the fewest training ratings", -counts[item]
    yield "most_liked", "the items with the most training likes", likes[item]
    yield "like_rate", "the items with the highest smoothed training like rate", rate[item]
    yield "reverse_like_rate", "the items with the lowest smoothed like rate", -rate[item]
    yield "item_knn", "items that people liked who liked the same", _item_knn(replay)
    year = None if replay.dataset.taste is None else replay.dataset.taste["item_year"][item]
    if year is None or np.isnan(year).all():
        study.note("newest, oldest: left out, because no item has a year")
        return
    for name, sign in (("newest", 1.0), ("oldest", -1.0)):
        yield name, f"the {name} items", np.nan_to_num(sign * year.astype(np.float64), nan=-np.inf)


def _with_chance(
    replay: Replay, name: str, score: np.ndarray, origin: frozenset[str]
) -> Iterator[Policy]:
    """Epsilon-greedy policies: each pick is any item with probability epsilon, otherwise the best one left."""
    settings = replay.settings
    for number, epsilon in enumerate(EPSILONS):
        rng = settings.rng(EPSILON, len(EPSILONS) * MIXED.index(name) + number)
        chance = rng.binomial(settings.picks, epsilon, replay.bootstrap.num_users)
        by_chance = replay.place(rng.random(len(score))) < chance[replay.code]
        place = replay.place(np.where(by_chance, np.inf, score))
        about = f"{name}, but each pick is any item with probability {epsilon:g}"
        picked = place < settings.picks
        yield Policy(f"{name}_epsilon_{100 * epsilon:.0f}", about, picked, built_on=origin)


def _item_knn(replay: Replay) -> np.ndarray:
    """Sum of the cosines of each candidate to the liked items of the history, float64[E].

    The vector of an item is who liked it in the training split.
    """
    liked_by = _likes(replay.dataset)
    norms = np.sqrt(np.asarray(liked_by.sum(axis=0)).ravel())
    vectors = sparse.csc_array(liked_by @ sparse.diags_array(1 / np.maximum(norms, 1.0)))
    events, first = replay.candidates, replay.first
    items, present = events.history_items[first], events.present[first]
    user, place = np.nonzero(present & (events.history_labels[first] > 0))
    shape = (len(first), replay.dataset.num_items)
    history = sparse.csr_array((np.ones(len(user)), (user, items[user, place])), shape=shape)
    by_people = sparse.csr_array(history @ vectors.T)
    scores = np.empty(len(events))
    for low in range(0, len(first), _USERS_AT_ONCE):
        inside = np.flatnonzero((replay.code >= low) & (replay.code < low + _USERS_AT_ONCE))
        cosines = sparse.csr_array(by_people[low : low + _USERS_AT_ONCE] @ vectors).toarray()
        scores[inside] = cosines[replay.code[inside] - low, events.item[inside]]
    return scores


def _likes(dataset: Dataset) -> sparse.csr_array:
    """Who liked what in the training split, float64[U, N]."""
    arrays = dataset.arrays
    liked = (arrays["interaction_split"] == TRAIN) & (arrays["interaction_label"] > 0)
    place = dataset.interaction_user()[liked], arrays["interaction_item"][liked]
    shape = (dataset.num_users, dataset.num_items)
    return sparse.csr_array((np.ones(liked.sum()), place), shape=shape)


def _distinct(candidates: list[Policy]) -> tuple[Policy, ...]:
    """The policies without those that pick the same as an earlier one, which remembers them."""
    kept: dict[bytes, Policy] = {}
    for policy in candidates:
        key = np.packbits(policy.picked).tobytes()
        first = kept.setdefault(key, policy)
        if first is not policy:
            kept[key] = replace(
                first,
                greedy_on=first.greedy_on | policy.greedy_on,
                built_on=first.built_on | policy.built_on,
                same_as=(*first.same_as, policy.name),
            )
    return tuple(kept.values())
