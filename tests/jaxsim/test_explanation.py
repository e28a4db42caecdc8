"""Explanations: the paper's case and other small cases worked by hand, and the interface."""

import dataclasses
import json
import math
import unicodedata
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

from jaxsim import InputError
from jaxsim.explanation.counterfactuals import MAX_REMOVALS
from jaxsim.explanation.explain import explain
from jaxsim.explanation.question import respond_to_each
from jaxsim.explanation.tables import COLUMNS
from tests.conftest import Simulator, simulator_of
from tests.factory import make_dataset

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
# One window, hence one compilation, for all that is worked by hand.
SETTINGS = {"history_length": 6, "session_capacity": 4, "repeats": "allow", "prefixes": "encode"}


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
        window=10,
        width=4,
        num_blocks=1,
    )
    items = dataset.items.assign(name=names)
    dataset = dataclasses.replace(
        dataset, items=items, keywords=KEYWORDS, categories=["Restaurants", "Bakeries"]
    )
    return simulator_with_constant_sta(dataset, **SETTINGS)


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
    answer = explain(*places, *HISTORY, IHOP, key=key_with_coins(*coins))
    assert votes_of(answer) == [0, 0, 1]
    assert answer.like is False
    assert (answer.alpha_pos, answer.alpha_neg) == (0, 1)
    (loud,) = answer.matched
    assert (loud.keyword, loud.polarity) == ("loud", "con")
    assert (loud.positions, loud.names) == ((2,), ("Popeyes Kitchen",))


def test_a_pro_shared_with_a_liked_place_gives_f_mat_1(places):
    answer = explain(*places, *HISTORY, CRUSOES)
    assert votes_of(answer)[0] == 1
    assert [k.keyword for k in answer.matched] == ["child-friendly"]
    assert answer.matched[0].names == ("El Maguey",)
    # cos(child-friendly, child-friendly) = 1 against cos(no reservations, {loud, crowded}) = 0
    assert (answer.beta_pos, answer.beta_neg) == (1.0, 0.0)
    assert answer.most_similar_liked.name == "El Maguey"
    assert answer.most_similar_disliked.name == "Popeyes Kitchen"
    assert answer.like is True


@pytest.mark.parametrize("coin", [0, 1])
def test_nothing_shared_gives_f_mat_a_coin(places, coin):
    answer = explain(*places, *HISTORY, CAKES, key=key_with_coins(coin, 1))
    assert answer.matched == ()
    assert dataclasses.astuple(answer.votes[0]) == ("f_mat", coin, True, coin)
    # No bakery in the history: all of it counts.
    assert [x.name for x in answer.history] == ["City Diner", "El Maguey", "Popeyes Kitchen"]
    assert not any(x.in_category for x in answer.history)


def test_without_flips_all_else_is_equal(places):
    key = key_with_coins(0, 1)
    whole = explain(*places, *HISTORY, IHOP, key=key)
    quick = explain(*places, *HISTORY, IHOP, key=key, flips=False)
    assert whole.flips
    assert quick == dataclasses.replace(whole, flips=(), flips_sought=False)
    assert "What flips it" in str(whole)
    assert "What flips it" not in str(quick)


def test_the_table_holds_what_the_papers_tables_show(places):
    answer = explain(*places, *HISTORY, IHOP)
    assert answer.candidate.categories == ("Restaurants",)
    assert (answer.candidate.pros, answer.candidate.cons) == (("casual",), ("loud",))
    shown = [(x.name, x.liked, x.keywords, x.matched) for x in answer.history]
    assert shown == [
        ("City Diner", True, ("family gathering",), ()),
        ("El Maguey", True, ("child-friendly",), ()),
        ("Popeyes Kitchen", False, ("loud", "crowded"), ("loud",)),
    ]
    assert str(answer) == IHOP_TABLE


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
    answer = explain(*places, *HISTORY, CAKES)
    assert answer.coins_open
    # f_sim: cos(variety, .) = 0 = cos(no in-store dining, .); f_sta alone is decided, for.
    assert [dataclasses.astuple(vote) for vote in answer.votes] == [
        ("f_mat", None, True, None),
        ("f_sim", None, True, None),
        ("f_sta", 1, False, None),
    ]
    assert (answer.like, answer.like_probability) == (None, 0.75)
    assert "probability 0.75" in str(answer)
    assert "coin open" in str(answer)


