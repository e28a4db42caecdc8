"""Explanations of random questions: the simulator's own numbers, and flips by brute force."""

import dataclasses
import math

import jax
import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from jaxsim.explanation.counterfactuals import MAX_REMOVALS
from jaxsim.explanation.explain import explain
from tests import reference
from tests.conftest import Simulator
from tests.jaxsim.explanation_questions import LONG, ROUNDING, ask, questions


def votes_of(explanation):
    return [vote.vote for vote in explanation.votes]


# ---- the simulator's own numbers -------------------------------------------------------------------------


NEW_KEYWORD = 10**6  # that no item has


def decided(sta_probability: float) -> float:
    """The probability, where rounding does not decide the vote of f_sta."""
    assume(abs(sta_probability - 0.5) > ROUNDING)
    return sta_probability


def check_numbers(answer, decision):
    assert (answer.alpha_pos, answer.alpha_neg) == (decision.alpha_pos, decision.alpha_neg)
    for beta, interaction, expected in (
        (answer.beta_pos, answer.most_similar_liked, decision.beta_pos),
        (answer.beta_neg, answer.most_similar_disliked, decision.beta_neg),
    ):
        assert (-math.inf if beta is None else beta) == expected
        assert beta == (None if interaction is None else interaction.cosine)
    assert decided(answer.sta_probability) == pytest.approx(
        float(decision.sta_probability), abs=ROUNDING
    )
    reasons = decision.reasons
    assert [x.position for x in answer.history] == np.flatnonzero(reasons.considered).tolist()
    for x in answer.history:
        assert x.liked == reasons.liked[x.position]
        assert len(x.matched) == reasons.matched[x.position]
        assert (-math.inf if x.cosine is None else x.cosine) == reasons.cosine[x.position]
    tied = [vote.tied for vote in answer.votes]
    assert tied == [*reasons.tied.tolist(), False]
    if answer.coins_open:
        expected = [None if t else v for t, v in zip(tied, decision.votes.tolist(), strict=True)]
        assert votes_of(answer) == expected
    else:
        assert votes_of(answer) == decision.votes.tolist()
        assert answer.like == decision.response.like
        coins = zip(reasons.coins.tolist(), tied, strict=False)
        assert [v.coin for v in answer.votes[:2]] == [c if t else None for c, t in coins]


@settings(deadline=None, max_examples=25)
@given(question=questions())
def test_the_numbers_are_those_of_respond(random_simulator, question):
    items, labels, candidate, user, key = question
    answer = explain(*random_simulator, items, labels, candidate, user, key)
    check_numbers(answer, ask(random_simulator, *question))
    counts = {"pro": answer.alpha_pos, "con": answer.alpha_neg}
    for polarity, alpha in counts.items():
        positions = [len(k.positions) for k in answer.matched if k.polarity == polarity]
        assert sum(positions) == alpha
    assert answer.history_length == sum(i >= 0 for i in items)


@settings(deadline=None, max_examples=6)
@given(question=questions(longest=LONG))
def test_a_history_longer_than_the_window_is_explained_as_respond_judges_it(
    paper_simulator, question
):
    items, labels, candidate, user, key = question
    assume(sum(i >= 0 for i in items) > paper_simulator.env.window)
    answer = explain(*paper_simulator, items, labels, candidate, user, key)
    check_numbers(answer, ask(paper_simulator, *question))


# ---- flips by brute force --------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class World:
    """The NumPy reference of a question: `leaning` is the sign of a decision, 0 where coins leave it open."""

    simulator: Simulator
    items: list[reference.Item]
    candidate: int
    user: int
    coins: tuple[int, int] | None

    def sta(self, history) -> float:
        env = self.simulator.env
        logit = reference.sta_logit(
            self.simulator.dataset.sasrec, history[-env.window :], self.candidate, self.user,
            num_blocks=1,
        )  # fmt: skip
        return decided(reference.probability(logit))

    def leaning(self, history, sta: float, items=None) -> int:
        args = self.items if items is None else items, history, self.candidate, sta
        semantics = self.simulator.env.semantics
        if self.coins is None:
            like = reference.expected_response(*args, semantics)
        else:
            like = reference.respond(*args, self.coins, semantics).reward
        return int(np.sign(like - 0.5))

    def with_keywords(self, polarity: int, keywords: frozenset[int]) -> list[reference.Item]:
        """The catalogue after the candidate's keywords of one polarity changed, embeddings as they are."""
        changed = list(self.items)
        sides = list(self.items[self.candidate].keywords)
        sides[polarity] = keywords
        changed[self.candidate] = dataclasses.replace(
            changed[self.candidate], keywords=tuple(sides)
        )
        return changed


def is_flip(before: int, after: int) -> bool:
    return after != 0 if before == 0 else after == -before


