"""Evaluation on one fixed set of sessions, the same for every policy and seed.

Each user starts `repeats` sessions. When he leaves, and which way the coins of each step fall, is drawn once for
each session, so two policies differ by what they recommend alone, and their difference is a paired one.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from scipy import stats
from tqdm import tqdm

from agents.baselines import EvaluatedPolicy, baselines
from jaxsim import COSINE_UNIT, NO_COSINE, Dataset, EnvParams, EnvState, Observation, UserSimulator

SESSIONS_PER_USER = 4
TOTAL_REWARD_FACTOR = (
    12.0  # the paper reports T.Rwd without defining it; its tables have T / A of 10 to 14
)
LIST_LENGTH = 10
CONFIDENCE = 0.95
_BATCH = 256


class FixedSessions(NamedTuple):
    """The sessions of an evaluation, M of them.

    Attributes:
        users: int32[M].
        keys: PRNG keys [M] of coins and of policies.
        durations: int32[M], steps until the user leaves or the session is cut.
    """

    users: jax.Array
    keys: jax.Array
    durations: jax.Array


class Outcome(NamedTuple):
    """What a policy did in M fixed sessions.

    Attributes:
        returns: float32[M], undiscounted.
        recommended: int32[N], how often each item was recommended.
        liking: float32[M], share of likes among the first LIST_LENGTH items of a session that cannot end.
        diversity: float32[M], mean of 1 - cos(E_pos) over the pairs of those items; NaN without keywords.
    """

    returns: np.ndarray
    recommended: np.ndarray
    liking: np.ndarray
    diversity: np.ndarray


@dataclass(frozen=True)
class Row:
    """One line of the table: one policy on one group of users."""

    policy: str
    users: str
    seeds: int
    like_rate: float
    a_rwd: float
    a_rwd_low: float
    a_rwd_high: float
    paired_low: float
    paired_high: float
    paired_random_low: float
    paired_random_high: float
    paired_popular_low: float
    paired_popular_high: float
    share_of_oracle: float
    t_rwd: float
    liking: float
    coverage: float
    diversity: float
    steps: int
    seconds: float


def fixed_sessions(
    key: jax.Array, env: UserSimulator, params: EnvParams, repeats: int = SESSIONS_PER_USER
) -> FixedSessions:
    """`repeats` sessions of each of the params' session users, with their departures drawn."""
    users = jnp.repeat(params.session_users, repeats)
    key_sessions, key_departures = jax.random.split(key)
    longest = jnp.minimum(params.max_steps_in_episode, env.session_capacity)
    # The number of steps until a departure of probability p after each is geometric.
    uniform = jax.random.uniform(key_departures, users.shape, jnp.float32, minval=1e-12)
    steps = jnp.ceil(jnp.log(uniform) / jnp.log1p(-params.departure_probability))
    durations = jnp.clip(steps, 1, longest).astype(jnp.int32)
    return FixedSessions(users, jax.random.split(key_sessions, len(users)), durations)


@struct.dataclass
class _Progress:
    """B sessions under way, at the same time step."""

    time: jax.Array
    memory: Any
    obs: Observation
    state: EnvState
    returns: jax.Array
    counts: jax.Array
    items: jax.Array
    likes: jax.Array


@partial(jax.jit, static_argnames=("env", "list_length"))
def _run_batch(
    env: UserSimulator,
    params: EnvParams,
    policy: EvaluatedPolicy,
    sessions: FixedSessions,
    list_length: int,
) -> _Progress:
    """Run B sessions to the end of the longest; items and likes are those of the first L steps."""
    params = params.replace(departure_probability=jnp.float32(0.0))
    num_sessions = len(sessions.users)

    def one_session(
        key: jax.Array, time: jax.Array, memory: Any, obs: Observation, state: EnvState
    ) -> tuple[jax.Array, jax.Array, Any, Observation, EnvState]:
        key_env, key_policy = jax.random.split(jax.random.fold_in(key, time))
        item = policy.act(key_policy, memory, env, obs, state, params)
        obs, state, _, _, info = env.step_env(key_env, state, item, params)
        like = info["response"].like
        return item, like, policy.remember(memory, item, like, params), obs, state

    def one_step(now: _Progress) -> _Progress:
        item, like, memory, obs, state = jax.vmap(one_session, (0, None, 0, 0, 0))(
            sessions.keys, now.time, now.memory, now.obs, now.state
        )
        alive = now.time < sessions.durations
        return _Progress(
            time=now.time + 1,
            memory=memory,
            obs=obs,
            state=state,
            returns=now.returns + jnp.where(alive, like, 0),
            counts=now.counts.at[jnp.where(alive, item, env.num_items)].add(1, mode="drop"),
            # Past the list the column is out of range, and the write is dropped.
            items=now.items.at[:, now.time].set(item, mode="drop"),
            likes=now.likes.at[:, now.time].set(like, mode="drop"),
        )

    obs, state = jax.vmap(env.reset_user, (0, None))(sessions.users, params)
    start = _Progress(
        time=jnp.int32(0),
        memory=jax.vmap(policy.begin, (None, 0, None))(env, obs, params),
        obs=obs,
        state=state,
        returns=jnp.zeros(num_sessions, jnp.float32),
        counts=jnp.zeros(env.num_items, jnp.int32),
        items=jnp.zeros((num_sessions, list_length), jnp.int32),
        likes=jnp.zeros((num_sessions, list_length), jnp.int8),
    )
    last = jnp.maximum(sessions.durations.max(), list_length)
    return jax.lax.while_loop(lambda now: now.time < last, one_step, start)