@pytest.mark.parametrize("coins", [(0, 0), (0, 1), (1, 0), (1, 1)], ids=str)
def test_with_a_key_coins_decide(places, coins):
    answer = explain(*places, *HISTORY, CAKES, key=key_with_coins(*coins))
    assert votes_of(answer) == [*coins, 1]
    assert answer.like is (sum(coins) >= 1)
    assert answer.like_probability == 0.75
    assert not answer.coins_open


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


def test_what_leaves_least_to_the_coins_comes_first(places):
    """One con is shared. "family gathering" of two liked items wins 2 > 1; the others tie 1 = 1 or 0 = 0."""
    history = [MAGUEY, DINER, DINER, POPEYES], [LIKE, LIKE, LIKE, DISLIKE]
    answer = explain(*places, *history, IHOP, key=key_with_coins(1, 0))
    keywords = [
        (flip.changes[0].name, flip.like_probability)
        for flip in answer.flips
        if flip.changes[0].position is None
    ]
    assert keywords == [("family gathering", 1), ("loud", 0.5), ("child-friendly", 0.5)]


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
        window=10,
        width=4,
        num_blocks=1,
    )
    return simulator_with_constant_sta(dataset, **SETTINGS)


@pytest.mark.parametrize("key", [None, 0, 1], ids=["open", "key 0", "key 1"])
def test_interactions_are_left_out_together_where_one_is_not_enough(two_needed, key):
    """alpha 2 > 1, beta 1 > 0.707, f_sta for. Without 1 or 2, beta stays; without both all turns."""
    key = None if key is None else jax.random.key(key)
    history = [-1, 4, 1, 3, 2], [0, LIKE, LIKE, DISLIKE, LIKE]
    answer = explain(*two_needed, *history, 0, key=key)
    assert (votes_of(answer), answer.like) == ([1, 1, 1], True)
    (flip,) = answer.flips
    assert [(c.kind, c.item, c.position) for c in flip.changes] == [
        ("leave_out", 1, 2),
        ("leave_out", 2, 4),
    ]
    assert (flip.votes, flip.like) == ((0, 0, 1), False)
    assert "without 1 (liked); without 2 (liked)" in str(answer)


@pytest.mark.parametrize("needed", range(2, MAX_REMOVALS + 2))
def test_the_greedy_search_takes_what_turns_the_votes(two_needed, needed):
    """alpha n > 1, beta 1 > 0.707: all n that share the pro have to go, none of the three that share nothing."""
    items, labels = [4] * 3 + [1] * needed + [3], [LIKE] * (3 + needed) + [DISLIKE]
    flips = explain(*two_needed, items, labels, 0).flips
    if needed > MAX_REMOVALS:
        assert flips == ()
    else:
        (flip,) = flips
        assert [change.position for change in flip.changes] == list(range(3, 3 + needed))
        assert (flip.votes, flip.like, flip.like_probability) == ((0, 0, 1), False, 0)


def test_where_nothing_flips_the_table_says_what_was_tried(two_needed):
    """Only liked items, and a candidate without keywords: f_sta and two coins, whatever is changed."""
    answer = explain(*two_needed, [1, 2, 4], [LIKE] * 3, 5)
    assert (answer.like_probability, answer.flips) == (0.75, ())
    assert "neither a single change nor a set of up to" in str(answer)
    assert str(MAX_REMOVALS) in str(answer)


def test_no_history_at_all(two_needed):
    answer = explain(*two_needed, [], [], 0)
    assert (answer.history, answer.matched, answer.flips) == ((), (), ())
    assert (answer.beta_pos, answer.most_similar_liked) == (None, None)
    assert answer.like_probability == 0.75
    assert "History: 0 of 0" in str(answer)


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
    changed = simulator_of(dataclasses.replace(places.dataset, arrays=arrays), **SETTINGS)
    after = explain(*changed, *HISTORY, IHOP, key=key)
    assert tuple(votes_of(after)) == flip.votes == (1, 0, 1)
    assert after.like is flip.like is True


