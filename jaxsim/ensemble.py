"""The three votes on a candidate and their majority (Eq. 3, 8 and 9)."""

from typing import Literal, TypeVar, get_args

import chex
import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from jaxsim import keyword_matching, similarity
from jaxsim.catalogue import NO_COSINE, Catalogue, Pairs, history_in_category

Array = TypeVar("Array", jax.Array, np.ndarray)
Semantics = Literal["paper", "released"]
SEMANTICS: tuple[str, ...] = get_args(Semantics)
STA_THRESHOLD = 0.5


@struct.dataclass
class Response:
    """What the simulated user does with one item; more signals may join `like`.

    Attributes:
        like: int8[], 1 like, 0 dislike.
    """

    like: jax.Array


@struct.dataclass
class Reasons:
    """Why the two logical models voted as they did, one entry a history position.

    Attributes:
        considered: bool[H], the position is in h_C (same category, or all of the history if none is).
        liked: bool[H], considered and liked: I_pos. What is considered and not liked is I_neg.
        matched: int32[H], shared keywords in the polarity of the label (0 where not considered).
        cosine: float32[H] in the polarity of the label (-inf where not considered or no keyword).
        most_similar: int32[2], position of the largest cosine among the disliked and among the liked, the latest
            of equals; -1: none.
        keywords: int32[H, K], the shared keywords themselves among -1s.
        coins: int8[2], the coins of f_mat and f_sim.
        tied: bool[2], whether those coins decided.
    """

    considered: jax.Array
    liked: jax.Array
    matched: jax.Array
    cosine: jax.Array
    most_similar: jax.Array
    keywords: jax.Array
    coins: jax.Array
    tied: jax.Array


@struct.dataclass
class Decision:
    """The simulator's decision on one candidate.

    Attributes:
        alpha_pos, alpha_neg: int32[], matched keywords (Eq. 1, 2).
        beta_pos, beta_neg: float32[], largest cosines (Eq. 6, 7); -inf for the maximum over nothing.
        sta_probability: float32[], f_sta's probability of a like.
        votes: int8[3], f_mat, f_sim and f_sta.
        reward: float32[], 1 if at least two votes are 1 (Eq. 9).
        response: what the user does.
        reasons: `Reasons` if asked for, otherwise None.
    """

    alpha_pos: jax.Array
    alpha_neg: jax.Array
    beta_pos: jax.Array
    beta_neg: jax.Array
    sta_probability: jax.Array
    votes: jax.Array
    reward: jax.Array
    response: Response
    reasons: Reasons | None = None


def decide(
    key: jax.Array,
    catalogue: Catalogue,
    candidate: jax.Array,
    items: jax.Array,
    likes: jax.Array,
    sta_logit: jax.Array,
    semantics: str = "paper",
    with_reasons: bool = False,
) -> Decision:
    """Let the three models vote on a candidate.

    Args:
        key: PRNG key of the two coins, one a vote.
        catalogue: pair tables or item features.
        candidate: int32[].
        items: int32[H] history, -1 pads anywhere.
        likes: int8[H], 1 like, otherwise dislike.
        sta_logit: float32[], f_sta's log-odds.
        semantics: "paper", or "released" for the decisions of the authors' public code.
        with_reasons: fill `Decision.reasons`.
    """
    chex.assert_rank([candidate, items, likes, sta_logit], [0, 1, 1, 0])
    others, side = jnp.maximum(items, 0), (likes > 0).astype(jnp.int32)
    pairs = catalogue.compare(candidate, others, side)
    liked, disliked = _sides(pairs.same_category, items >= 0, likes > 0, semantics)
    alpha_pos, alpha_neg = keyword_matching.alphas(pairs.shared, liked, disliked)
    beta_pos, beta_neg = similarity.betas(pairs.cosine, liked, disliked)

    key_mat, key_sim = jax.random.split(key)
    fair = jnp.float32(0.5)  # of a fixed type, so that 64-bit mode tosses the same coins
    coins = jnp.stack([jax.random.bernoulli(key_mat, fair), jax.random.bernoulli(key_sim, fair)])
    pos, neg = jnp.stack([alpha_pos, beta_pos]), jnp.stack([alpha_neg, beta_neg])
    tied = (pos == neg) & (semantics == "paper")
    logical = logical_vote(pos, neg, coins, liked.any(), disliked.any(), semantics)
    probability = jax.nn.sigmoid(sta_logit)
    votes = jnp.append(logical, probability >= STA_THRESHOLD).astype(jnp.int8)
    like = votes.sum(dtype=jnp.int8) >= 2
    reasons = None
    if with_reasons:
        theirs = catalogue.keywords[others, side]
        shared = keyword_matching.is_shared(catalogue.keywords[candidate, side], theirs)
        keywords = jnp.where(shared, theirs, -1)
        reasons = _reasons(liked, disliked, pairs, keywords, coins, tied)
    return Decision(
        alpha_pos=alpha_pos,
        alpha_neg=alpha_neg,
        beta_pos=similarity.to_float(beta_pos),
        beta_neg=similarity.to_float(beta_neg),
        sta_probability=probability,
        votes=votes,
        reward=like.astype(jnp.float32),
        response=Response(like=like.astype(jnp.int8)),
        reasons=reasons,
    )


