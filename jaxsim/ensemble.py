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
Semantics = Literal["paper", "released", "calibrated", "soft"]
SEMANTICS: tuple[str, ...] = get_args(Semantics)
STA_THRESHOLD = 0.5


@struct.dataclass
class Response:
    """The simulated user's response to one item.

    Attributes:
        like: int8[], 1 like, 0 dislike.
        rating: float32[], on the dataset's scale; None, and so no leaf, if the user model has no ratings.
        duration: float32[], in the dataset's unit (`duration_unit` of `jaxsim.Dataset`); None as above.
    """

    like: jax.Array
    rating: jax.Array | None = None
    duration: jax.Array | None = None


@struct.dataclass
class Reasons:
    """Why f_mat and f_sim voted as they did, with one entry for each history position.

    Attributes:
        considered: bool[H], whether the position is in h_C (same category, or all of the history if none is).
        liked: bool[H], considered and liked: I_pos. Positions considered but not liked are I_neg.
        matched: int32[H], number of shared keywords in the polarity of the label (0 if not considered).
        cosine: float32[H], in the polarity of the label (-inf if not considered or without keywords).
        most_similar: int32[2], position of the largest cosine among the disliked and among the liked items, the
            latest if several are equal; -1 if there is none.
        keywords: int32[H, K], the shared keywords; other entries are -1.
        coins: int8[2], the coins of f_mat and f_sim.
        tied: bool[2], whether these coins decided.
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
    """The simulator's decision on one candidate. Fields of a model that the semantics does not ask are None.

    Attributes:
        reward: float32[], what a recommendation earns: under "paper" 1 if at least two votes are 1 (Eq. 9).
        response: the user's response.
        probability: float32[], probability of a like before any coin or draw.
        alpha_pos, alpha_neg: int32[], numbers of matched keywords (Eq. 1, 2).
        beta_pos, beta_neg: float32[], largest cosines (Eq. 6, 7); -inf for the maximum over nothing.
        sta_probability: float32[], f_sta's probability of a like.
        votes: int8[3], of f_mat, f_sim and f_sta.
        reasons: `Reasons` if requested.
        taste: float32[], g(c) of the taste model.
        rating_probabilities: float32[K], of each rating of the scale, where responses have ratings.
        expected_duration: float32[], mean duration, where responses have durations.
    """

    reward: jax.Array
    response: Response
    probability: jax.Array
    alpha_pos: jax.Array = None  # type: ignore[assignment]
    alpha_neg: jax.Array = None  # type: ignore[assignment]
    beta_pos: jax.Array = None  # type: ignore[assignment]
    beta_neg: jax.Array = None  # type: ignore[assignment]
    sta_probability: jax.Array = None  # type: ignore[assignment]
    votes: jax.Array = None  # type: ignore[assignment]
    reasons: Reasons | None = None
    taste: jax.Array | None = None
    rating_probabilities: jax.Array | None = None
    expected_duration: jax.Array | None = None


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
        key: PRNG key of the two coins, of f_mat and f_sim.
        catalogue: pair tables or item features.
        candidate: int32[], an item.
        items: int32[H], the history, -1 pads anywhere.
        likes: int8[H], 1 like, any other number dislike.
        sta_logit: float32[], f_sta's log-odds.
        semantics: "paper", or "released" for the decisions of the authors' public code.
        with_reasons: fill `Decision.reasons`.
    """
    chex.assert_rank([candidate, items, likes, sta_logit], [0, 1, 1, 0])
    others, side = jnp.maximum(items, 0), (likes > 0).astype(jnp.int32)
    same_category = catalogue.same_category(candidate, others, side)
    liked, disliked = _sides(same_category, items >= 0, likes > 0, semantics)
    pairs = catalogue.compare(candidate, others, side, needed=liked | disliked)
    alpha_pos, alpha_neg = keyword_matching.alphas(pairs.shared, liked, disliked)
    beta_pos, beta_neg = similarity.betas(pairs.cosine, liked, disliked)

    key_mat, key_sim = jax.random.split(key)
    fair = jnp.float32(0.5)  # with an explicit type, so that 64-bit mode tosses the same coins
    coins = jnp.stack([jax.random.bernoulli(key_mat, fair), jax.random.bernoulli(key_sim, fair)])
    pos, neg = jnp.stack([alpha_pos, beta_pos]), jnp.stack([alpha_neg, beta_neg])
    tied = (pos == neg) & (semantics == "paper")
    logical = logical_vote(pos, neg, coins, liked.any(), disliked.any(), semantics)
    sta_probability = jax.nn.sigmoid(sta_logit)
    votes = jnp.append(logical, sta_probability >= STA_THRESHOLD).astype(jnp.int8)
    like = votes.sum(dtype=jnp.int8) >= 2
    reasons = None
    if with_reasons:
        history_keywords = catalogue.keywords[others, side]
        shared = keyword_matching.is_shared(catalogue.keywords[candidate, side], history_keywords)
        keywords = jnp.where(shared, history_keywords, -1)
        reasons = _reasons(liked, disliked, pairs, keywords, coins, tied)
    return Decision(
        alpha_pos=alpha_pos,
        alpha_neg=alpha_neg,
        beta_pos=similarity.to_float(beta_pos),
        beta_neg=similarity.to_float(beta_neg),
        sta_probability=sta_probability,
        votes=votes,
        probability=majority_probability(*jnp.where(jnp.append(tied, False), fair, votes)),
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
        coin: decides a tie: a toss in {0, 1}, or its mean 1/2 to get the probability of a like.
        any_liked, any_disliked: bool, whether the history has any such response.
        semantics: as in `decide`; "released" tosses no coin.

    Returns:
        0, 1 or the coin, of the type to which bool and the coin's type promote.
    """
    xp = pos.__array_namespace__()
    if semantics == "paper":
        return xp.where(pos == neg, coin, pos > neg)
    # Without liked items: a like. Otherwise without disliked items, or in a tie: a dislike.
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
    """Position int32[] of the largest cosine among the positions in `side` bool[H], the latest one; -1 if none."""
    if side.shape[0] == 0:
        return jnp.int32(-1)
    comparable = side & (cosine != NO_COSINE)
    latest_first = jnp.where(comparable, cosine, NO_COSINE)[::-1]
    best = (side.shape[0] - 1 - jnp.argmax(latest_first)).astype(jnp.int32)
    return jnp.where(comparable.any(), best, -1)


def _sides(
    same_category: jax.Array, valid: jax.Array, like: jax.Array, semantics: str
) -> tuple[jax.Array, jax.Array]:
    """Membership of I_pos and of I_neg, bool[H] each."""
    if semantics == "paper":
        considered = history_in_category(same_category, valid)
        return considered & like, considered & ~like
    # The released code falls back to all of the history for each side separately.
    return (
        history_in_category(same_category, valid & like),
        history_in_category(same_category, valid & ~like),
    )


@struct.dataclass
class Evidence:
    """The evidence of a history about all N items at once; appending an interaction updates it in O(N).

    On the axis of length 2, 0 is the negative polarity and 1 the positive. Fields "same" cover the history items
    in the candidate's category, fields "all" every history item.

    Attributes:
        same_exists: bool[2, N], whether there are history items.
        all_exists: bool[2], the same, which is one for all candidates.
        same_alpha, all_alpha: int32[2, N], numbers of matched keywords (Eq. 1, 2).
        same_beta, all_beta: int32[2, N], largest cosines in millionths (Eq. 6, 7).
    """

    same_exists: jax.Array
    all_exists: jax.Array
    same_alpha: jax.Array
    all_alpha: jax.Array
    same_beta: jax.Array
    all_beta: jax.Array


def no_evidence(num_items: int) -> Evidence:
    """The evidence of an empty history."""
    zero = jnp.zeros((2, num_items), jnp.int32)
    nothing = jnp.full((2, num_items), NO_COSINE)
    exists = jnp.zeros((2, num_items), bool)
    return Evidence(exists, jnp.zeros(2, bool), zero, zero, nothing, nothing)


def add_evidence(
    catalogue: Catalogue, evidence: Evidence, item: jax.Array, like: jax.Array
) -> Evidence:
    """Append one interaction to the evidence of a history.

    Args:
        catalogue: pair tables or item features.
        evidence: of the history before.
        item: int32[]; padding (below 0) changes nothing.
        like: int8[], 1 like, any other number dislike.
    """
    side = (like > 0).astype(jnp.int32)
    is_item = item >= 0
    item = jnp.maximum(item, 0)
    polarity = ((jnp.arange(2, dtype=jnp.int32) == side) & is_item)[:, None]  # [2, 1]
    pairs = catalogue.compare_all(item, side)  # a symmetric relation: the item's row is its column
    same = polarity & pairs.same_category[None]
    shared, cosine = pairs.shared[None], pairs.cosine[None]
    return Evidence(
        same_exists=evidence.same_exists | same,
        all_exists=evidence.all_exists | polarity[:, 0],
        same_alpha=evidence.same_alpha + jnp.where(same, shared, 0),
        all_alpha=evidence.all_alpha + jnp.where(polarity, shared, 0),
        same_beta=jnp.maximum(evidence.same_beta, jnp.where(same, cosine, NO_COSINE)),
        all_beta=jnp.maximum(evidence.all_beta, jnp.where(polarity, cosine, NO_COSINE)),
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
    """Probability that each item is liked, averaged over the coins, float32[N].

    Args:
        evidence: of the user's history.
        sta_logits: float32[N], f_sta's log-odds of each item.
        semantics: as in `decide`.
    """
    in_category = evidence.same_exists
    if semantics == "paper":
        in_category = in_category.any(axis=0, keepdims=True)
    alpha = jnp.where(in_category, evidence.same_alpha, evidence.all_alpha)
    beta = jnp.where(in_category, evidence.same_beta, evidence.all_beta)
    mat, sim = (_vote_probability(pair, evidence.all_exists, semantics) for pair in (alpha, beta))
    sta = (jax.nn.sigmoid(sta_logits) >= STA_THRESHOLD).astype(jnp.float32)
    return majority_probability(mat, sim, sta)


def majority_probability(mat: Array, sim: Array, sta: Array) -> Array:
    """Probability of at least two likes among three independent votes (Eq. 9).

    Args:
        mat, sim, sta: probability that each votes for a like; JAX or NumPy arrays of one shape.
    """
    return mat * sim + mat * sta + sim * sta - 2 * mat * sim * sta


def _vote_probability(pair: jax.Array, exists: jax.Array, semantics: str) -> jax.Array:
    (neg, pos), (any_disliked, any_liked) = pair, exists
    return logical_vote(pos, neg, 0.5, any_liked, any_disliked, semantics).astype(jnp.float32)
