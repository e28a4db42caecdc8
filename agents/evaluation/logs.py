"""Logs: what a policy recommended in simulated sessions, and what the users did; one row for each step.

For off-policy evaluation and for people who want to look. `log_sessions` is a pure function of its key.
`logged_episodes` has the same rows batch by batch, with the observations if they are asked for.
"""

import dataclasses
from collections.abc import Iterator
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

from agents.algorithms.policy import Simulator
from agents.evaluation.sessions import batch_size
from jaxsim import Dataset, EnvParams, InputError

_VOTES = ("f_mat", "f_sim", "f_sta")
# Columns in their order; others follow, and those that do not exist are left out.
_FIRST = (
    "episode", "step", "user", "user_group", "session", "day", "item", "title", "like", "rating", "duration",
    "reward", "propensity", "probability", *_VOTES, "slate", "place", "probabilities", "departure_probability",
    "terminated", "truncated",
)  # fmt: skip


Arrays = dict[str, np.ndarray]


class LoggedEpisodes(NamedTuple):
    """E whole episodes in their order, with R steps in all.

    Attributes:
        columns: the columns of `log_sessions_of`, [R, ...] each, without titles and groups.
        before: the observation before each step, field to [R, ...]; empty unless observations are asked for.
        last: the observation after the last step of each episode, field to [E, ...]; empty as `before`.
    """

    columns: Arrays
    before: Arrays
    last: Arrays


def log_sessions(
    dataset: Dataset,
    env: Simulator,
    params: EnvParams,
    policy: Any,
    key: jax.Array,
    episodes: int,
) -> pd.DataFrame:
    """Let a policy act in episodes of users drawn from `params.session_users`.

    The first episodes are the same, whatever their number.

    Args:
        dataset: of the environment.
        env, params: of `jaxsim.make`.
        policy: an `EvaluatedPolicy`. A policy that draws must have a method
            `propensity(env, obs, params, action)`, float32[]; without it the policy counts as deterministic.
        key: PRNG key of users, policy and environment.
        episodes: how many, from 1.

    Returns:
        A row for each step, see `log_sessions_of`.
    """
    return log_sessions_of(dataset, env, params, policy, *draw_sessions(params, key, episodes))


def draw_sessions(params: EnvParams, key: jax.Array, episodes: int) -> tuple[jax.Array, jax.Array]:
    """The users int32[M] and keys [M] of M = `episodes` episodes, drawn from `params.session_users`.

    Raises:
        InputError: no episode.
    """
    if episodes < 1:
        raise InputError(f"episodes is {episodes}: give a whole number from 1")

    def begin(episode: jax.Array) -> tuple[jax.Array, jax.Array]:
        key_user, key_session = jax.random.split(jax.random.fold_in(key, episode))
        index = jax.random.randint(key_user, (), 0, len(params.session_users), jnp.int32)
        return params.session_users[index], key_session

    return jax.vmap(begin)(jnp.arange(episodes, dtype=jnp.int32))


def log_sessions_of(
    dataset: Dataset,
    env: Simulator,
    params: EnvParams,
    policy: Any,
    users: jax.Array,
    keys: jax.Array,
) -> pd.DataFrame:
    """`log_sessions` of given users int32[M] with given keys [M].

    Random draws follow from a key as in `agents.evaluation.sessions`, so with `departure="fitted"` the sessions
    are those of `run_sessions`.

    Returns:
        A row for each step of each episode, in this order, with the columns

            episode, step            from 0, and from 1
            user, user_group         index, and "train" or "held_out"
            item, title              the recommendation; with slates the chosen item, missing if there is none
            like, rating, duration   the response, as far as there is one
            reward
            propensity               probability with which the policy recommended this, 1 for deterministic ones
            probability              of a like; or f_mat, f_sim and f_sta, the votes
            slate, place, probabilities, scores   with slates, see `jaxsim.SlateSimulator`
            departure_probability    of leaving after the step, with `departure="fitted"`
            terminated, truncated    how the episode ends
            invalid_action           and whatever else `info` says of a step
    """
    batches = [x.columns for x in logged_episodes(env, params, policy, users, keys)]
    joined = {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}
    return _described(dataset, pd.DataFrame({name: _column(x) for name, x in joined.items()}))


def logged_episodes(
    env: Simulator,
    params: EnvParams,
    policy: Any,
    users: jax.Array,
    keys: jax.Array,
    observations: bool = False,
) -> Iterator[LoggedEpisodes]:
    """The episodes of `log_sessions_of` in batches, so that memory stays bounded.

    Args:
        env, params: of `jaxsim.make`.
        policy: as in `log_sessions`.
        users: int32[M].
        keys: PRNG keys [M].
        observations: whether to fetch the observations, too.
    """
    size = min(batch_size(env.num_items), len(users))
    for first in range(0, len(users), size):
        episode = np.arange(first, first + size)
        # The last batch is filled up, so that all have one shape.
        rows = np.minimum(episode, len(users) - 1)
        session = _begin(env, params, policy, users[rows], keys[rows])
        counts = episode < len(users)
        yield _log_batch(env, params, policy, keys[rows], session, (episode, counts), observations)