# ---- the candidate in the history ------------------------------------------------------------------------


def test_a_candidate_in_the_history_gains_any_keyword_with_itself(places):
    """A diner liked once and disliked once: a con that it gains is shared with the visit that was disliked."""
    simulator = simulator_with_constant_sta(places.dataset, logit=-1.0, **SETTINGS)
    answer = explain(*simulator, [DINER, DINER], [LIKE, DISLIKE], DINER, key=key_with_coins(0, 1))
    # alpha 1 > 0, beta 1 > nothing, f_sta against. With one more con alpha ties 1 = 1, and the coin is a dislike.
    assert (answer.alpha_pos, answer.alpha_neg, votes_of(answer)) == (1, 0, [1, 1, 0])
    changes = [change for flip in answer.flips for change in flip.changes]
    assert "add_any_keyword" in {change.kind for change in changes}
    (change,) = [change for change in changes if change.kind == "add_any_keyword"]
    assert (change.name, change.side) == ("", "con")
    assert "with any other con added (the candidate is in the history too)" in str(answer)


# ---- interface -------------------------------------------------------------------------------------------


def test_padding_means_nothing_but_its_positions(paper_simulator):
    padded = explain(*paper_simulator, [-1, 3, -1, 7, 9, -1], [1, 1, 0, 0, 1, 1], 5)
    bare = explain(*paper_simulator, [3, 7, 9], [1, 0, 1], 5)
    assert str(padded) == str(bare)
    moved = {0: 1, 1: 3, 2: 4}
    assert [x.position for x in padded.history] == [moved[x.position] for x in bare.history]


def test_histories_padded_to_one_length_compile_once(paper_simulator):
    window = paper_simulator.env.window
    assert window == 12
    for lengths in ((3, 0, 1, window), (window + 1, 16)):  # the second: padded to 16
        compiled = []
        for length in lengths:
            explain(*paper_simulator, range(length), [n % 2 for n in range(length)], 20)
            compiled.append(respond_to_each._cache_size())
        assert compiled == compiled[:1] * len(lengths)


def test_observations_and_device_arrays_are_taken(paper_simulator):
    """As in `env.respond`, responses of an observation are labels as they are; so are booleans."""
    items = jnp.array([3, 7, 9, -1, -1], jnp.int32)
    responses = jnp.array([1, -1, 1, 0, 0], jnp.int8)
    question = jnp.int32(5), jnp.int32(2)
    answer = explain(*paper_simulator, items, responses, *question)
    assert (answer.candidate.item, answer.user, answer.history_length) == (5, 2, 3)
    assert answer == explain(*paper_simulator, [3, 7, 9], [1, 0, 1], 5, 2)
    for labels in (responses > 0, (responses > 0).tolist()):
        assert explain(*paper_simulator, items, labels, *question) == answer


def test_an_explanation_is_plain_data(places):
    for candidate in (IHOP, CAKES):
        for key in (None, jax.random.key(0)):
            answer = explain(*places, *HISTORY, candidate, key=key)
            again = json.loads(json.dumps(answer.to_dict(), allow_nan=False))
            assert again["candidate"]["name"] == PLACES[candidate][0]
            assert len(again["votes"]) == 3
            assert len(again["flips"]) == len(answer.flips)


@pytest.mark.parametrize("names", [None, [None] * 6, [math.nan] * 6, [""] * 6], ids=str)
def test_an_item_without_a_name_goes_by_its_id(places, names):
    items = pd.DataFrame({"item_id": [f"id{i}" for i in range(6)]})
    items = items if names is None else items.assign(name=names)
    dataset = dataclasses.replace(places.dataset, items=items)
    answer = explain(dataset, *places[1:], *HISTORY, IHOP)
    assert (answer.candidate.name, answer.history[0].name) == ("id3", "id0")


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
    answer = explain(dataset, *places[1:], *HISTORY, candidate)
    for line in str(answer).split("\n"):
        assert line.isprintable()
        wide = sum(unicodedata.east_asian_width(c) == "W" for c in line)
        combining = line.count("\u0301")
        assert len(line) + wide - combining <= COLUMNS
    markup = answer._repr_html_()
    assert "<script" not in markup
    assert ("&lt;script&gt;" in markup) == ("<script" in name)


