"""`jaxsim.make`: from a packed dataset to an environment and its params."""

import functools
from dataclasses import replace
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np

from jaxsim.catalogue import (
    TABLE_BUDGET_BYTES,
    CatalogueKind,
    PairTables,
    build_catalogue,
)
from jaxsim.dataset import TRAIN, Dataset
from jaxsim.ensemble import SEMANTICS, Semantics
from jaxsim.environment import EnvParams, Histories, Prefix, UserSimulator, read_history
from jaxsim.errors import InputError
from jaxsim.sasrec import SASRec, restore

Repeats = Literal["mask", "allow"]
Users = Literal["train", "held_out", "all"]
PrefixKind = Literal["auto", "table", "encode"]
DEPARTURE_PROBABILITY = 0.025


def make(
    dataset: Dataset,
    semantics: Semantics = "paper",
    repeats: Repeats = "mask",
    history_length: int = 50,
    session_capacity: int = 100,
    users: Users = "train",
    table_budget: int = TABLE_BUDGET_BYTES,
    catalogue: CatalogueKind = "auto",
    prefixes: PrefixKind = "auto",
) -> tuple[UserSimulator, EnvParams]:
    """Build the environment of a dataset.

    Args:
        dataset: of `jaxsim.load_dataset`.
        semantics: "paper", or "released" for the decisions of the authors' public code.
        repeats: "mask" forbids recommending an item of the window; "allow" lets it earn again.
        history_length: latest training interactions that a session starts from, at most.
        session_capacity: most steps of a session.
        users: who may start a session: "train", "held_out" or "all".
        table_budget: bytes of device memory for what is worked out beforehand: the comparisons of all pairs of
            items, and f_sta's reading of all users' histories. Each that fits (the pairs first) makes steps
            faster; each that does not is worked out when it is needed.
        catalogue: "tables" or "features" decide the first of these, "auto" goes by the budget.
        prefixes: "table" or "encode" decide the second. A table that the budget cannot hold is refused.

    Returns:
        The environment (static settings) and its params (a pytree of device arrays).

    Raises:
        InputError: a setting that this dataset or its statistic model cannot serve.
    """
    if not isinstance(dataset, Dataset):
        raise InputError(
            f"dataset is a {type(dataset).__name__}: pass jaxsim.load_dataset(NAME), or its result"
        )
    for name, value, choices in (
        ("semantics", semantics, SEMANTICS),
        ("repeats", repeats, get_args(Repeats)),
        ("catalogue", catalogue, get_args(CatalogueKind)),
        ("prefixes", prefixes, get_args(PrefixKind)),
    ):
        _check_choice(name, value, choices)
    _check_count("history_length", history_length, 1)
    _check_count("session_capacity", session_capacity, 1)
    _check_count("table_budget", table_budget, 0)
    session_users = _session_users(dataset, users)
    sasrec, variables = restore(dataset.manifest["sasrec"], dataset.sasrec)
    _check_window(dataset, sasrec, history_length + session_capacity, repeats)
    items = build_catalogue(dataset.arrays, table_budget, catalogue)
    # What item features take is not a table: without it there is no simulator.
    tables = sum(x.nbytes for x in jax.tree.leaves(items)) if isinstance(items, PairTables) else 0
    histories = build_histories(dataset, history_length)
    if _use_prefix_table(prefixes, sasrec, history_length, table_budget - tables):
        histories = replace(histories, prefix=_read_histories(sasrec, variables, histories))
    env = UserSimulator(
        sasrec=sasrec,
        num_users=dataset.num_users,
        history_length=history_length,
        session_capacity=session_capacity,
        semantics=semantics,
        repeats=repeats,
        catalogue="tables" if isinstance(items, PairTables) else "features",
        prefixes="encode" if histories.prefix is None else "table",
    )
    params = EnvParams(
        max_steps_in_episode=jnp.int32(session_capacity),
        departure_probability=jnp.float32(DEPARTURE_PROBABILITY),
        session_users=jnp.asarray(session_users),
        catalogue=items,
        histories=histories,
        sasrec=variables,
    )
    return env, params


