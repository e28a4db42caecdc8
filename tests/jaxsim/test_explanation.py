"""Explanations: the paper's case worked by hand, the simulator's own numbers, and flips by brute force."""

import dataclasses
import json
import math
import unicodedata
from functools import cache

import jax
import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from jaxsim import InputError
from jaxsim.explanation import COLUMNS, MAX_REMOVALS, _respond_to_each, explain
from tests import reference
from tests.conftest import Simulator, simulator_of
from tests.factory import make_dataset, random_dataset

LIKE, DISLIKE = 1, 0

# ---- the paper's case (its Tables 3 and 4) ---------------------------------------------------------------
#
# Keyword k has the k-th unit vector, so cos of two keyword sets is |shared| / sqrt(|a| |b|).

RESTAURANTS, BAKERIES = 0, 1
KEYWORDS = [
    "family gathering", "child-friendly", "casual", "variety",
    "loud", "crowded", "no in-store dining", "no reservations",
]  # fmt: skip
PLACES = [
    # name, category, pros, cons
    ("City Diner", RESTAURANTS, ["family gathering"], []),
    ("El Maguey", RESTAURANTS, ["child-friendly"], []),
    ("Popeyes Kitchen", RESTAURANTS, [], ["loud", "crowded"]),
    ("IHOP", RESTAURANTS, ["casual"], ["loud"]),
    ("Gooey Cakes", BAKERIES, ["variety"], ["no in-store dining"]),
    ("Crusoe's Original", RESTAURANTS, ["child-friendly"], ["no reservations"]),
]
DINER, MAGUEY, POPEYES, IHOP, CAKES, CRUSOES = range(6)
HISTORY = [DINER, MAGUEY, POPEYES], [LIKE, LIKE, DISLIKE]


def simulator_with_constant_sta(dataset, logit=1.0, **settings) -> Simulator:
    """A simulator whose f_sta gives everything the same log-odds."""
    weights = {name: np.zeros_like(w) for name, w in dataset.sasrec.items()}
    weights["offset"] = np.float32(logit) + weights["offset"]
    return simulator_of(dataclasses.replace(dataset, sasrec=weights), **settings)


@pytest.fixture(scope="module")
def places() -> Simulator:
    names, categories, pros, cons = (list(column) for column in zip(*PLACES, strict=True))
    sequence = [DINER, MAGUEY, POPEYES, IHOP, CAKES], [LIKE, LIKE, DISLIKE, DISLIKE, LIKE]
    dataset = make_dataset(
        [[c] for c in categories],
        *([[KEYWORDS.index(word) for word in words] for words in side] for side in (pros, cons)),
        [sequence],
        vectors=np.eye(len(KEYWORDS)),
        window=5,
    )
    items = dataset.items.assign(name=names)
    dataset = dataclasses.replace(
        dataset, items=items, keywords=KEYWORDS, categories=["Restaurants", "Bakeries"]
    )
    return simulator_with_constant_sta(dataset, history_length=3, session_capacity=2)


@cache
def key_with_coins(mat: int, sim: int) -> jax.Array:
    """A key whose coins fall so, as `ensemble.decide` documents: one key of two for each vote."""
    for seed in range(100):
        coins = [bool(jax.random.bernoulli(key)) for key in jax.random.split(jax.random.key(seed))]
        if coins == [mat, sim]:
            return jax.random.key(seed)
    raise AssertionError


def votes_of(explanation):
    return [vote.vote for vote in explanation.votes]


def flips_of(explanation):
    return [
        [(change.kind, change.name, change.side) for change in flip.changes]
        for flip in explanation.flips
    ]


@pytest.mark.parametrize("coins", [(0, 0), (0, 1), (1, 0), (1, 1)], ids=str)
def test_a_con_shared_with_a_disliked_place_gives_f_mat_0(places, coins):
    found = explain(*places, *HISTORY, IHOP, key=key_with_coins(*coins))
    assert votes_of(found) == [0, 0, 1]
    assert found.like is False
    assert (found.alpha_pos, found.alpha_neg) == (0, 1)
    (loud,) = found.matched
    assert (loud.keyword, loud.polarity) == ("loud", "con")
    assert (loud.positions, loud.names) == ((2,), ("Popeyes Kitchen",))