@jax.jit
def _list_diversity(params: EnvParams, items: jax.Array) -> jax.Array:
    """Mean of 1 - cos(E_pos) over the pairs of each list int32[B, L], float32[B]."""
    liked = jnp.ones(items.shape[1], jnp.int32)

    def compare(item: jax.Array, others: jax.Array) -> jax.Array:
        return params.catalogue.compare(item, others, liked).cosine

    cosine = jax.vmap(jax.vmap(compare, (0, None)))(items, items)
    pairs = jnp.triu(jnp.ones(cosine.shape[-2:], bool), 1) & (cosine != NO_COSINE)
    total = jnp.where(pairs, 1.0 - cosine / COSINE_UNIT, 0.0).sum((1, 2))
    return (total / pairs.sum((1, 2))).astype(jnp.float32)


def run_sessions(
    env: UserSimulator, params: EnvParams, policy: EvaluatedPolicy, sessions: FixedSessions
) -> Outcome:
    """Let a policy recommend in the fixed sessions.

    Liking% and diversity are of distinct items: where repeats are allowed, the lists come from a second
    run in which they are masked.
    """
    outcome = _run_all(env, params, policy, sessions)
    if env.repeats == "mask":
        return outcome
    masked = dataclasses.replace(env, repeats="mask")
    lists = sessions._replace(durations=jnp.ones_like(sessions.durations))
    distinct = _run_all(masked, params, policy, lists)
    return outcome._replace(liking=distinct.liking, diversity=distinct.diversity)


