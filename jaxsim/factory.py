"""`jaxsim.make`: from a packed dataset to an environment and its params."""

import functools
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal, Unpack

import jax
import jax.numpy as jnp
import numpy as np
from annotated_types import Ge

from jaxsim.catalogue import (
    TABLE_BUDGET_BYTES,
    Catalogue,
    CatalogueKind,
    PairTables,
    build_catalogue,
)
from jaxsim.dataset import TRAIN, Dataset
from jaxsim.departure import DepartureKind, build_departure
from jaxsim.ensemble import Semantics
from jaxsim.environment import UserSimulator
from jaxsim.errors import InputError
from jaxsim.exposure import build_exposure_model
from jaxsim.further_options import FurtherOptions, make_with_options
from jaxsim.out_of_memory import advice_if_out_of_memory
from jaxsim.own_users import UserModel, check_alone, check_model, choose_semantics
from jaxsim.rewards import Reward, check_reward
from jaxsim.sasrec import CacheDtype, SASRec, restore
from jaxsim.satiation import Satiation, build_satiation, check_satiation
from jaxsim.settings import check_settings
from jaxsim.signal_params import SignalKind, build_signals, known_values
from jaxsim.signals import Signals
from jaxsim.taste import Posterior, TasteModel, condition
from jaxsim.taste_kernel import build_taste_model, table_bytes
from jaxsim.types import EnvParams, Histories, Prefix
from jaxsim.user_models import TASTE_SEMANTICS, encode_history
from jaxsim.visits import build_visits

Repeats = Literal["mask", "allow"]
Users = Literal["train", "held_out", "all"]
PrefixKind = Literal["auto", "table", "encode"]
TasteKind = Literal["posterior", "latent"]
DEPARTURE_PROBABILITY = 0.025
# Settings that are static fields of the environment.
_STATIC = (
    "history_length", "session_capacity", "semantics", "repeats", "taste", "exposure", "departure", "visits",
    "horizon_days", "reward", "satiation", "cache_dtype",
)  # fmt: skip


@dataclass(frozen=True)
class _Settings:
    """The settings of `make`, with their bounds."""

    semantics: Semantics
    repeats: Repeats
    history_length: Annotated[int, Ge(1)]
    session_capacity: Annotated[int, Ge(1)]
    users: Users
    table_budget: Annotated[int, Ge(0)]
    catalogue: CatalogueKind
    prefixes: PrefixKind
    taste: TasteKind
    exposure: Literal[False, True]
    departure: DepartureKind
    user_model: UserModel | None
    user_params: Any
    reward: Any
    signals: SignalKind
    satiation: Any
    visits: Literal[False, True] = False
    horizon_days: float | None = None
    cache_dtype: CacheDtype = "float32"