def logical_vote(
    pos: Array,
    neg: Array,
    coin: Array | float,
    any_liked: Array,
    any_disliked: Array,
    semantics: str,
) -> Array:
    """The vote of f_mat or f_sim from its two sides (Eq. 3, 8).

    Args:
        pos, neg: alphas or betas, JAX or NumPy arrays of one shape.
        coin: what decides a tie: a toss in {0, 1}, or its mean 1/2 for the probability of a like.
        any_liked, any_disliked: bool, whether the history holds such a response at all.
        semantics: as in `decide`; "released" tosses no coin.

    Returns:
        0, 1 or the coin, of the type that the coin and bool promote to.
    """
    xp = pos.__array_namespace__()
    if semantics == "paper":
        return xp.where(pos == neg, coin, pos > neg)
    # No liked history is a like, then no disliked history a dislike; so is a tie.
    return (pos > neg) & any_disliked | ~any_liked


def _reasons(
    liked: jax.Array,
    disliked: jax.Array,
    pairs: Pairs,
    keywords: jax.Array,
    coins: jax.Array,
    tied: jax.Array,
) -> Reasons:
    considered = liked | disliked
    return Reasons(
        considered=considered,
        liked=liked,
        matched=jnp.where(considered, pairs.shared, 0),
        cosine=jnp.where(considered, similarity.to_float(pairs.cosine), -jnp.inf),
        most_similar=jnp.stack([_most_similar(pairs.cosine, side) for side in (disliked, liked)]),
        keywords=jnp.where(considered[:, None], keywords, -1),
        coins=coins.astype(jnp.int8),
        tied=tied,
    )


def _most_similar(cosine: jax.Array, side: jax.Array) -> jax.Array:
    """Position of the largest cosine among bool[H] `side`, the latest of equals; -1 if none has one; int32[]."""
    if side.shape[0] == 0:
        return jnp.int32(-1)
    known = side & (cosine != NO_COSINE)
    latest_first = jnp.where(known, cosine, NO_COSINE)[::-1]
    best = (side.shape[0] - 1 - jnp.argmax(latest_first)).astype(jnp.int32)
    return jnp.where(known.any(), best, -1)


def _sides(
    same_category: jax.Array, valid: jax.Array, like: jax.Array, semantics: str
) -> tuple[jax.Array, jax.Array]:
    """Membership of I_pos and of I_neg, bool[H] each."""
    if semantics == "paper":
        considered = history_in_category(same_category, valid)
        return considered & like, considered & ~like
    # The released code falls back to all of the history for each side on its own.
    return (
        history_in_category(same_category, valid & like),
        history_in_category(same_category, valid & ~like),
    )


