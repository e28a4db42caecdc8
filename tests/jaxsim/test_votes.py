"""The three votes: worked by hand, and against the NumPy reference on random catalogues."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import jaxsim
from jaxsim import InputError
from jaxsim.catalogue import build_catalogue
from tests import reference
from tests.conftest import Simulator, simulator_of
from tests.factory import item_embeddings, make_dataset, padded, random_dataset

NOTHING = -np.inf

# ---- worked by hand --------------------------------------------------------------------------------------
#
# Keyword k has the k-th unit vector, so cos of two keyword sets is |shared| / sqrt(|a| |b|). The candidate is 0.
#
#        category  pros     cons
CATALOGUE = [
    ([0],         [0, 1],  [4]),     # 0
    ([0],         [0, 1, 2], [3]),   # 1  shares two pros: 2 / sqrt(2 * 3) = 0.816497
    ([0],         [3],     [4, 5]),  # 2  shares the con: 1 / sqrt(1 * 2) = 0.707107
    ([0],         [0],     []),      # 3  shares a pro: 1 / sqrt(2 * 1) = 0.707107
    ([0],         [2],     [5]),     # 4  shares nothing: 0
    ([0],         [],      []),      # 5  no keywords
    ([1],         [0, 1],  [4]),     # 6  the candidate's own keywords, in another category
    ([2],         [6],     [6]),     # 7  alone in its category
    ([0, 1],      [1],     [4]),     # 8  two categories; 0.707107 by its pro, 1 by its con
]  # fmt: skip
TWO, ONE = 0.816497, 0.707107
LIKE, DISLIKE = 1, 0


@pytest.fixture(scope="module", params=["tables", "features"])
def kind(request) -> str:
    """How the catalogue compares items."""
    return request.param


@pytest.fixture(scope="module")
def worked(kind) -> Simulator:
    categories, pros, cons = (list(column) for column in zip(*CATALOGUE, strict=True))
    sequences = [([0, 1, 2, 3, 4, 5], [1, 0, 1, 0, 1, 0])]
    dataset = make_dataset(categories, pros, cons, sequences, vectors=np.eye(7), window=6)
    return simulator_of(dataset, history_length=3, session_capacity=3, catalogue=kind)


def with_sta(worked: Simulator, logit: float) -> jaxsim.EnvParams:
    """Params whose f_sta gives every item the same log-odds."""
    weights = jax.tree.map(jnp.zeros_like, worked.params.sasrec)
    weights["params"]["offset"] = jnp.float32(logit)
    return worked.params.replace(sasrec=weights)


@partial(jax.jit, static_argnames="env")
def ask(env, key, items, labels, candidate, params):
    return env.respond(key, items, labels, candidate, params, reasons=True)


def decide(worked: Simulator, history, candidate=0, sta=0.0, semantics="paper", key=None):
    env = dataclasses.replace(worked.env, semantics=semantics)
    history = [*history, *[(-1, 0)] * (4 - len(history))]
    items, labels = np.array(history, np.int32).T
    key = jax.random.key(0) if key is None else key
    return ask(env, key, items, labels, candidate, with_sta(worked, sta))


@pytest.mark.parametrize(
    ("history", "candidate", "alphas", "betas", "votes"),
    [
        # The paper's case study: a con shared with a disliked place.
        ([(2, DISLIKE)], 0, (0, 1), (NOTHING, ONE), (0, 0)),
        # Pros shared with a liked place.
        ([(1, LIKE)], 0, (2, 0), (TWO, NOTHING), (1, 1)),
        # The polarity is that of the label: disliking 1 shares no con (4 against 3), liking 2 no pro.
        ([(1, DISLIKE)], 0, (0, 0), (NOTHING, 0.0), (None, 0)),
        ([(2, LIKE)], 0, (0, 0), (0.0, NOTHING), (None, 1)),
        # Alphas add over the items, betas take the largest.
        ([(1, LIKE), (3, LIKE), (2, DISLIKE)], 0, (3, 1), (TWO, ONE), (1, 1)),
        ([(3, LIKE), (2, DISLIKE), (2, DISLIKE)], 0, (1, 2), (ONE, ONE), (0, None)),
        # Both tie; a longer list of pros would not (0.8165 > 0.7071).
        ([(3, LIKE), (2, DISLIKE)], 0, (1, 1), (ONE, ONE), (None, None)),
        # Nothing shared, yet E_neg exists: cosine 0 against nothing.
        ([(4, DISLIKE)], 0, (0, 0), (NOTHING, 0.0), (None, 0)),
        # Same category first: 6 shares everything, but 4 is in the category and shares nothing.
        ([(6, LIKE), (4, LIKE)], 0, (0, 0), (0.0, NOTHING), (None, 1)),
        # None in the category: the whole history counts.
        ([(6, LIKE)], 0, (2, 0), (1.0, NOTHING), (1, 1)),
        # One shared category name of two is enough.
        ([(8, DISLIKE), (6, LIKE)], 0, (0, 1), (NOTHING, 1.0), (0, 0)),
        # An item without keywords is in h_C (no fall-back to 6), but adds nothing to either side.
        ([(5, LIKE), (6, LIKE)], 0, (0, 0), (NOTHING, NOTHING), (None, None)),
        ([(3, DISLIKE), (1, LIKE)], 0, (2, 0), (TWO, NOTHING), (1, 1)),
        # A candidate without keywords, and no history at all.
        ([(1, LIKE), (2, DISLIKE)], 5, (0, 0), (NOTHING, NOTHING), (None, None)),
        ([], 0, (0, 0), (NOTHING, NOTHING), (None, None)),
        # A category that the history never met.
        ([(1, LIKE), (2, DISLIKE)], 7, (0, 0), (0.0, 0.0), (None, None)),
    ],
)  # fmt: skip
def test_votes_worked_by_hand(worked, history, candidate, alphas, betas, votes):
    actual = decide(worked, history, candidate)
    assert (int(actual.alpha_pos), int(actual.alpha_neg)) == alphas
    atol = 1e-7 if worked.env.catalogue == "tables" else 1.1e-6
    np.testing.assert_allclose((actual.beta_pos, actual.beta_neg), betas, atol=atol)
    assert actual.reasons.tied.tolist() == [vote is None for vote in votes]
    coins = actual.reasons.coins.tolist()
    expected = [c if v is None else v for v, c in zip(votes, coins, strict=True)]
    assert actual.votes[:2].tolist() == expected


@pytest.mark.parametrize(
    ("history", "votes"),
    [
        ([(1, LIKE)], (0, 0)),  # nothing disliked
        ([(2, DISLIKE)], (1, 1)),  # nothing liked
        ([], (1, 1)),
        ([(3, LIKE), (2, DISLIKE)], (0, 0)),  # 1 = 1 and 0.7071 = 0.7071: a tie is a dislike
        ([(1, LIKE), (2, DISLIKE)], (1, 1)),
        # Each polarity falls back by itself: 6 counts as liked, though 2 is in the category.
        ([(6, LIKE), (2, DISLIKE)], (1, 1)),
    ],
)
def test_released_semantics_worked_by_hand(worked, history, votes):
    actual = decide(worked, history, semantics="released")
    assert tuple(actual.votes[:2].tolist()) == votes
    assert not actual.reasons.tied.any()


@pytest.mark.parametrize(
    ("history", "sta", "votes", "reward"),
    [
        ([(1, LIKE)], -1.0, [1, 1, 0], 1),
        ([(1, LIKE)], 1.0, [1, 1, 1], 1),
        ([(2, DISLIKE)], 1.0, [0, 0, 1], 0),
        ([(2, DISLIKE)], -1.0, [0, 0, 0], 0),
        ([(2, DISLIKE)], 0.0, [0, 0, 1], 0),  # a probability of exactly one half is a like
    ],
)
def test_reward_is_the_majority(worked, history, sta, votes, reward):
    actual = decide(worked, history, sta=sta)
    assert actual.votes.tolist() == votes
    assert actual.reward == reward == actual.response.like
    np.testing.assert_allclose(actual.sta_probability, 1 / (1 + np.exp(-sta)), rtol=1e-6)


def test_ties_are_decided_by_two_fair_independent_coins(worked):
    keys = jax.random.split(jax.random.key(3), 4000)
    actual = jax.vmap(lambda key: decide(worked, [], sta=-1.0, key=key))(keys)
    tossed = actual.votes[:, :2]
    outcomes = np.bincount(2 * tossed[:, 0] + tossed[:, 1], minlength=4)
    # Each of the four outcomes has probability 1/4: standard deviation sqrt(4000 * 3/16) = 27.4.
    assert np.abs(outcomes - 1000).max() < 4.5 * 27.4
    np.testing.assert_array_equal(actual.reward, tossed[:, 0] & tossed[:, 1])
    for row in range(3):
        again = decide(worked, [], sta=-1.0, key=keys[row])
        np.testing.assert_array_equal(again.votes[:2], tossed[row])


def test_no_coin_without_a_tie(worked):
    keys = jax.random.split(jax.random.key(3), 50)
    actual = jax.vmap(lambda key: decide(worked, [(2, DISLIKE)], key=key))(keys)
    assert not actual.votes[:, :2].any()


def test_reasons_name_the_matching_interactions(worked):
    reasons = decide(worked, [(1, LIKE), (6, LIKE), (2, DISLIKE)]).reasons
    assert reasons.considered.tolist() == [True, False, True, False]  # 6 is in another category
    assert reasons.liked.tolist() == [True, False, False, False]
    assert reasons.matched.tolist() == [2, 0, 1, 0]
    np.testing.assert_allclose(reasons.cosine, [TWO, NOTHING, ONE, NOTHING], atol=1.1e-6)
    assert reasons.most_similar.tolist() == [2, 0]  # among the disliked, among the liked
    assert [sorted(set(row) - {-1}) for row in reasons.keywords.tolist()] == [[0, 1], [], [4], []]


def test_of_equally_similar_items_the_latest_is_named(worked):
    reasons = decide(worked, [(3, LIKE), (3, LIKE), (4, LIKE), (-1, 0)]).reasons
    assert reasons.most_similar.tolist() == [-1, 1]


def test_reasons_of_no_history(worked):
    reasons = decide(worked, []).reasons
    assert reasons.most_similar.tolist() == [-1, -1]
    assert not reasons.considered.any()
    assert (np.asarray(reasons.keywords) == -1).all()
    nothing_known = decide(worked, [(5, LIKE), (3, DISLIKE)]).reasons
    assert nothing_known.considered[:2].all()
    assert nothing_known.most_similar.tolist() == [-1, -1]


def test_decision_has_the_promised_types(worked):
    actual = decide(worked, [(1, LIKE)])
    types = {
        name: getattr(actual, name).dtype.name for name in ("alpha_pos", "alpha_neg", "beta_pos")
    }
    assert types == {"alpha_pos": "int32", "alpha_neg": "int32", "beta_pos": "float32"}
    assert (actual.votes.dtype, actual.votes.shape) == (jnp.int8, (3,))
    assert (actual.reward.dtype, actual.reward.shape) == (jnp.float32, ())


# ---- against the reference -------------------------------------------------------------------------------

N, USERS, KEYWORDS, LONGEST = 10, 3, 6, 9
# Two equal vectors (ties), an opposite one (negative cosines); no subset of them adds up to zero.
VECTORS = np.array(
    [[1, 0, 0], [1, 0, 0], [-1, 0.5, 0], [0, 1, 0], [0, -0.3, 1], [0.3, 0.3, -0.9]], np.float64
)


SLOW_RELEASED = pytest.param("released", marks=pytest.mark.slow)  # worked by hand above


@pytest.fixture(scope="module", params=["paper", SLOW_RELEASED])
def tiny(request, kind) -> Simulator:
    """Ten items, and a window (6) shorter than the histories asked about."""
    sequences = [(list(range(6)), [0, 1, 1, 0, 1, 0])] * USERS
    dataset = make_dataset([[0]] * N, [[0]] * N, [[0]] * N, sequences, VECTORS, window=6)
    settings = {"history_length": 3, "session_capacity": 3, "catalogue": kind}
    return simulator_of(dataset, **settings, semantics=request.param)


@pytest.fixture(scope="module")
def respond(tiny):
    """env.respond, compiled for each length of history once."""

    def call(key, items, labels, candidate, params, user):
        return tiny.env.respond(key, items, labels, candidate, params, user, reasons=True)

    return jax.jit(call)


def item_lists(upper: int, least: int, most: int) -> st.SearchStrategy[list[list[int]]]:
    row = st.lists(st.integers(0, upper - 1), unique=True, min_size=least, max_size=most)
    return st.lists(row, min_size=N, max_size=N)


catalogues = st.tuples(item_lists(4, 0, 2), item_lists(KEYWORDS, 0, 3), item_lists(KEYWORDS, 0, 3))
histories = st.lists(
    st.tuples(st.integers(-1, N - 1), st.integers(0, 1)), min_size=LONGEST, max_size=LONGEST
) | st.just([(-1, 0)] * LONGEST)


def arrays_of(categories, pros, cons) -> dict[str, np.ndarray]:
    return {
        "item_categories": padded(categories),
        "item_pos_keywords": padded(pros),
        "item_neg_keywords": padded(cons),
        "item_pos_embedding": item_embeddings(pros, VECTORS),
        "item_neg_embedding": item_embeddings(cons, VECTORS),
    }


def millionths(beta) -> int | None:
    return None if beta == NOTHING else round(float(beta) * 1e6)


def assert_decision(actual, expected: reference.Decision, probability: float, exact: bool) -> None:
    """All numbers of a decision; where cosines are not exact, f_sim's vote may turn within two millionths."""
    assert (int(actual.alpha_pos), int(actual.alpha_neg)) == (expected.mat.pos, expected.mat.neg)
    np.testing.assert_allclose(actual.sta_probability, probability, atol=1e-5)
    betas = [millionths(actual.beta_pos), millionths(actual.beta_neg)]
    sides = [expected.sim.pos, expected.sim.neg]
    assert [b is None for b in betas] == [side is None for side in sides]
    apart = [abs(b - side) for b, side in zip(betas, sides, strict=True) if side is not None]
    assert max(apart, default=0) <= (0 if exact else 1)
    if not exact and None not in sides and 0 < abs(sides[0] - sides[1]) <= 2:
        return
    if not exact and sides[0] == sides[1] and betas[0] != betas[1]:
        return
    assert actual.reasons.tied.tolist() == [expected.mat.tied, expected.sim.tied]
    assert tuple(actual.votes.tolist()) == expected.votes
    assert int(actual.reward) == expected.reward == int(actual.response.like)