def test_names_are_shown_as_they_are(places, monkeypatch):
    """Square brackets and colons are no markup, and no setting of the terminal changes the text."""
    name = "[b]Who[/b] :smile: [/no]?"
    dataset = dataclasses.replace(places.dataset, items=places.dataset.items.assign(name=name))
    answer = explain(dataset, *places[1:], *HISTORY, IHOP)
    plain = str(answer)
    assert plain.startswith(f"A user dislikes {name}\n")
    assert f"0.707 {name}" in plain
    for setting, value in (("FORCE_COLOR", "1"), ("COLUMNS", "40"), ("JUPYTER_COLUMNS", "40")):
        monkeypatch.setenv(setting, value)
    assert str(answer) == plain


def test_html_shows_the_same_cells(places):
    markup = explain(*places, *HISTORY, CRUSOES, key=key_with_coins(0, 0))._repr_html_()
    for text in ("Crusoe&#x27;s Original", "child-friendly*", "1.000 El Maguey", "without El Mag"):
        assert text in markup
    assert markup.count("<table>") == markup.count("</table>") == 5


def test_long_lists_are_cut_in_the_table_alone(paper_simulator):
    candidate, length = 35, 16
    categories = paper_simulator.dataset.arrays["item_categories"]
    same = np.isin(categories, categories[candidate]) & (categories >= 0)
    items = np.flatnonzero(same.any(axis=1))[:length]
    answer = explain(*paper_simulator, items, items % 2, candidate)
    assert len(answer.history) == length
    assert "... 4 more" in str(answer).split("History: 16 of 16")[1].split("\n\n")[0]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"candidate": 6}, r"candidate is 6, outside \[0, 6\)"),
        ({"candidate": -1}, r"candidate is -1, outside"),
        ({"candidate": 1.5}, "candidate is .*: pass integers"),
        ({"candidate": None}, "candidate is .*: pass integers"),
        ({"candidate": [1, 2]}, "candidate is .*, but needs 0 dimensions"),
        ({"user": 1}, r"user is 1, outside \[-1, 1\)"),
        ({"user": -2}, "user is -2, outside"),
        ({"items": [[0, 1, 2]]}, r"history_items is .*1, 3.*, but needs 1 dimension:"),
        ({"items": [0, 1]}, "history_items has 2 entries and history_labels 3"),
        ({"items": [0.5, 1, 2]}, "history_items is .*: pass integers"),
        ({"items": [[0], [1, 2]]}, r"history_items is \[\[0\], \[1, 2\]\]: pass integers"),
        ({"items": ["a", "b", "c"]}, "history_items is .*: pass integers"),
        ({"items": [True, False, True]}, "history_items is bool.*: pass integers"),
        ({"items": [0, 1, 6]}, r"history_items has 6, outside \[-1, 6\)"),
        ({"items": [0, 1, 2**40]}, "history_items has 1099511627776, outside"),
        ({"items": [0, 1, -2]}, "history_items has -2, outside"),
        ({"labels": [1, 1, 2]}, "history_labels has 2, outside.*1 is a like"),
        ({"labels": 1}, "history_labels is .*pass a list"),
        ({"key": 7}, r"key is 7, not a PRNG key: pass jax.random.key\(0\)"),
        ({"key": jax.random.split(jax.random.key(0))}, "key is .*, not one key"),
    ],
    ids=lambda part: part if isinstance(part, str) else "".join(part),
)
def test_bad_input_is_one_clear_line(places, change, words):
    asked = {"items": HISTORY[0], "labels": HISTORY[1], "candidate": IHOP, "user": -1, "key": None}
    with pytest.raises(InputError, match=words) as caught:
        explain(*places, *{**asked, **change}.values())
    assert "\n" not in str(caught.value)


def test_inside_jit_it_says_to_call_it_outside(places):
    with pytest.raises(InputError, match="call it outside jit and vmap"):
        jax.jit(lambda candidate: explain(*places, *HISTORY, candidate).alpha_pos)(IHOP)


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
