"""Options of `jaxsim.make` beyond its own arguments: slates, and users who return."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal, TypedDict

from annotated_types import Gt

from jaxsim.dataset import Dataset
from jaxsim.environment import UserSimulator
from jaxsim.errors import InputError
from jaxsim.settings import check_settings
from jaxsim.slate_options import SlateOptions, make_items_or_slates
from jaxsim.types import EnvParams
from jaxsim.visits import HORIZON_DAYS


class VisitOptions(TypedDict, total=False):
    """The arguments of `jaxsim.make` for users who return.

    Attributes:
        visits: whether an episode is a life of several sessions; False by default. See `jaxsim.visits`.
        horizon_days: days of a life, 30 by default. Who has not returned by then is gone.
    """

    visits: bool
    horizon_days: float | None


class FurtherOptions(SlateOptions, VisitOptions, total=False):
    """All of these options."""


@dataclass(frozen=True)
class Visits:
    """`VisitOptions` with defaults and bounds."""

    visits: Literal[False, True] = False
    horizon_days: Annotated[float, Gt(0)] | None = None


def make_with_options(
    options: FurtherOptions,
    dataset: Dataset,
    settings: Any,
    make: Callable[[Dataset, Any], tuple[UserSimulator, EnvParams]],
) -> tuple[Any, EnvParams]:
    """The environment and its params, with these options.

    Args:
        options: of slates and of visits.
        dataset: as `jaxsim.make`.
        settings: all other settings of `jaxsim.make`, a frozen dataclass.
        make: (dataset, settings) -> the environment of single items and its params.

    Raises:
        InputError: an option that is out of bounds or has no meaning, or that the dataset cannot serve.
        TypeError: there is no such option.
    """
    unknown = sorted(set(options) - set(FurtherOptions.__annotations__))
    if unknown:
        raise TypeError(f"make() got an unexpected keyword argument {unknown[0]!r}")
    visits = _checked(_those_of(VisitOptions, options))
    horizon = HORIZON_DAYS if visits.horizon_days is None else float(visits.horizon_days)
    if visits.visits:
        settings = replace(settings, visits=True, horizon_days=horizon)
    return make_items_or_slates(_those_of(SlateOptions, options), dataset, settings, make)


def _those_of(kind: Any, options: Mapping[str, Any]) -> Any:
    return {name: value for name, value in options.items() if name in kind.__annotations__}


def _checked(options: VisitOptions) -> Visits:
    visits = Visits(**options)
    check_settings(visits)
    if visits.horizon_days is not None and not visits.visits:
        raise InputError("horizon_days is a setting of visits: give visits=True with it")
    return visits