def check_against_reference(tiny, respond, lists, history, candidate, user, seed):
    arrays = arrays_of(*lists)
    params = tiny.params.replace(catalogue=build_catalogue(arrays, kind=tiny.env.catalogue))
    items = np.array([i for i, _ in history], np.int32)
    labels = np.array([y for _, y in history], np.int8)
    actual = respond(jax.random.key(seed), items, labels, candidate, params, user)

    real = reference.real_history(items, labels)
    logit = reference.sta_logit(tiny.dataset.sasrec, real[-tiny.env.window :], candidate, user)
    assume(abs(logit) > 1e-4)
    coins = tuple(actual.reasons.coins.tolist())
    expected = reference.respond(
        reference.items_of(arrays), real, candidate, reference.probability(logit), coins,
        tiny.env.semantics,
    )  # fmt: skip
    exact = tiny.env.catalogue == "tables"
    assert_decision(actual, expected, reference.probability(logit), exact)


@settings(deadline=None, max_examples=60)
@given(
    lists=catalogues,
    history=histories,
    candidate=st.integers(0, N - 1),
    user=st.integers(-1, USERS - 1),
    seed=st.integers(0, 2**31 - 1),
)
def test_respond_is_the_reference(tiny, respond, lists, history, candidate, user, seed):
    check_against_reference(tiny, respond, lists, history, candidate, user, seed)


