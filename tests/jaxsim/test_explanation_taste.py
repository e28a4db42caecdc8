"""Explanations of the taste model: worked by hand, against the NumPy reference, and against `respond`."""

import dataclasses
import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import assume, given, settings

from jaxsim import InputError, TasteExplanation, explain
from jaxsim.explanation.counterfactuals import MAX_REMOVALS
from jaxsim.explanation.tables import COLUMNS
from tests.conftest import Simulator, simulator_of
from tests.factory import make_dataset
from tests.jaxsim.conftest import random_simulator_of
from tests.jaxsim.explanation_questions import ROUNDING, ask, questions
from tests.taste_reference import moods, part_kernels, probabilities, weights_of

SETTINGS = {"history_length": 6, "session_capacity": 4, "repeats": "allow", "prefixes": "encode"}
PARTS = {"constant", "mood", "category", "year", "pros", "cons", "covariance"}
CLOSE = 1e-12  # float64


def sigmoid(log_odds: float) -> float:
    return 1 / (1 + math.exp(-log_odds))


def by_part(parts) -> dict[str, float]:
    return {x.part: x.taste for x in parts}


# ---- worked by hand --------------------------------------------------------------------------------------


def simulator_with(
    weights, calibration, years=None, mean=0.5, semantics="calibrated", categories=None
) -> Simulator:
    """Eight items: 0, 1, 4 and 5 have the pro "witty" and the con "loud", the others "dark" and "slow"."""
    first = [n in (0, 1, 4, 5) for n in range(8)]
    dataset = make_dataset(
        categories or [[0]] * 8,
        [[0] if x else [1] for x in first],
        [[2] if x else [3] for x in first],
        [(list(range(6)), [1, 0, 1, 0, 1, 1])],
        vectors=np.eye(4),
        window=10,
        width=4,
        num_blocks=1,
    )
    entry = {
        "mean": mean,
        "taste_weights": weights,
        "mood_decay": 0.5,
        "calibration": list(calibration),
    }
    taste = {
        "item_effect": np.zeros(8, np.float32),
        "item_year": np.array(years or [math.nan] * 8, np.float32),
        "covariance_factors": np.zeros((8, 0), np.float32),
    }
    dataset = dataclasses.replace(
        dataset,
        taste=taste,
        manifest={**dataset.manifest, "taste": entry},
        items=dataset.items.assign(name=[f"item {n}" for n in range(8)]),
        keywords=["witty", "dark", "loud", "slow"],
        categories=["comedy", "drama"],
    )
    return simulator_of(dataset, semantics=semantics, **SETTINGS)


def test_one_like_by_hand():
    """k(c, j) = 1/2 + 1/4 * 1/2 + 1 / sqrt(2) + exp(-1), k(j, j) = 2.75; alpha = 0.75 / (2.75 + 1) = 0.2."""
    simulator = simulator_with(
        {"constant": 0.5, "mood": 0.25, "category": 1.0, "year": 1.0},
        (-1.0, 2.0, 3.0),
        years=[1990, 2000] + [math.nan] * 6,
        mean=0.25,
        categories=[[0, 1], [0]] + [[0]] * 6,
    )
    answer = explain(*simulator, [1], [1], 0)
    expected = {
        "constant": 0.2 * 0.5,
        "mood": 0.2 * 0.125,
        "category": 0.2 / math.sqrt(2),
        "year": 0.2 * math.exp(-1),
    }
    assert by_part(answer.parts).keys() == expected.keys()  # no part without weight
    assert by_part(answer.parts) == pytest.approx(expected, abs=1e-8)
    (share,) = answer.history
    assert (share.weight, share.kernel) == pytest.approx((0.2, 5 * sum(expected.values())))
    assert share.parts == answer.parts
    assert (share.shared_categories, share.year, answer.candidate_year) == (("comedy",), 2000, 1990)
    assert answer.item_mean == 0.25
    assert answer.item_part == pytest.approx(-1 + 2 * 0.25)
    assert answer.taste_part == pytest.approx(3 * sum(expected.values()))
    assert answer.probability == pytest.approx(sigmoid(answer.item_part + answer.taste_part))
    assert [x.part for x in answer.parts] == ["category", "constant", "year", "mood"]