def single_flips(world: World, labelled) -> set:
    """Every single change that flips, tried one by one; `labelled` is (position, item, label) without pads."""
    history = [(item, label) for _, item, label in labelled]
    sta = world.sta(history)
    before = world.leaning(history, sta)
    flips = set()
    for n, (position, item, label) in enumerate(labelled):
        for kind, changed in (
            ("leave_out", history[:n] + history[n + 1 :]),
            ("reverse", [*history[:n], (item, 1 - label), *history[n + 1 :]]),
        ):
            if is_flip(before, world.leaning(changed, world.sta(changed))):
                flips.add((kind, position))
    sides = reference.sides(world.items, world.candidate, history, world.simulator.env.semantics)
    for polarity, name in enumerate(("con", "pro")):
        own = world.items[world.candidate].keywords[polarity]
        theirs = {k for item in sides[polarity] for k in world.items[item].keywords[polarity]}
        for keyword in own | theirs:
            kind = "remove_keyword" if keyword in own else "add_keyword"
            changed = world.with_keywords(polarity, own ^ {keyword})
            if is_flip(before, world.leaning(history, sta, changed)):
                word = world.simulator.dataset.keywords[keyword]
                flips.add((kind, (word, name)))
        changed = world.with_keywords(polarity, own | {NEW_KEYWORD})
        if is_flip(before, world.leaning(history, sta, changed)):
            flips.add(("add_any_keyword", ("", name)))
    return flips


def check_order(flips) -> None:
    """Interactions to leave out, responses, keywords; then least to the coins; then the latest interaction."""
    kinds = ["leave_out", "reverse", "remove_keyword", "add_keyword", "add_any_keyword"]
    ranks = []
    for flip in flips:
        (change,) = flip.changes
        group = min(kinds.index(change.kind), 2)
        certainty = abs(flip.like_probability - 0.5)
        against = flip.like is not None and flip.like != (flip.like_probability > 0.5)
        position = -1 if change.position is None else change.position
        ranks.append((group, certainty if against else -certainty, -position))
    assert ranks == sorted(ranks)


def check_removals(world: World, labelled, flip) -> None:
    """The set of removals flips the decision, and no interaction in it could be put back."""
    positions = [change.position for change in flip.changes]
    assert 2 <= len(positions) <= MAX_REMOVALS
    assert {change.kind for change in flip.changes} == {"leave_out"}

    def leaning_without(left_out) -> int:
        history = [(item, label) for at, item, label in labelled if at not in left_out]
        return world.leaning(history, world.sta(history))

    before = leaning_without([])
    assert is_flip(before, leaning_without(positions))
    for back in positions:
        assert not is_flip(before, leaning_without([p for p in positions if p != back]))


def check_flips(simulator: Simulator, question) -> None:
    """All single flips and no other, or else a set of removals."""
    items, labels, candidate, user, key = question
    coins = None
    if key is not None:
        coins = tuple(ask(simulator, *question).reasons.coins.tolist())
    catalogue = reference.items_of(simulator.dataset.arrays)
    world = World(simulator, catalogue, candidate, user, coins)
    labelled = [(at, i, y) for at, (i, y) in enumerate(zip(items, labels, strict=True)) if i >= 0]
    flips = explain(*simulator, *question).flips
    expected = single_flips(world, labelled)
    if expected:
        single = [change for flip in flips for change in flip.changes]
        assert len(single) == len(flips) == len(expected)
        named = {(c.kind, (c.name, c.side) if c.position is None else c.position) for c in single}
        assert named == expected
        check_order(flips)
    else:
        assert len(flips) <= 1
        for flip in flips:
            check_removals(world, labelled, flip)


# Found at random: the search leaves out three others before the two that are enough.
MORE_THAN_NEEDED = (
    ([12, 23, 14, 16, 22, 14, 37], [1, 0, 1, 0, 1, 1, 0], 15, 20, jax.random.key(2)),
    ([24, 24, 1, 29, 2, 5, 26], [0, 1, 1, 0, 1, 1, 1], 31, 0, jax.random.key(7)),
)


@settings(deadline=None, max_examples=40)
@given(question=questions())
@example(question=MORE_THAN_NEEDED[0])
@example(question=MORE_THAN_NEEDED[1])
def test_flips_are_those_of_brute_force(random_simulator, question):
    check_flips(random_simulator, question)


@settings(deadline=None, max_examples=30)
@given(question=questions(), seed=st.integers(0, 1000))
def test_respond_decides_otherwise_after_a_flip_of_the_history(random_simulator, question, seed):
    items, labels, candidate, user, _ = question
    key = jax.random.key(seed)
    answer = explain(*random_simulator, items, labels, candidate, user, key)
    decided(answer.sta_probability)
    for flip in answer.flips:
        decided(flip.sta_probability)
        changed_items, changed_labels = list(items), list(labels)
        for change in flip.changes:
            if change.kind == "leave_out":
                changed_items[change.position] = -1
            elif change.kind == "reverse":
                changed_labels[change.position] = 1 - labels[change.position]
        if changed_items == items and changed_labels == labels:
            continue  # a keyword
        after = ask(random_simulator, changed_items, changed_labels, candidate, user, key)
        assert bool(after.response.like) is flip.like is (not answer.like)
        assert tuple(after.votes.tolist()) == flip.votes
        assert flip.sta_probability == pytest.approx(float(after.sta_probability), abs=ROUNDING)