def _session_users(dataset: Dataset, users: Users) -> np.ndarray:
    chosen = dataset.session_users(users)
    if len(chosen) == 0:
        raise InputError(f"{dataset.name}: no user of the group {users!r} may start a session")
    return chosen


def _check_window(dataset: Dataset, sasrec: SASRec, window: int, repeats: Repeats) -> None:
    if repeats == "mask" and dataset.num_items <= window:
        raise InputError(
            f"{dataset.num_items} items cannot fill a window of {window} without repeats: lower "
            'history_length or session_capacity, or use repeats="allow"'
        )
    if (sasrec.num_items, sasrec.num_users) != (dataset.num_items, dataset.num_users):
        raise InputError(
            f"{dataset.path}: the statistic model is of {sasrec.num_items} items and {sasrec.num_users} users, "
            f"but the arrays hold {dataset.num_items} and {dataset.num_users}; build the dataset again"
        )
    if window > sasrec.window:
        raise InputError(
            f"history_length + session_capacity is {window}, but this dataset's statistic model was trained "
            f"for {sasrec.window}: lower one of them, or build the dataset again with --sasrec.window {window}"
        )


def _check_count(name: str, value: Any, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise InputError(f"{name}={value!r}: give a whole number")
    if value < least:
        raise InputError(f"{name}={value} must be at least {least}")


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise InputError(f"{name}={value!r} is not one of {', '.join(choices)}")


def build_histories(dataset: Dataset, history_length: int) -> Histories:
    """The latest `history_length` training interactions of every user, not yet read by f_sta."""
    arrays = dataset.arrays
    train = np.flatnonzero(arrays["interaction_split"] == TRAIN)
    user = dataset.interaction_user()[train]
    counts = np.bincount(user, minlength=dataset.num_users)
    # Position counted from each user's first training interaction, then from the first that is kept.
    position = np.arange(len(train)) - (np.cumsum(counts) - counts)[user]
    position -= np.maximum(counts - history_length, 0)[user]
    kept = position >= 0
    cells = user[kept], position[kept]
    shape = (dataset.num_users, history_length)
    items, likes = np.full(shape, -1, np.int32), np.zeros(shape, np.int8)
    items[cells] = arrays["interaction_item"][train[kept]]
    likes[cells] = arrays["interaction_label"][train[kept]]
    return Histories(
        items=jnp.asarray(items),
        likes=jnp.asarray(likes),
        length=jnp.asarray(np.minimum(counts, history_length).astype(np.int32)),
        prefix=None,
    )


def prefix_bytes(sasrec: SASRec, history_length: int) -> int:
    """What f_sta's reading of one user's history takes, in bytes."""
    return 4 * sasrec.width * (2 * sasrec.num_blocks * history_length + 1)


def _use_prefix_table(kind: PrefixKind, sasrec: SASRec, history_length: int, left: int) -> bool:
    needed = sasrec.num_users * prefix_bytes(sasrec, history_length)
    if kind == "table" and needed > left:
        raise InputError(
            f"f_sta's reading of {sasrec.num_users:,} histories takes {needed:,} bytes, more than the {left:,} "
            'that table_budget leaves: raise it, or use prefixes="encode"'
        )
    return kind == "table" or (kind == "auto" and needed <= left)


@functools.partial(jax.jit, static_argnums=0)
def _read_histories(sasrec: SASRec, variables: dict, histories: Histories) -> Prefix:
    """f_sta's reading of all users' histories."""
    # lax.map in batches: all users at once would hold U attention matrices.
    return jax.lax.map(
        lambda one: read_history(sasrec, variables, *one),
        (histories.items, histories.likes, histories.length),
        batch_size=256,
    )