def test_a_pro_shared_with_a_liked_place_gives_f_mat_1(places):
    found = explain(*places, *HISTORY, CRUSOES)
    assert votes_of(found)[0] == 1
    assert [k.keyword for k in found.matched] == ["child-friendly"]
    assert found.matched[0].names == ("El Maguey",)
    # cos(child-friendly, child-friendly) = 1 against cos(no reservations, {loud, crowded}) = 0
    assert (found.beta_pos, found.beta_neg) == (1.0, 0.0)
    assert found.most_similar_liked.name == "El Maguey"
    assert found.most_similar_disliked.name == "Popeyes Kitchen"
    assert found.like is True


@pytest.mark.parametrize("coin", [0, 1])
def test_nothing_shared_gives_f_mat_a_coin(places, coin):
    found = explain(*places, *HISTORY, CAKES, key=key_with_coins(coin, 1))
    assert found.matched == ()
    assert dataclasses.astuple(found.votes[0]) == ("f_mat", coin, True, coin)
    # No bakery in the history: all of it counts.
    assert [x.name for x in found.history] == ["City Diner", "El Maguey", "Popeyes Kitchen"]
    assert not any(x.in_category for x in found.history)


def test_the_table_holds_what_the_papers_tables_show(places):
    found = explain(*places, *HISTORY, IHOP)
    assert found.candidate.categories == ("Restaurants",)
    assert (found.candidate.pros, found.candidate.cons) == (("casual",), ("loud",))
    shown = [(x.name, x.liked, x.keywords, x.matched) for x in found.history]
    assert shown == [
        ("City Diner", True, ("family gathering",), ()),
        ("El Maguey", True, ("child-friendly",), ()),
        ("Popeyes Kitchen", False, ("loud", "crowded"), ("loud",)),
    ]
    assert str(found) == IHOP_TABLE


IHOP_TABLE = """\
A user dislikes IHOP

Candidate
  item 3      IHOP
  categories  Restaurants
  pros        casual
  cons        loud

Votes
  model  liked items                   disliked items         vote
  f_mat  shared pros: 0                shared cons: 1         0
  f_sim  0.000 El Maguey               0.707 Popeyes Kitchen  0
  f_sta  probability of a like: 0.731                         1

Shared keywords
  keyword  side  from
  loud     con   Popeyes Kitchen

History: 3 of 3 interactions in the category
  response  item             pros if liked, cons if disliked (* shared)  cosine
  disliked  Popeyes Kitchen  loud*, crowded                              0.707
  liked     City Diner       family gathering                            0.000
  liked     El Maguey        child-friendly                              0.000

What flips it: any one of
  change                                    votes  then
  without Popeyes Kitchen (disliked)        ? 1 1  like
  with Popeyes Kitchen liked, not disliked  ? 1 1  like"""

# ---- coins -----------------------------------------------------------------------------------------------


def test_without_a_key_coins_stay_open(places):
    found = explain(*places, *HISTORY, CAKES)
    assert found.coins_open
    # f_sim: cos(variety, .) = 0 = cos(no in-store dining, .); f_sta alone is decided, for.
    assert [dataclasses.astuple(vote) for vote in found.votes] == [
        ("f_mat", None, True, None),
        ("f_sim", None, True, None),
        ("f_sta", 1, False, None),
    ]
    assert (found.like, found.like_probability) == (None, 0.75)
    assert "probability 0.75" in str(found)
    assert "coin open" in str(found)


@pytest.mark.parametrize("coins", [(0, 0), (0, 1), (1, 0), (1, 1)], ids=str)
def test_with_a_key_coins_decide(places, coins):
    found = explain(*places, *HISTORY, CAKES, key=key_with_coins(*coins))
    assert votes_of(found) == [*coins, 1]
    assert found.like is (sum(coins) >= 1)
    assert found.like_probability == 0.75
    assert not found.coins_open


def test_a_flip_is_judged_with_the_same_coins(places):
    """The candidate without "loud" ties 0 = 0 in f_mat: that flips the decision if the coin is a like."""
    popeyes = [
        [("leave_out", "Popeyes Kitchen", "disliked")],
        [("reverse", "Popeyes Kitchen", "disliked")],
    ]
    by_keyword = [
        [("remove_keyword", "loud", "con")],
        [("add_keyword", "family gathering", "pro")],
        [("add_keyword", "child-friendly", "pro")],
    ]
    lucky = explain(*places, *HISTORY, IHOP, key=key_with_coins(1, 0))
    assert flips_of(lucky)[:2] == popeyes
    assert sorted(flips_of(lucky)[2:]) == sorted(by_keyword)
    assert [flip.like_probability for flip in lucky.flips] == [1, 1, 0.5, 0.5, 0.5]
    assert "like, by a coin" in str(lucky)
    assert flips_of(explain(*places, *HISTORY, IHOP, key=key_with_coins(0, 1))) == popeyes
    # With open coins these three take a like from impossible to 1/2: no other decision.
    assert flips_of(explain(*places, *HISTORY, IHOP)) == popeyes


