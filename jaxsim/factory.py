"""`jaxsim.make`: from a packed dataset to an environment and its params."""

from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

from jaxsim.catalogue import build_catalogue
from jaxsim.cli import InputError
from jaxsim.dataset import TRAIN, Dataset
from jaxsim.ensemble import SEMANTICS, Semantics
from jaxsim.environment import EnvParams, Histories, UserSimulator
from jaxsim.sasrec import KeyValues, SASRec, restore

Repeats = Literal["mask", "allow"]
Users = Literal["train", "held_out", "all"]
DEPARTURE_PROBABILITY = 0.025


def make(
    dataset: Dataset,
    semantics: Semantics = "paper",
    repeats: Repeats = "mask",
    history_length: int = 50,
    session_capacity: int = 100,
    users: Users = "train",
) -> tuple[UserSimulator, EnvParams]:
    """Build the environment of a dataset.

    Args:
        dataset: of `jaxsim.load_dataset`.
        semantics: "paper", or "released" for the decisions of the authors' public code.
        repeats: "mask" forbids recommending an item of the window; "allow" lets it earn again.
        history_length: latest training interactions that a session starts from, at most.
        session_capacity: most steps of a session.
        users: who may start a session: "train", "held_out" or "all".

    Returns:
        The environment (static settings) and its params (a pytree of device arrays).

    Raises:
        InputError: a setting that this dataset or its statistic model cannot serve.
    """
    _check_choice("semantics", semantics, SEMANTICS)
    _check_choice("repeats", repeats, ("mask", "allow"))
    window = history_length + session_capacity
    if history_length < 1 or session_capacity < 1:
        raise InputError("history_length and session_capacity must be at least 1")
    if repeats == "mask" and dataset.num_items <= window:
        raise InputError(
            f"{dataset.num_items} items cannot fill a window of {window} without repeats: lower "
            'history_length or session_capacity, or use repeats="allow"'
        )
    session_users = dataset.session_users(users)
    if len(session_users) == 0:
        raise InputError(f"{dataset.name}: no user of the group {users!r} may start a session")
    sasrec, variables = restore(dataset.manifest["sasrec"], dataset.sasrec)
    _check_model(dataset, sasrec, window)
    env = UserSimulator(
        sasrec=sasrec,
        num_users=dataset.num_users,
        history_length=history_length,
        session_capacity=session_capacity,
        semantics=semantics,
        repeats=repeats,
    )
    params = EnvParams(
        max_steps_in_episode=jnp.int32(session_capacity),
        departure_probability=jnp.float32(DEPARTURE_PROBABILITY),
        session_users=jnp.asarray(session_users),
        catalogue=build_catalogue(dataset.arrays),
        histories=build_histories(dataset, history_length, sasrec, variables),
        sasrec=variables,
    )
    return env, params


def _check_model(dataset: Dataset, sasrec: SASRec, window: int) -> None:
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


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise InputError(f"{name}={value!r} is not one of {', '.join(choices)}")


def build_histories(
    dataset: Dataset, history_length: int, sasrec: SASRec, variables: dict
) -> Histories:
    """The latest `history_length` training interactions of every user, with f_sta's cache of them."""
    arrays = dataset.arrays
    shape = (dataset.num_users, history_length)
    items, likes = np.full(shape, -1, np.int32), np.zeros(shape, np.int8)
    length = np.zeros(dataset.num_users, np.int32)
    for user, (start, stop) in enumerate(
        zip(arrays["user_offsets"][:-1], arrays["user_offsets"][1:], strict=True)
    ):
        train = start + np.flatnonzero(arrays["interaction_split"][start:stop] == TRAIN)
        latest = train[-history_length:]
        length[user] = len(latest)
        items[user, : len(latest)] = arrays["interaction_item"][latest]
        likes[user, : len(latest)] = arrays["interaction_label"][latest]
    hidden, key_values = _encode_histories(
        sasrec, variables, jnp.asarray(items), jnp.asarray(likes)
    )
    last = jnp.maximum(jnp.asarray(length) - 1, 0)
    latest_hidden = jnp.take_along_axis(hidden, last[:, None, None], axis=1)[:, 0]
    return Histories(
        items=jnp.asarray(items),
        likes=jnp.asarray(likes),
        length=jnp.asarray(length),
        key_values=key_values,
        hidden=jnp.where(jnp.asarray(length)[:, None] > 0, latest_hidden, 0),
    )


def _encode_histories(
    sasrec: SASRec, variables: dict, items: jax.Array, likes: jax.Array
) -> tuple[jax.Array, KeyValues]:
    """f_sta's hidden states float32[U, H, width] and cache of all users' histories."""

    def encode(variables: dict, items: jax.Array, likes: jax.Array) -> tuple[jax.Array, KeyValues]:
        # lax.map in batches: all users at once would hold U attention matrices.
        return jax.lax.map(
            lambda one: sasrec.apply(variables, one[0], one[1], method="encode"),
            (items, likes),
            batch_size=256,
        )

    return jax.jit(encode)(variables, items, likes)