def test_pros_by_hand():
    """The centred vectors of the two kinds of item are opposite, so their kernel is 2 or -2.

    (K + I) alpha = (3/4, -1/4) with K = [[2, -2], [-2, 2]] gives alpha = (0.35, 0.15).
    """
    simulator = simulator_with(
        {"pros": 2.0}, (-0.5, 0.0, 5.0), years=[1990] * 8, mean=0.25, semantics="soft"
    )
    answer = explain(*simulator, [1, 2], [1, 0], 0)
    shares = [(x.item, x.weight, x.kernel, x.taste) for x in answer.history]
    assert shares == [pytest.approx((1, 0.35, 2, 0.7)), pytest.approx((2, 0.15, -2, -0.3))]
    assert answer.probability == pytest.approx(sigmoid(-0.5 + 5 * 0.4))
    assert answer.like is answer.leaning is True
    assert str(answer).startswith(PROS_TABLES)


PROS_TABLES = """\
A user likes item 0: the probability of a like is 0.818

Candidate
  item 0      item 0
  categories  comedy
  pros        witty
  cons        loud
  year        1990

Log-odds of a like
  of     computed as                                 log-odds
  item   w_0 + w_1 (m + b) = -0.500 + 0.000 * 0.250  -0.500
  taste  w_2 g = 5.000 * 0.400                       +2.000
  both   a probability of 0.818                      +1.500

Taste: parts of the kernel
  part  what it compares         log-odds
  pros  pros of similar meaning  +2.000

Taste: shares of the 2 interactions, the largest first
  log-odds  response  item    of which
  +3.500    liked     item 1  pros +3.50
  -1.500    disliked  item 2  pros -1.50

Taste: the largest shares of pros and cons
  log-odds  part  item               keywords              categories in both  years
  +3.500    pros  item 1 (liked)     alike: witty in both  comedy              1990 and 1990
  -1.500    pros  item 2 (disliked)  unlike, none in both  comedy              1990 and 1990

What moves the probability across 1/2: any one of
"""


def likes_in_a_row(threshold: float, count: int, **options):
    """g = n / 2 / (1 + n) after n likes of any items, with the constant alone; p is 1/2 at the threshold."""
    simulator = simulator_with({"constant": 1.0}, (-threshold, 0.0, 1.0))
    return explain(*simulator, range(1, count + 1), [1] * count, 0, **options)


def test_single_flips_by_hand():
    """g is 1/3 with two likes, 1/4 with one, and 0 with a like and a dislike."""
    answer = likes_in_a_row(0.3, 2)
    assert answer.taste == pytest.approx(1 / 3)
    flips = [(x.changes[0].kind, x.changes[0].item, x.probability) for x in answer.flips]
    without, reversed_ = pytest.approx(sigmoid(-0.05)), pytest.approx(sigmoid(-0.3))
    assert flips == [
        ("leave_out", 2, without),
        ("leave_out", 1, without),
        ("reverse", 2, reversed_),
        ("reverse", 1, reversed_),
    ]
    assert "with item 2 disliked, not liked  0.426" in str(answer)


def test_a_set_to_leave_out_by_hand():
    """Six likes have g = 3/7, with one reversed 2/7; only one like alone, with 1/4, is below 0.27."""
    (flip,) = likes_in_a_row(0.27, 6).flips
    assert len(flip.changes) == 5 == MAX_REMOVALS
    assert {x.kind for x in flip.changes} == {"leave_out"}
    assert flip.probability == pytest.approx(sigmoid(0.25 - 0.27))


def test_where_nothing_flips_the_table_says_what_was_tried():
    answer = likes_in_a_row(0.27, 7)
    assert answer.flips == ()
    assert "across 1/2: the search found nothing, neither a single change" in str(answer)


def test_without_flips_all_else_is_equal():
    whole, quick = likes_in_a_row(0.3, 2), likes_in_a_row(0.3, 2, flips=False)
    assert quick == dataclasses.replace(whole, flips=(), flips_sought=False)
    assert "across 1/2" not in str(quick)