# ---- flips worked by hand --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def two_needed() -> Simulator:
    """Candidate 0; 1 and 2 share its pro, 3 one of two cons; 4 shares nothing; 5 has no keywords."""
    dataset = make_dataset(
        [[0]] * 6,
        [[0], [0], [0], [], [3], []],
        [[1], [], [], [1, 2], [], []],
        [(list(range(5)), [1, 0, 1, 0, 1])],
        vectors=np.eye(4),
        window=5,
    )
    return simulator_with_constant_sta(dataset, history_length=3, session_capacity=2)


@pytest.mark.parametrize("key", [None, 0, 1], ids=["open", "key 0", "key 1"])
def test_interactions_are_left_out_together_where_one_is_not_enough(two_needed, key):
    """alpha 2 > 1, beta 1 > 0.707, f_sta for. Without 1 or 2, beta stays; without both all turns."""
    key = None if key is None else jax.random.key(key)
    history = [-1, 4, 1, 3, 2], [0, LIKE, LIKE, DISLIKE, LIKE]
    found = explain(*two_needed, *history, 0, key=key)
    assert (votes_of(found), found.like) == ([1, 1, 1], True)
    (flip,) = found.flips
    assert [(c.kind, c.item, c.position) for c in flip.changes] == [
        ("leave_out", 1, 2),
        ("leave_out", 2, 4),
    ]
    assert (flip.votes, flip.like) == ((0, 0, 1), False)
    assert "without 1 (liked); without 2 (liked)" in str(found)


def test_where_nothing_flips_the_table_says_what_was_tried(two_needed):
    """Only liked items, and a candidate without keywords: f_sta and two coins, whatever is changed."""
    found = explain(*two_needed, [1, 2, 4], [LIKE] * 3, 5)
    assert (found.like_probability, found.flips) == (0.75, ())
    assert "no single change, nor a set" in str(found)
    assert str(MAX_REMOVALS) in str(found)


def test_no_history_at_all(two_needed):
    found = explain(*two_needed, [], [], 0)
    assert (found.history, found.matched, found.flips) == ((), (), ())
    assert (found.beta_pos, found.most_similar_liked) == (None, None)
    assert found.like_probability == 0.75
    assert "History: 0 of 0" in str(found)


# ---- the simulator's own numbers -------------------------------------------------------------------------


@pytest.fixture(scope="module", params=["paper", "released"])
def random_simulator(request) -> Simulator:
    return simulator_of(random_dataset(5), semantics=request.param)


LONGEST = 9
ROUNDING = 1e-5  # of f_sta's probability in float32, with weights as large as these


@st.composite
def questions(draw, longest=LONGEST, num_items=40, num_users=23):
    """A history with padding, a candidate (at times of the history), a user and a key (or None)."""
    item = st.integers(-1, num_items - 1)
    items = draw(st.lists(item, min_size=longest, max_size=longest))
    labels = draw(st.lists(st.integers(0, 1), min_size=longest, max_size=longest))
    known = [i for i in items if i >= 0] or [0]
    candidate = draw(st.integers(0, num_items - 1) | st.sampled_from(known))
    user = draw(st.integers(-1, num_users - 1))
    seed = draw(st.none() | st.integers(0, 1000))
    return items, labels, candidate, user, None if seed is None else jax.random.key(seed)


@pytest.fixture(scope="module")
def respond(random_simulator):
    """env.respond, compiled for each length of history once."""
    env = random_simulator.env

    def call(key, items, labels, candidate, params, user):
        return env.respond(key, items, labels, candidate, params, user, reasons=True)

    return jax.jit(call)


def ask(respond, simulator, items, labels, candidate, user, key):
    key = jax.random.key(0) if key is None else key
    arrays = np.array(items, np.int32), np.array(labels, np.int8)
    return jax.device_get(respond(key, *arrays, candidate, simulator.params, user))


def decided(sta_probability: float) -> float:
    """The probability, where rounding does not decide the vote of f_sta."""
    assume(abs(sta_probability - 0.5) > ROUNDING)
    return sta_probability