@settings(deadline=None, max_examples=30)
@given(lists=catalogues, candidate=st.integers(0, N - 1), seed=st.integers(0, 2**31 - 1))
def test_respond_without_history_is_the_reference(tiny, respond, lists, candidate, seed):
    check_against_reference(tiny, respond, lists, [], candidate, -1, seed)


@settings(deadline=None, max_examples=15)
@given(lists=catalogues, history=histories, order=st.permutations(range(LONGEST)))
def test_padding_means_nothing(tiny, respond, lists, history, order):
    """The same interactions, in the same order, with the pads elsewhere."""
    catalogue = build_catalogue(arrays_of(*lists), kind=tiny.env.catalogue)
    params = tiny.params.replace(catalogue=catalogue)
    real = [pair for pair in history if pair[0] >= 0]
    moved = [(-1, 1)] * LONGEST
    for slot, pair in zip(sorted(order[: len(real)]), real, strict=True):
        moved[slot] = pair
    actual = [
        respond(jax.random.key(0), *np.array(h, np.int32).T, 0, params, -1).replace(reasons=None)
        for h in (history, moved)
    ]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), *actual)


@pytest.mark.slow  # compiles a program for each example
@settings(deadline=None, max_examples=4)
@given(
    seed=st.integers(0, 2**31 - 1),
    num_items=st.integers(6, 60),
    num_keywords=st.integers(1, 100),
    num_categories=st.integers(1, 70),
    num_blocks=st.integers(1, 3),
    longest=st.integers(1, 40),
    semantics=st.sampled_from(["paper", "released"]),
)
def test_catalogues_of_any_shape_are_the_reference(
    kind, seed, num_items, num_keywords, num_categories, num_blocks, longest, semantics
):
    dataset = random_dataset(
        seed, num_items=num_items, num_keywords=num_keywords, num_categories=num_categories,
        num_users=7, num_blocks=num_blocks, max_sequence=num_items,
    )  # fmt: skip
    _, env, params = simulator_of(dataset, semantics=semantics, catalogue=kind, repeats="allow")
    rng = np.random.default_rng(seed)
    count = 6
    items = rng.integers(-1, num_items, (count, longest)).astype(np.int32)
    labels = rng.integers(0, 2, (count, longest)).astype(np.int8)
    candidates, users = rng.integers(0, num_items, count), rng.integers(-1, 7, count)
    keys = jax.random.split(jax.random.key(seed), count)
    respond = jax.jit(partial(env.respond, reasons=True))
    actual = jax.vmap(respond, (0, 0, 0, 0, None, 0))(
        keys, items, labels, candidates, params, users
    )
    catalogue = reference.items_of(dataset.arrays)
    for row in range(count):
        history = reference.real_history(items[row], labels[row])
        logit = reference.sta_logit(
            dataset.sasrec, history[-env.window :], candidates[row], users[row], num_blocks
        )
        if abs(logit) < 1e-4:
            continue
        one = jax.tree.map(lambda x, row=row: x[row], actual)
        coins = tuple(one.reasons.coins.tolist())
        probability = reference.probability(logit)
        expected = reference.respond(
            catalogue, history, candidates[row], probability, coins, semantics
        )
        assert_decision(one, expected, probability, exact=kind == "tables")