# ---- the reference and the simulator ---------------------------------------------------------------------


@pytest.fixture(scope="module", params=["calibrated", "soft"])
def taste_simulator(request) -> Simulator:
    return random_simulator_of(request.param)


@pytest.fixture(scope="module")
def reference_kernels() -> dict[str, np.ndarray]:
    return part_kernels(random_simulator_of("soft").dataset)


def check_shares(answer, dataset, kernels, items, labels) -> None:
    """Every share of every part is that of the reference, and they add up."""
    positions = [n for n, item in enumerate(items) if item >= 0]
    history = np.array([items[n] for n in positions], int)
    likes = [labels[n] for n in positions]
    alpha = weights_of(dataset, sum(kernels.values()), history, likes)
    of_parts = {name: k[answer.candidate.item, history] for name, k in kernels.items()}
    of_parts["mood"] = moods(dataset, len(history))[-1, :-1]
    expected = {
        position: {name: alpha[n] * k[n] for name, k in of_parts.items()}
        for n, position in enumerate(positions)
    }
    assert {x.position for x in answer.history} == set(positions)
    assert by_part(answer.parts).keys() == PARTS
    for share in answer.history:
        assert by_part(share.parts) == pytest.approx(expected[share.position], abs=1e-6)
        assert math.fsum(by_part(share.parts).values()) == pytest.approx(share.taste, abs=CLOSE)
        assert share.weight * share.kernel == pytest.approx(share.taste, abs=CLOSE)
        assert (share.item, share.liked) == (items[share.position], labels[share.position] == 1)
    w0, w1, w2 = answer.calibration
    assert math.fsum(x.taste for x in answer.history) == pytest.approx(answer.taste, abs=CLOSE)
    assert math.fsum(by_part(answer.parts).values()) == pytest.approx(answer.taste, abs=CLOSE)
    assert math.fsum(x.log_odds for x in answer.history) == pytest.approx(
        w2 * answer.taste, abs=CLOSE * 10
    )
    assert answer.item_part == pytest.approx(w0 + w1 * answer.item_mean)
    assert answer.log_odds == pytest.approx(answer.item_part + answer.taste_part)
    sizes = [abs(x.taste) for x in answer.history]
    assert sizes == sorted(sizes, reverse=True)


@settings(deadline=None, max_examples=25)
@given(question=questions())
def test_the_shares_are_those_of_the_reference_and_the_answer_that_of_respond(
    taste_simulator, reference_kernels, question
):
    items, labels, _, _, key = question
    answer = explain(*taste_simulator, *question)
    assert isinstance(answer, TasteExplanation)
    check_shares(answer, taste_simulator.dataset, reference_kernels, items, labels)
    decision = ask(taste_simulator, *question)
    assert answer.probability == pytest.approx(float(decision.probability), abs=ROUNDING)
    assert answer.taste == pytest.approx(float(decision.taste), abs=ROUNDING)
    assert answer.probability == pytest.approx(sigmoid(answer.log_odds))
    assume(abs(answer.probability - 0.5) > ROUNDING)
    assert answer.leaning is (answer.probability >= 0.5)
    semantics = taste_simulator.env.semantics
    assert answer.draw_open is (semantics == "calibrated" and key is None)
    if answer.draw_open:
        assert answer.like is None
    else:
        assert answer.like is bool(decision.response.like)
    if semantics == "soft":
        assert answer.like is answer.leaning


def test_the_draw_is_that_of_respond():
    simulator = random_simulator_of("calibrated")
    items, labels, candidate = [3, 7, 9], [1, 0, 1], 5
    likes = set()
    for seed in range(12):
        key = jax.random.key(seed)
        answer = explain(*simulator, items, labels, candidate, key=key)
        assert answer.like is bool(ask(simulator, items, labels, candidate, -1, key).response.like)
        assert answer.flips == explain(*simulator, items, labels, candidate).flips
        likes.add(answer.like)
    assert likes == {True, False}  # p is not so near to 0 or 1 that all draws agree