def make(
    dataset: Dataset,
    semantics: Semantics | None = None,
    repeats: Repeats = "mask",
    history_length: int = 50,
    session_capacity: int = 100,
    users: Users = "train",
    table_budget: int = TABLE_BUDGET_BYTES,
    catalogue: CatalogueKind = "auto",
    prefixes: PrefixKind = "auto",
    taste: TasteKind = "posterior",
    exposure: bool = False,
    departure: DepartureKind = "constant",
    user_model: UserModel | None = None,
    user_params: Any = None,
    reward: Reward = "like",
    signals: SignalKind = "auto",
    satiation: Satiation = None,
    **further: Unpack[FurtherOptions],
) -> tuple[UserSimulator, EnvParams]:
    """Build the environment of a dataset.

    Args:
        dataset: of `jaxsim.load_dataset`.
        semantics: how a user decides. "paper", the default: by majority of the three votes. "released": by the
            votes as in the authors' public code. "calibrated": with the probability p of the taste model, drawn.
            "soft": with p at least 1/2; it earns p itself. With `user_model` (default "calibrated") p is its own.
        repeats: "mask" forbids recommending an item of the window; "allow" lets it earn again.
        history_length: the most training interactions, the latest ones, that a session starts from.
        session_capacity: the most steps of a session.
        users: who may start a session: "train", "held_out" or "all".
        table_budget: bytes of device memory for tables: the comparisons of all pairs of items, and f_sta's
            encoding of all users' histories. A table that fits (the pairs come first) makes steps faster.
        catalogue: how to compare items: "tables", "features" (on the fly), or "auto" to decide by the budget.
        prefixes: how to start a session: from a "table" of encoded histories, "encode" each time, or "auto".
        taste: of the users of the taste model. "posterior": what the history says about it, answers of the session
            included. "latent": drawn from that posterior when the session begins; it stays, whatever the answers.
        exposure: correct the taste model's p for what its users would not have chosen (`jaxsim.exposure`).
        departure: users leave with "constant" probability 0.025 a step, or as "fitted" (`jaxsim.departure`).
        user_model: your own model of users, in place of the votes and the taste model. It is tried first.
        user_params: pytree of arrays, the first argument of the methods of `user_model`.
        reward: what a response earns: its "like" (under "soft" its probability), its "rating", its "duration", or
            what a function makes of the `Response`, float32[]. The function must be pure, and is tried first.
        signals: what a response of the taste model has. "all": rating and duration, too, where the dataset has
            them. "like": the like alone, which takes less work. "auto": all if `reward` is not "like".
        satiation: how users of the taste model tire of the same thing in a row: as "fitted", by a number from 0,
            or by a function of `Redundancy`, which is tried first; `jaxsim.satiation` says what each means.
        further: `slate_size` and others of slates (`SlateOptions`); `visits` and `horizon_days` (`VisitOptions`);
            `cache_dtype` (`CacheOptions`).

    Returns:
        The environment (static settings; with slates a `SlateSimulator`) and its params (a pytree of arrays).

    Raises:
        InputError: a setting that this dataset cannot serve, or a user model unlike what `UserModel` says.
    """
    settings = _Settings(choose_semantics(semantics, user_model), repeats, history_length, session_capacity, users,
                         table_budget, catalogue, prefixes, taste, exposure, departure, user_model, user_params,
                         reward, signals, satiation)  # fmt: skip
    return make_with_options(further, dataset, _checked(settings, dataset), _make)


def _checked(settings: _Settings, dataset: Any) -> _Settings:
    """The settings, checked as far as they can be without the dataset's contents."""
    if not isinstance(dataset, Dataset):
        raise InputError(
            f"dataset is a {type(dataset).__name__}: pass the Dataset that jaxsim.load_dataset(NAME) returns"
        )
    silent = {"prefixes": "auto", "taste": "posterior", "exposure": False, "satiation": None}
    others = {name: (getattr(settings, name), value) for name, value in silent.items()}
    check_alone(settings.user_model, settings.user_params, **others)
    settings = replace(settings, satiation=check_satiation(settings.satiation))
    check_settings(settings)
    return settings


