"""Sample sessions as plain values for the explorer of the page: what was recommended, and why users liked it.

Reasons are those of `jaxsim.explain`. Responses and votes are those of the session itself.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from agents.algorithms.policy import Simulator, single_of
from agents.report.sessions import SampleSession
from agents.runs.experiment import PreparedRun
from jaxsim import Dataset, Explanation, SlateSimulator, TasteExplanation, explain
from jaxsim.explanation.words import ItemWords

VOTES, TASTE, SLATE = "votes", "taste", "slate"
FLIPS, SHARES, PARTS = 3, 5, 3  # of a recommendation, a taste and an interaction, at most
_SMALLEST = 0.005  # log-odds that would be shown as 0.00


class Vocabulary:
    """Words and items of the explorer, each written once; reasons hold their numbers."""

    def __init__(self, dataset: Dataset) -> None:
        self._lookup = ItemWords(dataset)
        self._words: dict[str, int] = {}
        self._items: dict[int, int] = {}
        self._described: list[list[Any]] = []

    def words(self, words: Iterable[str]) -> list[int]:
        """The numbers of some words."""
        return [self._words.setdefault(word, len(self._words)) for word in words]

    def item(self, item: int) -> int:
        """The number of an item, by its index in the dataset."""
        if item not in self._items:
            self._items[item] = len(self._items)
            about = self._lookup.describe(item)
            lists = (about.categories, about.pros, about.cons)
            self._described.append([about.name, *(self.words(x) for x in lists)])
        return self._items[item]

    def to_json(self) -> dict[str, Any]:
        """All words, and of all items name, categories, pros and cons."""
        return {"words": list(self._words), "items": self._described}


def kind_of(env: Simulator) -> str:
    """What decides: VOTES, TASTE, or the choice from a SLATE, which has no reasons in words."""
    if isinstance(env, SlateSimulator):
        return SLATE
    return TASTE if env.semantics in ("calibrated", "soft") else VOTES


def describe_session(
    run: PreparedRun,
    vocabulary: Vocabulary,
    session: SampleSession,
    flips: int,
    progress: Callable[[], object] = lambda: None,
) -> dict[str, Any]:
    """A session as plain values.

    Args:
        run: with its simulator.
        vocabulary: takes the words and the items.
        session: to describe.
        flips: for how many recommendations, from the first, to look for the changes that flip the response. This
            takes nearly all of the time.
        progress: is called after each step.
    """
    steps = []
    items, likes = session.items.tolist(), session.likes.tolist()
    for time, record in enumerate(session.steps.to_dict("records")):
        row = {str(name): value for name, value in record.items()}
        if kind_of(run.env) == SLATE:
            step = _slate_step(vocabulary, row)
        else:
            step = _step(run, vocabulary, session, time, row, (items, likes), time < flips)
        items.append(row["item"])
        likes.append(row["like"])
        steps.append(step)
        progress()
    history = zip(session.items.tolist(), session.likes.tolist(), strict=True)
    return {
        "user": session.user,
        "group": session.group,
        "differs": not session.is_as_recorded,
        "history": [[vocabulary.item(item), int(like)] for item, like in history],
        "steps": steps,
    }


def _step(
    run: PreparedRun,
    vocabulary: Vocabulary,
    session: SampleSession,
    time: int,
    row: Mapping[str, Any],
    before: tuple[Sequence[int], Sequence[int]],
    flips: bool,
) -> dict[str, Any]:
    """One recommendation: the row of the log, and the reasons after the items and likes `before` it."""
    env = single_of(run.env)
    # As `agents.evaluation.sessions` and `step_env` split the session's key, so that coins fall alike.
    key_env, _ = jax.random.split(jax.random.fold_in(session.key, time))
    key_response, _ = jax.random.split(key_env)
    items, likes = np.array(before[0], np.int32), np.array(before[1], np.int8)
    why = explain(
        run.dataset, env, run.params, items, likes, int(row["item"]), session.user, key_response,
        flips=flips,
    )  # fmt: skip
    step = {"item": vocabulary.item(int(row["item"])), "like": int(row["like"]), **_signals(row)}
    if isinstance(why, TasteExplanation):
        return {**step, "p": _short(row["probability"]), **_taste_reasons(vocabulary, why)}
    votes = [int(row[name]) for name in ("f_mat", "f_sim", "f_sta")]
    return {**step, "votes": votes, **_vote_reasons(vocabulary, why)}


def _signals(row: Mapping[str, Any]) -> dict[str, float | None]:
    """What else the log says of a response, where there is such a thing."""
    names = ("rating", "duration", "departure_probability", "session", "day")
    return {name: _short(row[name]) for name in names if name in row}


def _vote_reasons(vocabulary: Vocabulary, why: Explanation) -> dict[str, Any]:
    similar = [why.most_similar_disliked, why.most_similar_liked]
    return {
        "coins": [vote.tied for vote in why.votes],
        "alpha": [why.alpha_neg, why.alpha_pos],
        "beta": [None if x is None else _short(x) for x in (why.beta_neg, why.beta_pos)],
        "similar": [None if x is None else x.position for x in similar],
        "sta": _short(why.sta_probability),
        "read": len(why.history),
        "all": why.history_length,
        "matched": [
            [vocabulary.words([x.keyword])[0], int(x.polarity == "pro"), list(x.positions)]
            for x in why.matched
        ],
        **_flips(why.flips_sought, [(flip.changes, None) for flip in why.flips]),
    }


def _taste_reasons(vocabulary: Vocabulary, why: TasteExplanation) -> dict[str, Any]:
    sums = {"item": why.item_part, "taste": why.taste_part}
    if why.exposure is not None:
        sums["being chosen"] = why.exposure_part
    if why.redundancy is not None:
        sums["satiation"] = why.satiation_part
    rest = why.history[SHARES:]
    return {
        "posterior": _short(why.probability),
        "sums": _named(sums.items()),
        "parts": _named((part.part, part.log_odds) for part in why.parts),
        "shares": [
            [
                share.position,
                _short(share.log_odds),
                _named(
                    (part.part, part.log_odds)
                    for part in share.parts[:PARTS]
                    if abs(part.log_odds) >= _SMALLEST
                ),
                vocabulary.words(share.shared_pros),
                vocabulary.words(share.shared_cons),
            ]
            for share in why.history[:SHARES]
        ],
        "rest": [len(rest), _short(sum(share.log_odds for share in rest))],
        **_flips(why.flips_sought, [(flip.changes, flip.probability) for flip in why.flips]),
    }


def _flips(sought: bool, flips: Sequence[tuple[Iterable[object], float | None]]) -> dict[str, Any]:
    """The first changes that give the opposite decision, with the probability after them; and their number."""
    if not sought:
        return {}
    shown = [
        [" and ".join(map(str, changes)), None if p is None else _short(p)]
        for changes, p in flips[:FLIPS]
    ]
    return {"flips": shown, "all_flips": len(flips)}


def _slate_step(vocabulary: Vocabulary, row: Mapping[str, Any]) -> dict[str, Any]:
    """A slate with the probability of each place and of none, and the place that was chosen."""
    return {
        "slate": [vocabulary.item(int(item)) for item in row["slate"]],
        "chances": [_short(p) for p in row["probabilities"]],
        "place": int(row["place"]),
        "like": int(row["like"]),
        **_signals(row),
    }


def _named(pairs: Iterable[tuple[str, float]]) -> list[list[Any]]:
    return [[name, _short(value)] for name, value in pairs]


def _short(value: float) -> float | None:
    """Three decimals; None for what is missing."""
    return round(float(value), 3) if np.isfinite(value) else None
