"""The settings of slates in `jaxsim.make`: checks, and what they change in the environment of single items."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Annotated, Any, TypedDict

import jax.numpy as jnp
from annotated_types import Ge

from jaxsim.dataset import Dataset
from jaxsim.environment import UserSimulator
from jaxsim.errors import InputError
from jaxsim.settings import check_settings
from jaxsim.slate_choice import OUTSIDE_OPTION, POSITION_EFFECT, Unchosen, entry_capacity
from jaxsim.slates import SlateSimulator
from jaxsim.types import EnvParams
from jaxsim.user_models import TASTE_SEMANTICS


class SlateOptions(TypedDict, total=False):
    """The arguments of `jaxsim.make` for slates.

    Attributes:
        slate_size: K, the number of items that are shown at a time; 1 (the default) or None for single items.
        position_effect: slope of the utility of a place in the logarithm of its rank; -1 by default.
        outside_option: utility of choosing none; 0 by default, so that a slate of one item is chosen as often as
            the item is liked.
        unchosen: what enters the history as disliked if none is chosen: items that were "examined" (the default),
            or the item at the "top"; see `jaxsim.slates`.
    """

    slate_size: int | None
    position_effect: float
    outside_option: float
    unchosen: Unchosen


@dataclass(frozen=True)
class Slates:
    """`SlateOptions` with defaults and bounds."""

    slate_size: Annotated[int, Ge(1)] | None = None
    position_effect: float = POSITION_EFFECT
    outside_option: float = OUTSIDE_OPTION
    unchosen: Unchosen = "examined"


def make_items_or_slates(
    options: SlateOptions,
    dataset: Dataset,
    settings: Any,
    make: Callable[[Dataset, Any], tuple[UserSimulator, EnvParams]],
) -> tuple[Any, EnvParams]:
    """The environment and its params: a `UserSimulator`, or a `SlateSimulator` for more than one item at a time.

    Args:
        options: of slates.
        dataset: as `jaxsim.make`.
        settings: all other settings of `jaxsim.make`, a frozen dataclass.
        make: (dataset, settings) -> the environment of single items and its params.

    Raises:
        InputError: an option that is out of bounds or has no meaning, a semantics without probabilities, or more
            items to show than the catalogue has.
    """
    slates = _checked(options)
    if slates.slate_size is None or slates.slate_size == 1:
        return make(dataset, settings)
    steps = settings.session_capacity
    _check(slates.slate_size, dataset, settings)
    choice = int(slates.slate_size), float(slates.position_effect), float(slates.outside_option)
    entries = entry_capacity(steps, slates.unchosen, *choice)
    env, params = make(dataset, replace(settings, session_capacity=entries))
    size, effect, outside = choice
    wrapped = SlateSimulator(env, size, steps, effect, outside, slates.unchosen)
    return wrapped, params.replace(max_steps_in_episode=jnp.int32(steps))


def _checked(options: SlateOptions) -> Slates:
    slates = Slates(**options)
    check_settings(slates)
    others = sorted(set(options) - {"slate_size"})
    if others and slates.slate_size in (None, 1):
        raise InputError(f"{others[0]} is a setting of slates: give slate_size=2 or more with it")
    return slates


def _check(size: int, dataset: Dataset, settings: Any) -> None:
    if settings.semantics not in TASTE_SEMANTICS:
        raise InputError(
            f"slate_size={size} needs probabilities of a like, which semantics={settings.semantics!r} does not "
            'have: use semantics="calibrated" or "soft"'
        )
    if settings.reward != "like" or settings.signals == "all":
        raise InputError(
            "slates earn likes, without ratings and durations: leave out reward and signals, or slate_size"
        )
    masks = settings.repeats == "mask"
    shown = settings.history_length + size * settings.session_capacity if masks else size
    if shown >= dataset.num_items:
        what = "history_length + slate_size * session_capacity" if masks else "slate_size"
        raise InputError(
            f"{what} is {shown:,}, too many for a catalogue of {dataset.num_items:,} items: lower one of them"
            + (', or use repeats="allow"' if masks else "")
        )