@advice_if_out_of_memory(
    'to make a smaller simulator, lower table_budget, or use catalogue="features", prefixes="encode" or a shorter '
    "history_length"
)
def _make(dataset: Dataset, settings: _Settings) -> tuple[UserSimulator, EnvParams]:
    session_users = _session_users(dataset, settings.users)
    sasrec, variables = restore(dataset.manifest["sasrec"], dataset.sasrec)
    asks_votes, own = settings.semantics not in TASTE_SEMANTICS, settings.user_model
    asks_taste = not asks_votes and own is None
    if not asks_taste:
        _check_without_taste(settings)
    corrected = build_exposure_model(dataset) if settings.exposure else None
    tiring = build_satiation(dataset, settings.satiation)
    _check_window(dataset, sasrec, settings, asks_votes)
    departure = build_departure(dataset) if settings.departure == "fitted" else None
    budget = settings.table_budget
    model = _taste_model(dataset, settings) if asks_taste else None
    signals = None if model is None else model.signals
    check_reward(settings.reward, dataset, settings.semantics, own is not None, signals)
    budget -= table_bytes(model)
    items = build_catalogue(dataset.arrays, budget, settings.catalogue)
    histories = build_histories(dataset, settings.history_length, signals)
    if own is not None:
        check_model(own, settings.user_params, histories, dataset.num_items)
    budget -= _table_bytes(items)
    if asks_votes:
        histories = _with_prefixes(histories, sasrec, variables, settings, budget)
    elif model is not None:
        histories = _with_posteriors(histories, model, settings, budget)
    env = UserSimulator(
        sasrec=sasrec,
        num_users=dataset.num_users,
        catalogue="tables" if isinstance(items, PairTables) else "features",
        prefixes="encode" if histories.prefix is histories.posterior is None else "table",
        own_model=own,
        **{name: getattr(settings, name) for name in _STATIC},
    )
    params = EnvParams(
        max_steps_in_episode=jnp.int32(settings.session_capacity),
        departure_probability=jnp.float32(DEPARTURE_PROBABILITY),
        session_users=jnp.asarray(session_users),
        catalogue=items,
        histories=histories,
        sasrec=variables if asks_votes else {},
        taste=model,
        user_params=jax.tree.map(jnp.asarray, settings.user_params),
        exposure=corrected,
        departure=departure,
        visits=build_visits(dataset) if settings.visits else None,
        satiation=tiring,
    )
    return env, params


def _with_prefixes(
    histories: Histories, sasrec: SASRec, variables: dict, settings: _Settings, budget: int
) -> Histories:
    """The histories with f_sta's encoding, if its table is wanted."""
    dtype, users = settings.cache_dtype, len(histories.length)
    size = prefix_bytes(sasrec, settings.history_length, dtype)
    if not _use_prefix_table(settings.prefixes, users, size, budget):
        return histories
    return replace(histories, prefix=_encode_histories(sasrec, dtype, variables, histories))


def _with_posteriors(
    histories: Histories, model: TasteModel, settings: _Settings, budget: int
) -> Histories:
    """The histories with the taste model's posteriors, if their table is wanted."""
    size, users = posterior_bytes(settings.history_length, model.signals), len(histories.length)
    if not _use_prefix_table(settings.prefixes, users, size, budget):
        return histories
    return replace(histories, posterior=_condition_histories(model, histories))


def _taste_model(dataset: Dataset, settings: _Settings) -> TasteModel:
    """The taste model, with those of ratings and durations if they are asked for."""
    drawn = settings.taste == "latent"
    model = build_taste_model(dataset, settings.table_budget, settings.catalogue, drawn)
    asked = {"all": True, "like": False, "auto": settings.reward != "like"}[settings.signals]
    return replace(model, signals=build_signals(dataset)) if asked else model


def _check_without_taste(settings: _Settings) -> None:
    for asked, option in (
        (settings.taste == "latent", 'taste="latent" draws from'),
        (settings.exposure, "exposure=True corrects"),
        (settings.satiation is not None, "satiation changes"),
    ):
        if asked:
            raise InputError(
                f"{option} the taste model, which semantics={settings.semantics!r} does not ask: "
                'use semantics="calibrated" or "soft"'
            )


def _table_bytes(items: Catalogue) -> int:
    """Bytes of the pair tables. Item features count as 0: without them there is no simulator."""
    if not isinstance(items, PairTables):
        return 0
    return sum(x.nbytes for x in jax.tree.leaves(items))


def _session_users(dataset: Dataset, users: Users) -> np.ndarray:
    chosen = dataset.session_users(users)
    if len(chosen) == 0:
        raise InputError(f"{dataset.name}: no user of the group {users!r} may start a session")
    return chosen


