"""Options of `jaxsim.make` beyond its own arguments: slates, users who return, and f_sta's cache."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal, TypedDict

from annotated_types import Gt

from jaxsim.dataset import Dataset
from jaxsim.environment import UserSimulator
from jaxsim.errors import InputError
from jaxsim.sasrec import CacheDtype
from jaxsim.settings import check_settings
from jaxsim.slate_options import SlateOptions, make_items_or_slates
from jaxsim.types import EnvParams
from jaxsim.user_models import TASTE_SEMANTICS
from jaxsim.visits import HORIZON_DAYS


class VisitOptions(TypedDict, total=False):
    """The arguments of `jaxsim.make` for users who return.

    Attributes:
        visits: whether an episode is a life of several sessions; False by default. See `jaxsim.visits`.
        horizon_days: days of a life, 30 by default. Who has not returned by then is gone.
    """

    visits: bool
    horizon_days: float | None


class CacheOptions(TypedDict, total=False):
    """The argument of `jaxsim.make` for f_sta's cache.

    Attributes:
        cache_dtype: of the keys and values that sessions and stored prefixes keep: "float32" (the default), or
            "bfloat16" in half the memory; they are rounded to 8 significant bits, and f_sta votes a little
            differently (docs/scaling.md). Products and sums stay float32.
    """

    cache_dtype: CacheDtype


class FurtherOptions(SlateOptions, VisitOptions, CacheOptions, total=False):
    """All of these options."""


@dataclass(frozen=True)
class Visits:
    """`VisitOptions` with defaults and bounds."""

    visits: Literal[False, True] = False
    horizon_days: Annotated[float, Gt(0)] | None = None


@dataclass(frozen=True)
class Cache:
    """`CacheOptions` with defaults and bounds."""

    cache_dtype: CacheDtype = "float32"


def make_with_options(
    options: FurtherOptions,
    dataset: Dataset,
    settings: Any,
    make: Callable[[Dataset, Any], tuple[UserSimulator, EnvParams]],
) -> tuple[Any, EnvParams]:
    """The environment and its params, with these options.

    Args:
        options: of slates, of visits and of the cache.
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
    cache_dtype = _checked_cache(_those_of(CacheOptions, options), settings.semantics)
    settings = replace(settings, cache_dtype=cache_dtype)
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


def _checked_cache(options: CacheOptions, semantics: str) -> CacheDtype:
    cache = Cache(**options)
    check_settings(cache)
    # A user model of one's own has one of these semantics, too.
    if cache.cache_dtype != "float32" and semantics in TASTE_SEMANTICS:
        raise InputError(
            f"cache_dtype={cache.cache_dtype!r} is of f_sta's cache, and semantics={semantics!r} does not ask "
            "f_sta: leave it out"
        )
    return cache.cache_dtype
