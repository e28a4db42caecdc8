"""Eq. 1 to 9 and SASRec once more, in plain NumPy and float64, one item and one token at a time."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

Weights = dict[str, np.ndarray]
History = Sequence[tuple[int, int]]  # (item, label)


@dataclass(frozen=True)
class Item:
    """D_cate, and D and E of each polarity (0 negative, 1 positive)."""

    categories: frozenset[int]
    keywords: tuple[frozenset[int], frozenset[int]]
    embedding: tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Vote:
    """One logical model: its two sides (None is the maximum over nothing), its vote, and whether a coin fell."""

    pos: int | None
    neg: int | None
    vote: int
    tied: bool


@dataclass(frozen=True)
class Decision:
    """The three votes and their majority (Eq. 9)."""

    mat: Vote
    sim: Vote
    votes: tuple[int, int, int]
    reward: int


def items_of(arrays: dict[str, np.ndarray]) -> list[Item]:
    """The items of a packed dataset's arrays."""

    def members(row: np.ndarray) -> frozenset[int]:
        return frozenset(int(x) for x in row if x >= 0)

    return [
        Item(
            members(arrays["item_categories"][i]),
            (members(arrays["item_neg_keywords"][i]), members(arrays["item_pos_keywords"][i])),
            (arrays["item_neg_embedding"][i], arrays["item_pos_embedding"][i]),
        )
        for i in range(len(arrays["item_categories"]))
    ]


def real_history(items: Sequence[int], labels: Sequence[int]) -> list[tuple[int, int]]:
    """The interactions of padded arrays; any label that is not a like is a dislike."""
    return [(int(i), int(y > 0)) for i, y in zip(items, labels, strict=True) if i >= 0]


def same_category(catalogue: Sequence[Item], candidate: int, history: History) -> History:
    """h_C: the interactions with items of the candidate's category; all of them if there is none."""
    own = catalogue[candidate].categories
    return [(i, y) for i, y in history if catalogue[i].categories & own] or history


def sides(
    catalogue: Sequence[Item], candidate: int, history: History, semantics: str
) -> tuple[list[int], list[int]]:
    """I_neg and I_pos."""
    if semantics == "paper":
        chosen = same_category(catalogue, candidate, history)
        return [i for i, y in chosen if y == 0], [i for i, y in chosen if y == 1]
    neg, pos = (
        same_category(catalogue, candidate, [(i, y) for i, y in history if y == label])
        for label in (0, 1)
    )
    return [i for i, _ in neg], [i for i, _ in pos]