def check_numbers(found, decision):
    assert (found.alpha_pos, found.alpha_neg) == (decision.alpha_pos, decision.alpha_neg)
    for beta, interaction, expected in (
        (found.beta_pos, found.most_similar_liked, decision.beta_pos),
        (found.beta_neg, found.most_similar_disliked, decision.beta_neg),
    ):
        assert (-math.inf if beta is None else beta) == expected
        assert beta == (None if interaction is None else interaction.cosine)
    assert decided(found.sta_probability) == pytest.approx(
        float(decision.sta_probability), abs=ROUNDING
    )
    reasons = decision.reasons
    assert [x.position for x in found.history] == np.flatnonzero(reasons.considered).tolist()
    for x in found.history:
        assert x.liked == reasons.liked[x.position]
        assert len(x.matched) == reasons.matched[x.position]
        assert (-math.inf if x.cosine is None else x.cosine) == reasons.cosine[x.position]
    tied = [vote.tied for vote in found.votes]
    assert tied == [*reasons.tied.tolist(), False]
    if found.coins_open:
        expected = [None if t else v for t, v in zip(tied, decision.votes.tolist(), strict=True)]
        assert votes_of(found) == expected
    else:
        assert votes_of(found) == decision.votes.tolist()
        assert found.like == decision.response.like
        coins = zip(reasons.coins.tolist(), tied, strict=False)
        assert [v.coin for v in found.votes[:2]] == [c if t else None for c, t in coins]


@settings(deadline=None, max_examples=30)
@given(question=questions())
def test_the_numbers_are_those_of_respond(random_simulator, respond, question):
    items, labels, candidate, user, key = question
    found = explain(*random_simulator, items, labels, candidate, user, key)
    check_numbers(found, ask(respond, random_simulator, *question))
    counts = {"pro": found.alpha_pos, "con": found.alpha_neg}
    for polarity, alpha in counts.items():
        positions = [len(k.positions) for k in found.matched if k.polarity == polarity]
        assert sum(positions) == alpha
    assert found.history_length == sum(i >= 0 for i in items)


@settings(deadline=None, max_examples=6)
@given(question=questions(longest=30))
def test_a_history_longer_than_the_window_is_explained_as_respond_judges_it(
    random_simulator, respond, question
):
    assert random_simulator.env.window < 30
    items, labels, candidate, user, key = question
    found = explain(*random_simulator, items, labels, candidate, user, key)
    check_numbers(found, ask(respond, random_simulator, *question))


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
            self.simulator.dataset.sasrec, history[-env.window :], self.candidate, self.user
        )
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
    found = set()
    for n, (position, item, label) in enumerate(labelled):
        for kind, changed in (
            ("leave_out", history[:n] + history[n + 1 :]),
            ("reverse", [*history[:n], (item, 1 - label), *history[n + 1 :]]),
        ):
            if is_flip(before, world.leaning(changed, world.sta(changed))):
                found.add((kind, position))
    sides = reference.sides(world.items, world.candidate, history, world.simulator.env.semantics)
    for polarity, name in enumerate(("con", "pro")):
        own = world.items[world.candidate].keywords[polarity]
        theirs = {k for item in sides[polarity] for k in world.items[item].keywords[polarity]}
        for keyword in own | theirs:
            kind = "remove_keyword" if keyword in own else "add_keyword"
            changed = world.with_keywords(polarity, own ^ {keyword})
            if is_flip(before, world.leaning(history, sta, changed)):
                word = world.simulator.dataset.keywords[keyword]
                found.add((kind, (word, name)))
    return found


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


@settings(deadline=None, max_examples=50)
@given(question=questions())
def test_flips_are_those_of_brute_force(random_simulator, respond, question):
    items, labels, candidate, user, key = question
    coins = None
    if key is not None:
        coins = tuple(ask(respond, random_simulator, *question).reasons.coins.tolist())
    catalogue = reference.items_of(random_simulator.dataset.arrays)
    world = World(random_simulator, catalogue, candidate, user, coins)
    labelled = [(at, i, y) for at, (i, y) in enumerate(zip(items, labels, strict=True)) if i >= 0]
    found = explain(*random_simulator, items, labels, candidate, user, key)
    expected = single_flips(world, labelled)
    if expected:
        single = [change for flip in found.flips for change in flip.changes]
        assert len(single) == len(found.flips) == len(expected)
        named = {(c.kind, (c.name, c.side) if c.position is None else c.position) for c in single}
        assert named == expected
    else:
        assert len(found.flips) <= 1
        for flip in found.flips:
            check_removals(world, labelled, flip)