def _check_window(dataset: Dataset, sasrec: SASRec, settings: _Settings, asks_votes: bool) -> None:
    window = settings.history_length + settings.session_capacity
    if settings.repeats == "mask" and dataset.num_items <= window:
        raise InputError(
            f"{dataset.num_items} items cannot fill a window of {window} without repeats: lower "
            'history_length or session_capacity, or use repeats="allow"'
        )
    if (sasrec.num_items, sasrec.num_users) != (dataset.num_items, dataset.num_users):
        raise InputError(
            f"{dataset.path}: the statistic model is of {sasrec.num_items} items and {sasrec.num_users} users, "
            f"but the arrays hold {dataset.num_items} and {dataset.num_users}; build the dataset again"
        )
    if window > sasrec.window and asks_votes:
        raise InputError(
            f"history_length + session_capacity is {window}, but this dataset's statistic model was trained "
            f"for {sasrec.window}: lower one of them, or build the dataset again with --sasrec.window {window}"
        )


def build_histories(
    dataset: Dataset, history_length: int, signals: Signals | None = None
) -> Histories:
    """The latest `history_length` training interactions of every user, without f_sta's encoding."""
    arrays = dataset.arrays
    train = np.flatnonzero(arrays["interaction_split"] == TRAIN)
    user = dataset.interaction_user()[train]
    counts = np.bincount(user, minlength=dataset.num_users)
    # Position counted from each user's first training interaction, then from the first of the latest ones.
    position = np.arange(len(train)) - (np.cumsum(counts) - counts)[user]
    position -= np.maximum(counts - history_length, 0)[user]
    latest = position >= 0
    cells = user[latest], position[latest]
    shape = (dataset.num_users, history_length)
    items, likes = np.full(shape, -1, np.int32), np.zeros(shape, np.int8)
    items[cells] = arrays["interaction_item"][train[latest]]
    likes[cells] = arrays["interaction_label"][train[latest]]
    values = None
    if signals is not None:
        known = known_values(dataset, signals)[train[latest]]
        values = np.full((*shape, known.shape[1]), np.nan, np.float32)
        values[cells] = known
    return Histories(
        items=jnp.asarray(items),
        likes=jnp.asarray(likes),
        length=jnp.asarray(np.minimum(counts, history_length).astype(np.int32)),
        values=None if values is None else jnp.asarray(values),
    )


def prefix_bytes(sasrec: SASRec, history_length: int, cache_dtype: CacheDtype = "float32") -> int:
    """Size of f_sta's encoding of one user's history, in bytes."""
    keys_values = 2 * sasrec.num_blocks * sasrec.width * jnp.dtype(cache_dtype).itemsize
    return (keys_values + 4 * len(sasrec.decays)) * history_length + 4 * sasrec.width


def posterior_bytes(history_length: int, signals: Signals | None = None) -> int:
    """Size of the taste model's posterior of one user's history, in bytes."""
    of_signals = 0 if signals is None else len(signals.heads)
    return 4 * history_length * (history_length + 1 + of_signals)


def _use_prefix_table(kind: PrefixKind, num_users: int, user_bytes: int, budget: int) -> bool:
    needed = num_users * user_bytes
    if kind == "table" and needed > budget:
        raise InputError(
            f"the encoding of {num_users:,} histories takes {needed:,} bytes, more than the {budget:,} "
            'that table_budget leaves: raise it, or use prefixes="encode"'
        )
    return kind == "table" or (kind == "auto" and needed <= budget)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _encode_histories(
    sasrec: SASRec, dtype: CacheDtype, variables: dict, histories: Histories
) -> Prefix:
    """f_sta's encoding of all users' histories."""

    def encode(history: tuple[jax.Array, ...]) -> Prefix:
        prefix = encode_history(sasrec, variables, *history)
        return replace(prefix, key_values=prefix.key_values.stored_as(dtype))

    # lax.map in batches: all users at once would hold U attention matrices.
    return jax.lax.map(
        encode,
        (histories.items, histories.likes, histories.length),
        batch_size=256,
    )


@jax.jit
def _condition_histories(model: TasteModel, histories: Histories) -> Posterior:
    """The taste model's posterior of all users' histories."""
    return jax.lax.map(
        lambda history: condition(model, *history),
        (histories.items, histories.likes, histories.length, histories.values),
        batch_size=256,
    )