def test_eager_jit_and_vmap_agree(tiny, respond):
    rng = np.random.default_rng(1)
    items = rng.integers(-1, N, (5, LONGEST)).astype(np.int32)
    labels = rng.integers(0, 2, (5, LONGEST)).astype(np.int32)
    keys = jax.random.split(jax.random.key(1), 5)
    candidates, users = rng.integers(0, N, 5), rng.integers(-1, USERS, 5)
    batch = jax.vmap(respond, (0, 0, 0, 0, None, 0))(
        keys, items, labels, candidates, tiny.params, users
    )

    def assert_equal(a, b):
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-6), a, b)

    for row in range(5):
        args = keys[row], items[row], labels[row], candidates[row], tiny.params, users[row]
        jitted = respond(*args)
        assert_equal(jitted, jax.tree.map(lambda x, row=row: x[row], batch))
    assert_equal(jitted, tiny.env.respond(*args, reasons=True))


# ---- what respond refuses, and what it makes of it in jit ------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"candidate": N}, r"candidate is 10, outside \[0, 10\)"),
        ({"candidate": -1}, r"candidate is -1, outside"),
        ({"candidate": 1.5}, r"candidate is float64\[\]: pass integers"),
        ({"history_items": [1, N]}, r"history_items has 10, outside \[-1, 10\).*padding"),
        ({"history_items": [1.0, 2.0]}, r"history_items is float64\[2\]: pass integers"),
        ({"history_items": [[1, 2]]}, r"history_items is int64\[1, 2\].*1 dimension: use jax.vmap"),
        ({"history_items": 1}, r"history_items is int64\[\].*pass a list"),
        ({"history_labels": [1, 5]}, r"history_labels has 5.*1 is a like"),
        ({"history_labels": [1]}, r"history_items has 2 entries and history_labels 1"),
        ({"user": USERS}, r"user is 3, outside \[-1, 3\)"),
        ({"key": 1}, r"key is 1, not a PRNG key"),
    ],
)
def test_bad_arguments_are_one_clear_line(tiny, change, message):
    good = {
        "key": jax.random.key(0), "history_items": [1, 2], "history_labels": [1, 0], "candidate": 3,
        "params": tiny.params, "user": 0,
    }  # fmt: skip
    tiny.env.respond(**good)
    with pytest.raises(InputError, match=message) as caught:
        tiny.env.respond(**{**good, **change})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("candidate", [-1, N, 2**31 - 1, -(2**31)])
def test_a_candidate_outside_the_catalogue_gets_nothing_in_jit(tiny, respond, candidate):
    for seed in range(4):
        actual = respond(jax.random.key(seed), [0, 1], [1, 1], candidate, tiny.params, 0)
        assert actual.votes.tolist() == [0, 0, 0]
        assert actual.reward == actual.response.like == actual.alpha_pos == actual.alpha_neg == 0
        assert actual.beta_pos == actual.beta_neg == NOTHING
        assert actual.sta_probability == 0
        assert not actual.reasons.considered.any()


def test_history_and_users_outside_the_dataset_are_skipped_in_jit(tiny, respond):
    """An index out of range never reads another item's row."""
    key, params = jax.random.key(0), tiny.params
    wild = respond(key, [N, 1, 2**31 - 1, -7], [1, 1, 0, 0], 3, params, USERS + 5)
    plain = respond(key, [-1, 1, -1, -1], [0, 1, 0, 0], 3, params, -1)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), wild, plain)


def test_no_history_may_be_an_empty_list(tiny):
    actual = tiny.env.respond(jax.random.key(0), [], [], 3, tiny.params)
    assert actual.alpha_pos == actual.alpha_neg == 0