@settings(deadline=None, max_examples=30)
@given(question=questions(), seed=st.integers(0, 1000))
def test_respond_decides_otherwise_after_a_flip_of_the_history(
    random_simulator, respond, question, seed
):
    items, labels, candidate, user, _ = question
    key = jax.random.key(seed)
    found = explain(*random_simulator, items, labels, candidate, user, key)
    decided(found.sta_probability)
    for flip in found.flips:
        decided(flip.sta_probability)
        changed_items, changed_labels = list(items), list(labels)
        for change in flip.changes:
            if change.kind == "leave_out":
                changed_items[change.position] = -1
            elif change.kind == "reverse":
                changed_labels[change.position] = 1 - labels[change.position]
        if changed_items == items and changed_labels == labels:
            continue  # a keyword
        after = ask(respond, random_simulator, changed_items, changed_labels, candidate, user, key)
        assert bool(after.response.like) is flip.like is (not found.like)
        assert tuple(after.votes.tolist()) == flip.votes
        assert flip.sta_probability == pytest.approx(float(after.sta_probability), abs=ROUNDING)


@pytest.mark.parametrize(
    ("kind", "keywords"), [("remove_keyword", ([2], [6])), ("add_keyword", ([0, 2], [4]))]
)
def test_the_decision_is_another_in_a_dataset_with_the_keywords_flipped(places, kind, keywords):
    """The dataset changed as the flip says, mean vectors as they were; 6 is a con that nobody else has."""
    key = key_with_coins(1, 0)
    flip = next(f for f in explain(*places, *HISTORY, IHOP, key=key).flips if kind in str(f))
    arrays = dict(places.dataset.arrays)
    for side, row in zip(("pos", "neg"), keywords, strict=True):
        wider = np.pad(arrays[f"item_{side}_keywords"], ((0, 0), (0, 1)), constant_values=-1)
        wider[IHOP] = np.pad(row, (0, wider.shape[1] - len(row)), constant_values=-1)
        arrays[f"item_{side}_keywords"] = wider
    changed = simulator_of(
        dataclasses.replace(places.dataset, arrays=arrays), history_length=3, session_capacity=2
    )
    after = explain(*changed, *HISTORY, IHOP, key=key)
    assert tuple(votes_of(after)) == flip.votes == (1, 0, 1)
    assert after.like is flip.like is True


# ---- interface -------------------------------------------------------------------------------------------


def test_padding_means_nothing_but_its_positions(random_simulator):
    padded = explain(*random_simulator, [-1, 3, -1, 7, 9, -1], [1, 1, 0, 0, 1, 1], 5)
    bare = explain(*random_simulator, [3, 7, 9], [1, 0, 1], 5)
    assert str(padded) == str(bare)
    moved = {0: 1, 1: 3, 2: 4}
    assert [x.position for x in padded.history] == [moved[x.position] for x in bare.history]