# ---- flips by brute force --------------------------------------------------------------------------------


def probability_after(simulator, items, labels, candidate, kernel) -> float:
    """By the reference, where rounding does not decide on which side of 1/2 it is."""
    present = [n for n, item in enumerate(items) if item >= 0]
    history = [items[n] for n in present], [labels[n] for n in present]
    p = probabilities(simulator.dataset, *history, kernel)
    assume(abs(p[candidate] - 0.5) > ROUNDING)
    return float(p[candidate])


def changed(items, labels, changes):
    """The history after the changes of a flip."""
    items, labels = list(items), list(labels)
    for change in changes:
        if change.kind == "leave_out":
            items[change.position] = -1
        else:
            labels[change.position] = 1 - labels[change.position]
    return items, labels


@settings(deadline=None, max_examples=10)
@given(question=questions(longest=6))
def test_flips_are_those_of_brute_force(reference_kernels, question):
    simulator, kernel = random_simulator_of("soft"), sum(reference_kernels.values())
    items, labels, candidate, user, _ = question
    answer = explain(*simulator, items, labels, candidate, user)
    before = probability_after(simulator, items, labels, candidate, kernel) >= 0.5

    def flips_without(positions) -> bool:
        left = [-1 if n in positions else item for n, item in enumerate(items)]
        return (probability_after(simulator, left, labels, candidate, kernel) >= 0.5) != before

    expected = set()
    for position in (n for n, item in enumerate(items) if item >= 0):
        turned = [1 - y if n == position else y for n, y in enumerate(labels)]
        if flips_without([position]):
            expected.add(("leave_out", position))
        if (probability_after(simulator, items, turned, candidate, kernel) >= 0.5) != before:
            expected.add(("reverse", position))
    for flip in answer.flips:
        after = probability_after(
            simulator, *changed(items, labels, flip.changes), candidate, kernel
        )
        assert flip.probability == pytest.approx(after, abs=ROUNDING)
    if expected:
        assert all(len(flip.changes) == 1 for flip in answer.flips)
        named = [(x.changes[0].kind, x.changes[0].position) for x in answer.flips]
        assert len(named) == len(expected)
        assert set(named) == expected
        order = [(x.changes[0].kind, -abs(x.probability - 0.5)) for x in answer.flips]
        assert order == sorted(order)
    for flip in answer.flips if not expected else ():
        positions = [change.position for change in flip.changes]
        assert 2 <= len(positions) <= MAX_REMOVALS
        for back in positions:
            assert not flips_without([p for p in positions if p != back])


# ---- interface -------------------------------------------------------------------------------------------


def test_padding_and_the_user_mean_nothing():
    simulator = random_simulator_of("calibrated")
    padded = explain(*simulator, [-1, 3, -1, 7, 9, -1], [1, 1, 0, 0, 1, 1], 5, user=2)
    bare = explain(*simulator, [3, 7, 9], [1, 0, 1], 5)
    assert str(padded).replace("User 2", "A user") == str(bare)
    moved = {0: 1, 1: 3, 2: 4}
    assert [x.position for x in padded.history] == [moved[x.position] for x in bare.history]


def test_an_observation_is_taken():
    simulator = random_simulator_of("calibrated")
    items = jnp.array([3, 7, 9, -1, -1], jnp.int32)
    responses = jnp.array([1, -1, 1, 0, 0], jnp.int8)
    answer = explain(*simulator, items, responses, jnp.int32(5))
    assert answer == explain(*simulator, [3, 7, 9], [True, False, True], 5)


def test_without_a_history_the_item_s_mean_is_all():
    simulator = random_simulator_of("soft")
    answer = explain(*simulator, [-1, -1], [0, 0], 5)
    assert (answer.history, answer.flips, answer.taste) == ((), (), 0.0)
    assert answer.probability == pytest.approx(sigmoid(answer.item_part))
    assert answer.probability == pytest.approx(probabilities(simulator.dataset, [], [])[5])
    assert "shares of the 0 interactions" in str(answer)
    assert str(answer) == str(explain(*simulator, [], [], 5))