def _log_batch(
    env: Simulator,
    params: EnvParams,
    policy: Any,
    keys: jax.Array,
    session: Any,
    numbers: tuple[np.ndarray, np.ndarray],
    observations: bool,
) -> LoggedEpisodes:
    """Play B new sessions to their ends; `numbers` are those of the episodes int64[B], and which count bool[B]."""
    episode, counts = numbers
    alive, time = counts.copy(), 0
    before = _observed(session[1]) if observations else {}
    last = {name: np.zeros_like(x) for name, x in before.items()}
    steps: list[Arrays] = []
    seen: list[Arrays] = []
    while alive.any():
        session, record = _step(env, params, policy, keys, jnp.int32(time), session)
        time += 1
        columns = {"episode": episode, **_columns(jax.device_get(record))}
        columns["step"] = np.full(len(alive), time, np.int32)
        steps.append({name: x[alive] for name, x in columns.items()})
        seen.append({name: x[alive] for name, x in before.items()})
        ends = alive & (columns["terminated"] | columns["truncated"])
        before = _observed(session[1]) if observations else {}
        for name, after in before.items():
            last[name][ends] = after[ends]
        alive = alive & ~ends
    order = np.lexsort([np.concatenate([x[name] for x in steps]) for name in ("step", "episode")])
    return LoggedEpisodes(
        {name: np.concatenate([x[name] for x in steps])[order] for name in steps[0]},
        {name: np.concatenate([x[name] for x in seen])[order] for name in seen[0]},
        {name: x[counts] for name, x in last.items()},
    )


def _observed(obs: Any) -> Arrays:
    """The fields of observations, on the host."""
    fields = {field.name: getattr(obs, field.name) for field in dataclasses.fields(obs)}
    return {name: np.asarray(x) for name, x in jax.device_get(fields).items()}


@partial(jax.jit, static_argnames="env")
def _begin(
    env: Simulator, params: EnvParams, policy: Any, users: jax.Array, keys: jax.Array
) -> Any:
    """Memory, observation and state of B new sessions."""
    obs, state = jax.vmap(env.reset_user, (0, None, 0))(users, params, keys)
    return jax.vmap(policy.begin, (None, 0, None))(env, obs, params), obs, state


@partial(jax.jit, static_argnames="env")
def _step(
    env: Simulator,
    params: EnvParams,
    policy: Any,
    keys: jax.Array,
    time: jax.Array,
    session: Any,
) -> tuple[Any, dict[str, Any]]:
    """One time step of B sessions, and what is logged of it, [B, ...] each."""

    def step(key: jax.Array, memory: Any, obs: Any, state: Any) -> tuple[Any, dict[str, Any]]:
        key_env, key_policy = jax.random.split(jax.random.fold_in(key, time))
        action = policy.act(key_policy, memory, env, obs, state, params)
        propensity = jnp.float32(1.0)
        if hasattr(policy, "propensity"):
            propensity = policy.propensity(env, obs, params, action)
        new_obs, new_state, reward, terminated, info = env.step_env(key_env, state, action, params)
        memory = policy.remember(memory, action, info["response"].like, params)
        record = {
            **info,
            "user": state.user,
            "action": action,
            "reward": reward,
            "propensity": propensity,
            "terminated": terminated,
            "truncated": env.is_truncated(new_state, params),  # type: ignore[arg-type]
        }
        return (memory, new_obs, new_state), record

    return jax.vmap(step)(keys, *session)


def _columns(record: dict[str, Any]) -> Arrays:
    """The columns of a record, [B, ...] each."""
    response, action, votes = (record.pop(name, None) for name in ("response", "action", "votes"))
    columns = {name: np.asarray(value) for name, value in record.items()}
    columns |= {name: x for name, x in dataclasses.asdict(response).items() if x is not None}
    if votes is not None:
        columns |= dict(zip(_VOTES, votes.T, strict=True))
    if action.ndim == 1:
        return {"item": action, **columns}
    place = columns["place"]
    chosen = np.take_along_axis(action, np.maximum(place, 0)[:, None], axis=1)[:, 0]
    return {"item": np.where(place >= 0, chosen, -1), **columns}


def _column(values: np.ndarray) -> Any:
    """A column of numbers, or of lists of them."""
    return values if values.ndim == 1 else pd.Series(list(values), dtype=object)


def _described(dataset: Dataset, log: pd.DataFrame) -> pd.DataFrame:
    """The log with titles and groups of users, and its columns in their order."""
    held_out = np.isin(log["user"], dataset.session_users("held_out"))
    item, titles = log["item"], dataset.item_names()
    if (item < 0).any():
        item = item.where(item >= 0).astype("Int32")
    log = log.assign(
        user_group=np.where(held_out, "held_out", "train"), item=item, title=item.map(titles)
    )
    first = [name for name in _FIRST if name in log]
    return log[[*first, *(name for name in log if name not in first)]]