def _run_all(
    env: UserSimulator, params: EnvParams, policy: EvaluatedPolicy, sessions: FixedSessions
) -> Outcome:
    """Run in batches of similar durations, each only as long as its longest."""
    num_sessions = len(sessions.users)
    list_length = min(LIST_LENGTH, env.session_capacity)
    order = np.argsort(np.asarray(sessions.durations), kind="stable")
    # The last batch is filled with repetitions: every batch has one shape, and there is one compilation.
    size = min(_BATCH, num_sessions)
    padded = np.resize(order, -(-num_sessions // size) * size)
    returns = np.zeros(num_sessions, np.float32)
    liking = np.zeros(num_sessions, np.float32)
    diversity = np.zeros(num_sessions, np.float32)
    recommended = np.zeros(env.num_items, np.int64)
    for start in range(0, len(padded), size):
        rows = padded[start : start + size]
        fresh = np.arange(start, start + size) < num_sessions
        # A repetition has no duration: it counts for nothing.
        batch = FixedSessions(
            sessions.users[rows],
            sessions.keys[rows],
            jnp.where(fresh, sessions.durations[rows], 0),
        )
        end = _run_batch(env, params, policy, batch, list_length)
        kept = rows[fresh]
        returns[kept] = np.asarray(end.returns)[fresh]
        liking[kept] = np.asarray(end.likes)[fresh].mean(axis=1)
        diversity[kept] = np.asarray(_list_diversity(params, end.items))[fresh]
        recommended += np.asarray(end.counts)
    return Outcome(returns, recommended, liking, diversity)


def evaluate(
    dataset: Dataset,
    env: UserSimulator,
    params: EnvParams,
    learned: Mapping[str, Sequence[EvaluatedPolicy]],
    key: jax.Array,
    cost: dict[str, tuple[int, float]] | None = None,
) -> list[Row]:
    """The table: every baseline and learned policy, on the sessions of train and of held-out users.

    Args:
        dataset: where the environment came from.
        env, params: of `jaxsim.make(dataset, users="train")`.
        learned: name to the policies of its training seeds.
        key: PRNG key of the fixed sessions.
        cost: name of a learned policy to its environment steps of a seed, and seconds of training.

    Returns:
        One row a policy and group of users that has any user.
    """
    print("ranking items for the baselines ...", flush=True)
    policies: dict[str, Sequence[EvaluatedPolicy]] = {
        **learned,
        **{name: [policy] for name, policy in baselines(dataset, env, params).items()},
    }
    groups = {group: dataset.session_users(group) for group in ("train", "held_out")}
    groups = {group: users for group, users in groups.items() if len(users)}
    runs = len(groups) * sum(map(len, policies.values()))
    print(f"evaluating {len(policies)} policies, {runs} runs on fixed sessions ...", flush=True)
    progress = tqdm(total=runs, desc="evaluate", unit="run", disable=None, delay=1)
    rows = []
    for group, users in groups.items():
        sessions = fixed_sessions(key, env, params.replace(session_users=jnp.asarray(users)))
        outcomes: dict[str, list[Outcome]] = {}
        for name, seeds in policies.items():
            progress.set_postfix_str(f"{name}, {group} users")
            outcomes[name] = []
            for policy in seeds:
                outcomes[name].append(run_sessions(env, params, policy, sessions))
                progress.update()
        rows += _rows(group, outcomes, float(sessions.durations.mean()), cost or {})
    progress.close()
    return rows


def _rows(
    group: str,
    outcomes: dict[str, list[Outcome]],
    mean_duration: float,
    cost: dict[str, tuple[int, float]],
) -> list[Row]:
    """The rows of one group of users, whose sessions last `mean_duration` steps."""
    rewards = {name: np.stack([o.returns for o in seeds]) for name, seeds in outcomes.items()}
    random = float(rewards["random"].mean())
    gap = float(rewards["oracle"].mean()) - random
    rows = []
    for name, seeds in outcomes.items():
        own = rewards[name]
        mean = float(own.mean())
        low, high = interval(own)
        paired = [interval(own - rewards[other]) for other in ("like_rate", "random", "popular")]
        steps, seconds = cost.get(name, (0, 0.0))
        counts = np.stack([o.recommended for o in seeds])
        rows.append(
            Row(
                policy=name,
                users=group,
                seeds=len(seeds),
                like_rate=mean / mean_duration,
                a_rwd=mean,
                a_rwd_low=low,
                a_rwd_high=high,
                paired_low=paired[0][0],
                paired_high=paired[0][1],
                paired_random_low=paired[1][0],
                paired_random_high=paired[1][1],
                paired_popular_low=paired[2][0],
                paired_popular_high=paired[2][1],
                share_of_oracle=(mean - random) / gap if gap > 0 else float("nan"),
                t_rwd=TOTAL_REWARD_FACTOR * mean,
                liking=100 * float(np.mean([o.liking for o in seeds])),
                coverage=float((counts > 0).mean()),
                diversity=float(np.nanmean([o.diversity for o in seeds])),
                steps=steps,
                seconds=seconds,
            )
        )
    return rows


def interval(values: np.ndarray) -> tuple[float, float]:
    """Student-t interval of the mean: over seeds where there are several, otherwise over sessions.

    Args:
        values: float[seeds, M].
    """
    sample = values.mean(axis=1) if len(values) > 1 else values[0]
    spread = stats.sem(sample)
    if not spread > 0:  # all equal, as a policy less itself is
        return float(sample.mean()), float(sample.mean())
    low, high = stats.t.interval(CONFIDENCE, len(sample) - 1, sample.mean(), spread)
    return float(low), float(high)


def format_table(rows: list[Row]) -> str:
    """The rows as a Markdown table that also reads well in a terminal, and the paired differences."""
    lines = [
        "| policy | users | A.Rwd (95 % interval) | over like_rate | to oracle | like rate | T.Rwd | "
        "Liking% | coverage | diversity |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in sorted(rows, key=lambda r: (r.users != "train", -r.a_rwd)):
        name = f"{row.policy} ({row.seeds} seeds)" if row.seeds > 1 else row.policy
        lines.append(
            f"| {name} | {row.users} | {row.a_rwd:.2f} ({row.a_rwd_low:.2f} to {row.a_rwd_high:.2f}) | "
            f"{row.paired_low:+.2f} to {row.paired_high:+.2f} | {row.share_of_oracle:.1%} | "
            f"{row.like_rate:.3f} | {row.t_rwd:.1f} | "
            f"{row.liking:.1f} | {row.coverage:.1%} | {row.diversity:.2f} |"
        )
    return "\n".join([_aligned(lines), "", *_paired_lines(rows)])


def _paired_lines(rows: list[Row]) -> list[str]:
    """What each learned policy earns over the baselines on the same sessions, a line a group of users."""
    return [
        f"{row.policy} on {row.users} users earns more than random by {row.paired_random_low:.2f} to "
        f"{row.paired_random_high:.2f}, than popular by {row.paired_popular_low:.2f} to "
        f"{row.paired_popular_high:.2f}, than like_rate by {row.paired_low:.2f} to {row.paired_high:.2f}"
        for row in rows
        if row.steps
    ]


def _aligned(lines: list[str]) -> str:
    cells = [line.strip("|").split("|") for line in lines]
    cells = [[cell.strip() for cell in row] for row in cells]
    widths = [max(len(row[i]) for row in cells) for i in range(len(cells[0]))]
    cells[1] = ["-" * width for width in widths]
    return "\n".join(
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
        for row in cells
    )


def to_json(rows: list[Row]) -> list[dict[str, Any]]:
    """The rows as plain dictionaries; a number that is not finite becomes None."""
    return [
        {
            name: None if isinstance(value, float) and not np.isfinite(value) else value
            for name, value in asdict(row).items()
        }
        for row in rows
    ]