def cosine(a: np.ndarray, b: np.ndarray) -> int | None:
    """In millionths; None if either is the zero vector of an item without keywords."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    if not a.any() or not b.any():
        return None
    return round(1e6 * float(a @ b) / math.sqrt(float(a @ a) * float(b @ b)))


def alpha(catalogue: Sequence[Item], candidate: int, side: Sequence[int], polarity: int) -> int:
    """Eq. 1 and 2."""
    own = catalogue[candidate].keywords[polarity]
    return sum(len(own & catalogue[i].keywords[polarity]) for i in side)


def beta(
    catalogue: Sequence[Item], candidate: int, side: Sequence[int], polarity: int
) -> int | None:
    """Eq. 6 and 7."""
    own = catalogue[candidate].embedding[polarity]
    actual = [cosine(own, catalogue[i].embedding[polarity]) for i in side]
    return max((c for c in actual if c is not None), default=None)


def compare(pos: int | None, neg: int | None, coin: int, labels: set[int], semantics: str) -> Vote:
    """Eq. 3 and 8; `labels` are those in the whole history."""
    low = -(10**9)
    difference = (low if pos is None else pos) - (low if neg is None else neg)
    if semantics == "paper":
        vote = coin if difference == 0 else int(difference > 0)
        return Vote(pos, neg, vote, difference == 0)
    if 1 not in labels:
        return Vote(pos, neg, 1, False)
    if 0 not in labels:
        return Vote(pos, neg, 0, False)
    return Vote(pos, neg, int(difference > 0), False)


def respond(
    catalogue: Sequence[Item],
    history: History,
    candidate: int,
    sta_probability: float,
    coins: tuple[int, int],
    semantics: str = "paper",
) -> Decision:
    """The decision on a candidate, given how f_mat's and f_sim's coins fall."""
    neg, pos = sides(catalogue, candidate, history, semantics)
    labels = {y for _, y in history}
    mat, sim = (
        compare(
            of(catalogue, candidate, pos, 1),
            of(catalogue, candidate, neg, 0),
            coin,
            labels,
            semantics,
        )
        for of, coin in ((alpha, coins[0]), (beta, coins[1]))
    )
    votes = mat.vote, sim.vote, int(sta_probability >= 0.5)
    return Decision(mat, sim, votes, int(sum(votes) >= 2))


def expected_response(
    catalogue: Sequence[Item],
    history: History,
    candidate: int,
    sta_probability: float,
    semantics: str = "paper",
) -> float:
    """The reward, averaged over the four ways in which two fair coins fall."""
    rewards = [
        respond(catalogue, history, candidate, sta_probability, coins, semantics).reward
        for coins in itertools.product((0, 1), repeat=2)
    ]
    return sum(rewards) / 4


# ---- SASRec ----------------------------------------------------------------------------------------------

DECAYS = (
    0.75,
    1.0,
)  # of the running means of residuals, in every test whose weights have a projection of them


def _layer_norm(x: np.ndarray, weights: Weights, name: str) -> np.ndarray:
    centred = x - x.mean()
    unit = centred / math.sqrt(float((centred**2).mean()) + 1e-6)
    return unit * weights[f"{name}/scale"] + weights[f"{name}/bias"]


def _dense(x: np.ndarray, weights: Weights, name: str) -> np.ndarray:
    return x @ weights[f"{name}/kernel"] + weights[f"{name}/bias"]


def _gelu(x: np.ndarray) -> np.ndarray:
    return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def _attend(query: np.ndarray, keys: np.ndarray, values: np.ndarray) -> np.ndarray:
    """One query [d] on keys and values [T, d]."""
    scores = keys @ query / math.sqrt(len(query))
    attention = np.exp(scores - scores.max())
    return attention @ values / attention.sum()


def encode(weights: Weights, history: History, num_blocks: int, num_heads: int) -> np.ndarray:
    """What SASRec knows after each token of a history without padding, float64[T, width]."""
    weights = {name: w.astype(np.float64) for name, w in weights.items()}
    tokens = [
        weights["item_embedding/embedding"][item + 1]
        + weights["response_embedding/embedding"][label]
        + weights["position_embedding/embedding"][position]
        for position, (item, label) in enumerate(history)
    ]
    for b in range(num_blocks):
        name = f"blocks_{b}"
        projected = [
            _dense(
                _layer_norm(x, weights, f"{name}/attention_norm"),
                weights,
                f"{name}/query_key_value",
            )
            for x in tokens
        ]
        # [T, 3, heads, width / heads]
        parts = np.array(projected).reshape(len(tokens), 3, num_heads, -1)
        for t, x in enumerate(tokens):
            heads = [
                _attend(parts[t, 0, h], parts[: t + 1, 1, h], parts[: t + 1, 2, h])
                for h in range(num_heads)
            ]
            x = x + _dense(np.concatenate(heads), weights, f"{name}/output")
            inner = _layer_norm(x, weights, f"{name}/feed_forward_norm")
            inner = _gelu(_dense(inner, weights, f"{name}/expand"))
            tokens[t] = x + _dense(inner, weights, f"{name}/contract")
    hidden = np.array([_layer_norm(x, weights, "hidden_norm") for x in tokens])
    if "residual_projection" in weights:
        means = [residual_means(weights, history[: t + 1]) for t in range(len(history))]
        hidden = hidden + np.array(means) @ weights["residual_projection"]
    return hidden


def residual_means(weights: Weights, history: History) -> list[float]:
    """For each of DECAYS, the mean residual of a history, with five more residuals of 0."""
    rates = weights["item_rate"].astype(np.float64)
    means = []
    for decay in DECAYS:
        total, count = 0.0, 0.0
        for item, label in history:
            total, count = decay * total + label - rates[item + 1], decay * count + 1
        means.append(total / (count + 5))
    return means


def sta_logit(
    weights: Weights,
    history: History,
    candidate: int,
    user: int,
    num_blocks: int = 2,
    num_heads: int = 1,
) -> float:
    """f_sta's log-odds of a like."""
    effects = weights["user_effect"].astype(np.float64)
    logit = weights["item_effect"][candidate + 1] + weights["offset"]
    logit = float(logit) + float(effects.mean() if user < 0 else effects[user])
    if not history:
        return logit
    hidden = encode(weights, history, num_blocks, num_heads)[-1]
    direction = (
        weights["common_candidate"] + weights["candidate_embedding/embedding"][candidate + 1]
    )
    return logit + float(hidden @ direction)


def probability(logit: float) -> float:
    return 1 / (1 + math.exp(-logit))