@pytest.mark.parametrize("label", [0, 1])
def test_a_candidate_in_the_history_is_most_like_itself(label):
    simulator = random_simulator_of("soft")
    answer = explain(*simulator, [5, 5, 9], [label, label, 0], 5)
    repeated = [x for x in answer.history if x.item == 5]
    assert [x.position for x in repeated] in ([1, 0], [0, 1])
    for share in repeated:
        assert share.shared_pros == answer.candidate.pros
        assert share.shared_cons == answer.candidate.cons
        assert share.shared_categories == answer.candidate.categories
        assert share.kernel > 0


def test_an_open_draw_is_said_to_be_open():
    simulator = random_simulator_of("calibrated")
    answer = explain(*simulator, [3, 7], [1, 0], 5)
    assert answer.like is None
    assert f"with probability {answer.probability:.3f}: the draw is open" in str(answer)
    drawn = explain(*simulator, [3, 7], [1, 0], 5, key=jax.random.key(0))
    assert f"the probability of a like was {answer.probability:.3f}" in str(drawn)


def test_long_histories_are_cut_in_the_table_alone():
    simulator = random_simulator_of("soft")
    items = np.arange(20)
    answer = explain(*simulator, items, items % 2, 35)
    assert len(answer.history) == 20
    rest = f"{sum(x.log_odds for x in answer.history[12:]):+.3f}"
    (line,) = [x for x in str(answer).split("\n") if "... 8 more, together" in x]
    assert line.split()[0] == rest


def test_it_is_plain_data_and_html():
    simulator = random_simulator_of("calibrated")
    answer = explain(*simulator, [3, 7, 9], [1, 0, 1], 5)
    again = json.loads(json.dumps(answer.to_dict(), allow_nan=False))
    assert len(again["history"]) == 3
    assert sum(x["taste"] for x in again["history"]) == pytest.approx(again["taste"])
    markup = answer._repr_html_()
    assert markup.count("<p>") == 7  # the headline and six tables
    assert "w_2 g =" in markup


@pytest.mark.parametrize("name", ["x" * 300, "<b>[red]</b> " * 40, "漢字" * 80])
def test_the_tables_fit_a_terminal_whatever_the_names(name):
    simulator = random_simulator_of("calibrated")
    dataset = dataclasses.replace(
        simulator.dataset,
        items=simulator.dataset.items.assign(name=name),
        keywords=[f"{name} {k}" for k in range(len(simulator.dataset.keywords))],
    )
    answer = explain(dataset, *simulator[1:], [3, 7, 9], [1, 0, 1], 5)
    for line in str(answer).split("\n"):
        assert len(line) + sum(c in "漢字" for c in line) <= COLUMNS
    assert "<b>[red]" not in answer._repr_html_()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"candidate": 40}, r"candidate is 40, outside \[0, 40\)"),
        ({"user": -2}, "user is -2, outside"),
        ({"items": [0, 1, 41]}, r"history_items has 41, outside \[-1, 40\)"),
        ({"labels": [1, 0]}, "history_items has 3 entries and history_labels 2"),
        ({"key": 7}, r"key is 7, not a PRNG key: pass jax.random.key\(0\)"),
    ],
)
def test_bad_input_is_one_clear_line(change, words):
    asked = {"items": [3, 7, 9], "labels": [1, 0, 1], "candidate": 5, "user": -1, "key": None}
    with pytest.raises(InputError, match=words) as caught:
        explain(*random_simulator_of("calibrated"), *{**asked, **change}.values())
    assert "\n" not in str(caught.value)


def test_another_dataset_than_the_simulators_is_refused():
    dataset, env, params = random_simulator_of("calibrated")
    taste = {**dataset.taste, "item_effect": dataset.taste["item_effect"] + np.float32(0.1)}
    for other in (taste, None):
        with pytest.raises(InputError, match=r"another taste model than params: pass the dataset"):
            explain(dataclasses.replace(dataset, taste=other), env, params, [3, 7, 9], [1, 0, 1], 5)