@struct.dataclass
class Evidence:
    """What a history says about every item at once; appending an interaction updates it in O(N).

    On the axis of length 2, 0 is the negative polarity and 1 the positive. "Same" counts history items in the
    candidate's category, "all" every history item.

    Attributes:
        same_count, all_count: int32[2, N], history items.
        same_alpha, all_alpha: int32[2, N], matched keywords (Eq. 1, 2).
        same_beta, all_beta: int32[2, N], largest cosines in millionths (Eq. 6, 7).
    """

    same_count: jax.Array
    all_count: jax.Array
    same_alpha: jax.Array
    all_alpha: jax.Array
    same_beta: jax.Array
    all_beta: jax.Array


def no_evidence(num_items: int) -> Evidence:
    """The evidence of an empty history."""
    zero = jnp.zeros((2, num_items), jnp.int32)
    nothing = jnp.full((2, num_items), NO_COSINE)
    return Evidence(zero, zero, zero, zero, nothing, nothing)


def add_evidence(
    catalogue: Catalogue, evidence: Evidence, item: jax.Array, like: jax.Array
) -> Evidence:
    """Append one interaction (int32[] item, < 0 changes nothing; int8[] like) to a history's evidence."""
    side = (like > 0).astype(jnp.int32)
    known = item >= 0
    item = jnp.maximum(item, 0)
    mine = ((jnp.arange(2) == side) & known)[:, None]  # [2, 1]
    pairs = catalogue.compare_all(item, side)  # a symmetric relation: the item's row is its column
    same = mine & pairs.same_category[None]
    shared, cosine = pairs.shared[None], pairs.cosine[None]
    return Evidence(
        same_count=evidence.same_count + same,
        all_count=evidence.all_count + mine,
        same_alpha=evidence.same_alpha + jnp.where(same, shared, 0),
        all_alpha=evidence.all_alpha + jnp.where(mine, shared, 0),
        same_beta=jnp.maximum(evidence.same_beta, jnp.where(same, cosine, NO_COSINE)),
        all_beta=jnp.maximum(evidence.all_beta, jnp.where(mine, cosine, NO_COSINE)),
    )


def gather_evidence(catalogue: Catalogue, items: jax.Array, likes: jax.Array) -> Evidence:
    """The evidence of a whole history: items int32[H] (-1 pads), likes int8[H]."""

    def append(
        evidence: Evidence, interaction: tuple[jax.Array, jax.Array]
    ) -> tuple[Evidence, None]:
        return add_evidence(catalogue, evidence, *interaction), None

    return jax.lax.scan(append, no_evidence(catalogue.num_items), (items, likes))[0]


def expected_likes(
    evidence: Evidence, sta_logits: jax.Array, semantics: str = "paper"
) -> jax.Array:
    """Probability that each item is liked, coins averaged, float32[N].

    Args:
        evidence: of the history.
        sta_logits: float32[N], f_sta's log-odds of each item.
        semantics: as in `decide`.
    """
    count = evidence.same_count
    in_category = count.sum(axis=0, keepdims=True) > 0 if semantics == "paper" else count > 0
    alpha = jnp.where(in_category, evidence.same_alpha, evidence.all_alpha)
    beta = jnp.where(in_category, evidence.same_beta, evidence.all_beta)
    mat, sim = (_vote_probability(pair, evidence.all_count, semantics) for pair in (alpha, beta))
    sta = (jax.nn.sigmoid(sta_logits) >= STA_THRESHOLD).astype(jnp.float32)
    return majority_probability(mat, sim, sta)


def majority_probability(mat: Array, sim: Array, sta: Array) -> Array:
    """Probability of at least two likes among three independent votes of these probabilities (Eq. 9).

    Args:
        mat, sim, sta: JAX or NumPy arrays of one shape, in [0, 1].
    """
    return mat * sim + mat * sta + sim * sta - 2 * mat * sim * sta


def _vote_probability(pair: jax.Array, all_count: jax.Array, semantics: str) -> jax.Array:
    (neg, pos), (any_disliked, any_liked) = pair, all_count > 0
    return logical_vote(pos, neg, 0.5, any_liked, any_disliked, semantics).astype(jnp.float32)