def test_lengths_up_to_the_window_compile_once(dataset):
    simulator = simulator_of(dataset, history_length=7, session_capacity=6)
    before = _respond_to_each._cache_size()
    for length in (0, 1, 5, 13):
        explain(*simulator, range(length), [1, 0] * (length // 2) + [1] * (length % 2), 20)
    assert _respond_to_each._cache_size() == before + 1
    for length in (14, 16):  # longer than the window: padded to 16
        explain(*simulator, range(length), [1, 0] * (length // 2), 20)
    assert _respond_to_each._cache_size() == before + 2


def test_observations_and_device_arrays_are_taken(simulator):
    obs, _ = simulator.env.reset(jax.random.key(0), simulator.params)
    found = explain(*simulator, obs.items, obs.responses > 0, obs.items[0] * 0, obs.user)
    assert found.user == int(obs.user)
    assert found.history_length == int(obs.length)


def test_an_explanation_is_plain_data(places):
    for candidate in (IHOP, CAKES):
        for key in (None, jax.random.key(0)):
            found = explain(*places, *HISTORY, candidate, key=key)
            again = json.loads(json.dumps(found.to_dict(), allow_nan=False))
            assert again["candidate"]["name"] == PLACES[candidate][0]
            assert len(again["votes"]) == 3
            assert len(again["flips"]) == len(found.flips)


@pytest.mark.parametrize("names", [None, [None] * 6, [math.nan] * 6, [""] * 6], ids=str)
def test_an_item_without_a_name_goes_by_its_id(places, names):
    items = pd.DataFrame({"item_id": [f"id{i}" for i in range(6)]})
    items = items if names is None else items.assign(name=names)
    dataset = dataclasses.replace(places.dataset, items=items)
    found = explain(dataset, *places[1:], *HISTORY, IHOP)
    assert (found.candidate.name, found.history[0].name) == ("id3", "id0")


AWKWARD = {
    "long": "word " * 100,
    "one word": "x" * 300,
    "wide": "漢字" * 80,
    "combining": "e\u0301" * 150,
    "markup": "<script>alert('&')</script>" * 5,
    "control": "two\nlines\r\x1b[31m red \u202e\u2028\t" * 9,
}


@pytest.mark.parametrize("name", list(AWKWARD.values()), ids=list(AWKWARD))
@pytest.mark.parametrize("candidate", [IHOP, CAKES])
def test_the_table_fits_a_terminal_whatever_the_names(places, name, candidate):
    dataset = dataclasses.replace(
        places.dataset,
        items=places.dataset.items.assign(name=name),
        keywords=[f"{name} {k}" for k in range(len(KEYWORDS))],
        categories=[name, name],
    )
    found = explain(dataset, *places[1:], *HISTORY, candidate)
    for line in str(found).split("\n"):
        assert line.isprintable()
        wide = sum(unicodedata.east_asian_width(c) == "W" for c in line)
        combining = line.count("\u0301")
        assert len(line) + wide - combining <= COLUMNS
    markup = found._repr_html_()
    assert "<script" not in markup
    assert ("&lt;script&gt;" in markup) == ("<script" in name)


def test_html_shows_the_same_cells(places):
    markup = explain(*places, *HISTORY, CRUSOES, key=key_with_coins(0, 0))._repr_html_()
    for text in ("Crusoe&#x27;s Original", "child-friendly*", "1.000 El Maguey", "without El Mag"):
        assert text in markup
    assert markup.count("<table>") == markup.count("</table>") == 5


def test_long_lists_are_cut_in_the_table_alone(random_simulator):
    items = np.arange(30)
    found = explain(*random_simulator, items, items % 2, 35)
    assert len(found.history) > 12
    assert f"... {len(found.history) - 12} more" in str(found)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"candidate": 6}, r"candidate=6 is outside \[0, 6\)"),
        ({"candidate": -1}, r"candidate=-1"),
        ({"candidate": 1.5}, "candidate must be one integer"),
        ({"candidate": [1, 2]}, "candidate must be one integer"),
        ({"user": 1}, r"user=1 is outside \[-1, 1\)"),
        ({"user": -2}, "user=-2"),
        ({"items": [[0, 1, 2]]}, r"history_items must be a list of integers.*\(1, 3\)"),
        ({"items": [0, 1]}, "2 history_items, but 3 history_labels"),
        ({"items": [0.5, 1, 2]}, "history_items must be a list of integers"),
        ({"items": [[0], [1, 2]]}, "history_items must be a list of integers"),
        ({"items": [0, 1, 6]}, r"history_items holds 6, outside \[0, 6\)"),
        ({"items": [0, 1, -2]}, "history_items holds -2"),
        ({"labels": [1, 1, -1]}, "history_labels holds -1.*responses > 0"),
        ({"labels": [1, 1, 2]}, "history_labels holds 2"),
        ({"labels": 1}, "history_labels must be a list"),
        ({"key": 7}, r"key must be one key of jax.random.key\(seed\)"),
        ({"key": jax.random.split(jax.random.key(0))}, "key must be one key"),
    ],
    ids=str,
)
def test_bad_input_is_one_clear_line(places, change, words):
    asked = {"items": HISTORY[0], "labels": HISTORY[1], "candidate": IHOP, "user": -1, "key": None}
    with pytest.raises(InputError, match=words) as caught:
        explain(*places, *{**asked, **change}.values())
    assert "\n" not in str(caught.value)


def test_a_label_of_padding_is_not_read(places):
    assert explain(*places, [-1, DINER], [-1, LIKE], IHOP).history_length == 1


def test_another_dataset_than_the_simulators_is_refused(places, dataset):
    with pytest.raises(InputError, match="pass the dataset that jaxsim"):
        explain(dataset, *places[1:], *HISTORY, IHOP)
    arrays = dict(places.dataset.arrays)
    arrays["item_neg_keywords"] = np.roll(arrays["item_neg_keywords"], 1, axis=0)
    others = dataclasses.replace(places.dataset, arrays=arrays)
    with pytest.raises(InputError, match="other keywords than params"):
        explain(others, *places[1:], *HISTORY, IHOP)
