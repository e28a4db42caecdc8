"""One step of a session in words, for `GymnasiumEnv.render`."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from jaxsim.dataset import Dataset
from jaxsim.ensemble import Decision
from jaxsim.tables import format_table

_MODELS = ("f_mat", "f_sim", "f_sta")


@dataclass(frozen=True)
class Step:
    """What happened in a step.

    Attributes:
        user: whose session it is.
        time: which step of the episode, from 1.
        action: an item int[], or a slate int[K].
        reward: what it earned.
        terminated, truncated: whether the episode ended, and how.
        info: of `GymnasiumEnv.step`.
        window: the observation before it; empty if nothing is rendered.
    """

    user: int
    time: int
    action: np.ndarray
    reward: float
    terminated: bool
    truncated: bool
    info: dict[str, Any]
    window: dict[str, np.ndarray] = field(default_factory=dict)


def describe_step(step: Step, dataset: Dataset | None) -> str:
    """A few lines about a step.

    Args:
        step: what happened.
        dataset: knows the titles of items; None names them by index.
    """
    info = step.info
    lines = [_heading(step)]
    if info["invalid_action"]:
        shown = ", ".join(map(str, np.atleast_1d(step.action)))
        lines.append(f"item {shown}: invalid, so nothing was recommended")
    elif "slate" in info:
        lines.append(_slate(info, dataset))
    else:
        verb = "liked" if info["response"]["like"] else "disliked"
        lines.append(f"{item_words(int(step.action), dataset)}: {verb}{_signals(info, dataset)}")
    asked = not info["invalid_action"]
    if asked and "probability" in info:
        lines.append(f"probability of a like: {float(info['probability']):.3f}")
    if asked and "votes" in info:
        votes = zip(_MODELS, info["votes"], strict=True)
        lines.append("votes: " + ", ".join(f"{model} {vote}" for model, vote in votes))
    lines.append(f"earned: {step.reward:g}")
    if "departure_probability" in info:
        lines.append(f"chance of leaving: {float(info['departure_probability']):.3f}")
    return "\n".join([*lines, *_ending(step)])


def describe_reasons(decision: Decision, items: np.ndarray, dataset: Dataset) -> list[str]:
    """What f_mat and f_sim compared, one line for each side.

    Args:
        decision: of `UserSimulator.respond`, with its reasons, as NumPy arrays.
        items: int32[W], the history that it was given.
        dataset: of the simulator.
    """
    reasons = decision.reasons
    assert reasons is not None
    lines = []
    for side, (verb, keywords) in enumerate((("disliked", "cons"), ("liked", "pros"))):
        members = reasons.considered & (reasons.liked == bool(side))
        shared = sorted({int(k) for k in reasons.keywords[members].ravel() if k >= 0})
        words = ", ".join(dataset.keywords[k] for k in shared) or "none"
        position = int(reasons.most_similar[side])
        similar = ""
        if position >= 0:
            cosine = float(reasons.cosine[position])
            similar = f"; most similar: {item_words(int(items[position]), dataset)}, {cosine:.3f}"
        number = int(reasons.matched[members].sum())
        lines.append(f"shared {keywords} with {verb} items: {number} ({words}){similar}")
    probability = float(decision.sta_probability)
    return [*reversed(lines), f"probability of a like by the logs (f_sta): {probability:.3f}"]


def item_words(item: int, dataset: Dataset | None) -> str:
    """An item's title and index, or the index alone without a dataset."""
    if dataset is None:
        return f"item {item}"
    title = "".join(c if c.isprintable() else " " for c in dataset.item_name(item))
    return f'"{title}" (item {item})'


def _heading(step: Step) -> str:
    if "session" not in step.info:
        return f"step {step.time} of the session of user {step.user}"
    session, day = int(step.info["session"]) + 1, float(step.info["day"])
    return f"step {step.time} of user {step.user}: session {session} of their life, day {day:.1f}"


def _signals(info: dict[str, Any], dataset: Dataset | None) -> str:
    """Rating and duration, where the response has them."""
    response, words = info["response"], ""
    if "rating" in response:
        words += f", rating {float(response['rating']):.3g}"
    if "duration" in response:
        unit = None if dataset is None else dataset.duration_unit
        words += f", duration {float(response['duration']):.3g}" + (f" {unit}" if unit else "")
    return words


def _slate(info: dict[str, Any], dataset: Dataset | None) -> str:
    """The items of a slate with the probability that each is chosen, and the choice."""
    names = [*(item_words(int(item), dataset) for item in info["slate"]), "none"]
    chosen = int(info["place"]) % len(names)  # -1 stands for none, which is the last
    rows = [
        (n + 1 if n < len(names) - 1 else "", name, f"{p:.3f}", "chosen" if n == chosen else "")
        for n, (name, p) in enumerate(zip(names, info["probabilities"], strict=True))
    ]
    return format_table(("place", "item", "probability", ""), rows, left=(1, 3))


def _ending(step: Step) -> list[str]:
    if step.info.get("returned"):
        return [f"the user left, and returned after {float(step.info['gap_days']):.1f} days"]
    if step.terminated:
        return ["the user left" + (" for good" if "session" in step.info else "")]
    return ["the session was cut at its longest length"] if step.truncated else []
