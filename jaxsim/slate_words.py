"""What a user did with a slate, in one sentence."""

from typing import Any

import numpy as np

from jaxsim.dataset import Dataset
from jaxsim.errors import InputError
from jaxsim.explanation.words import ItemWords


def describe_choice(dataset: Dataset, info: dict[str, Any], position_effect: float) -> str:
    """The sentence; see `SlateSimulator.describe`."""
    if np.ndim(info["place"]) != 0:
        raise InputError("info is of several sessions: pass jax.tree.map(lambda x: x[i], info)")
    if info["invalid_action"]:
        return "The slate was invalid, so nothing was shown."
    words, size, place = ItemWords(dataset), len(info["slate"]), int(info["place"])
    probabilities = np.asarray(info["probabilities"])
    alone = 1.0 / (1.0 + np.exp(-np.asarray(info["scores"], np.float64)))

    def at(place: int) -> str:
        name = words.name(int(info["slate"][place]))
        factor = (place + 1.0) ** position_effect
        effect = f", and place {place + 1} multiplies the odds by {factor:.2f}" if place else ""
        return (
            f"{name!r} at place {place + 1} of {size} (probability {probabilities[place]:.2f}: "
            f"alone it is liked with {alone[place]:.2f}{effect})"
        )

    likeliest = int(np.argmax(probabilities[:-1]))
    none = f"none has probability {probabilities[-1]:.2f}"
    if place < 0:
        return f"The user chose none; {none}, and most probable was {at(likeliest)}."
    if place == likeliest:
        return f"The user chose {at(place)}, the most probable item; {none}."
    return f"The user chose {at(place)}; {none}, and most probable was {at(likeliest)}."
