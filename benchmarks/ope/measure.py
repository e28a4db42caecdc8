"""How far estimates from logs are from the truth, which the simulator knows: over many logs of each policy."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats

from agents.evaluation.intervals import CONFIDENCE, mean_interval
from agents.evaluation.logs import Arrays, draw_sessions, logged_episodes
from agents.runs.log_formats import item_context
from benchmarks.fidelity.bootstrap import UserBootstrap, estimate
from benchmarks.ope.estimators import FIRST, SESSION, effective_size, first_step, session
from benchmarks.ope.policies import PAIRS, EpsilonSoftmax
from benchmarks.ope.reward_model import cross_fitted, pair_features
from jaxsim import Dataset, EnvParams, Observation, UserSimulator

TRUTH_SESSIONS = 20_000
_TRUTH, _LOGS = 1, 2  # streams of random numbers
_CHUNK = 512  # rows whose propensities are computed at once


@dataclass(frozen=True)
class World:
    """What the estimates are made in, and what they should be.

    Attributes:
        env, params: whose sessions end after `horizon` recommendations.
        policies: by name.
        horizon: T.
        probabilities: policy to the probability of every item at the start of a session, float32[U, N].
        features: of users and items, for the model of rewards, float32[U, N, F].
        values: policy to what it earns: `first`, exact, of the first recommendation; `simulated_first` and
            `session` from sessions that were run, the latter with its 95 % interval.
    """

    env: UserSimulator
    params: EnvParams
    policies: dict[str, EpsilonSoftmax]
    horizon: int
    probabilities: dict[str, np.ndarray]
    features: np.ndarray
    values: dict[str, dict[str, float]]

    def log(self, policy: EpsilonSoftmax, sessions: int, key: jax.Array) -> tuple[Arrays, Arrays]:
        """The columns of a log, [R] each, and the observations before its steps."""
        users, keys = draw_sessions(self.params, key, sessions)
        batches = list(logged_episodes(self.env, self.params, policy, users, keys, True))
        columns, before = (
            {name: np.concatenate([x[name] for x in part]) for name in part[0]}
            for part in ([x.columns for x in batches], [x.before for x in batches])
        )
        columns["row"] = np.searchsorted(np.asarray(self.params.session_users), columns["user"])
        return columns, before


def make_world(
    dataset: Dataset,
    env: UserSimulator,
    params: EnvParams,
    policies: dict[str, EpsilonSoftmax],
    horizon: int,
    seed: int,
) -> World:
    """Run every target policy in the simulator, and compute what is known of the starts of sessions.

    Args:
        dataset: of the environment.
        env, params: of `jaxsim.make`.
        policies: by name, with those of PAIRS.
        horizon: recommendations of a session.
        seed: of the sessions.
    """
    params = params.replace(max_steps_in_episode=jnp.int32(horizon))
    starts = {name: _at_start(env, params, policy) for name, policy in policies.items()}
    expected, obs = starts["uniform"][1:]
    world = World(
        env=env,
        params=params,
        policies=policies,
        horizon=horizon,
        probabilities={name: np.asarray(start[0]) for name, start in starts.items()},
        features=pair_features(
            item_context(dataset), np.asarray(obs.items), np.asarray(obs.responses)
        ),
        values={},
    )
    for number, name in enumerate(dict.fromkeys(target for _, target in PAIRS)):
        key = jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), _TRUTH), number)
        exact = float((world.probabilities[name] * np.asarray(expected)).sum(axis=1).mean())
        columns, _ = world.log(policies[name], TRUTH_SESSIONS, key)
        returns = np.bincount(columns["episode"], columns["reward"])
        low, high = mean_interval(returns[None], np.arange(len(returns)))
        world.values[name] = {
            "first": exact,
            "simulated_first": float(columns["reward"][columns["step"] == 1].mean()),
            "session": float(returns.mean()),
            "session_low": low,
            "session_high": high,
        }
        print(f"{name}: its true value is known", flush=True)
    return world


@partial(jax.jit, static_argnames="env")
def _at_start(
    env: UserSimulator, params: EnvParams, policy: EpsilonSoftmax
) -> tuple[jax.Array, jax.Array, Observation]:
    """For each session user the policy's probabilities, expected rewards, float32[U, N], and the observation."""

    def start(user: jax.Array) -> tuple[jax.Array, jax.Array, Observation]:
        obs, state = env.reset_user(user, params)
        return policy.probabilities(env, obs, params), env.expected_response(state, params), obs

    return jax.lax.map(start, params.session_users, batch_size=64)


def measure_pairs(
    world: World, sessions: int, logs: int, resamples: int, seed: int
) -> list[dict[str, Any]]:
    """A row for each pair of policies and estimator.

    Args:
        world: of `make_world`.
        sessions: of a log.
        logs: of each logging policy, each with keys of its own.
        resamples: of the bootstrap.
        seed: of the logs.
    """
    rows = []
    for number, logging in enumerate(dict.fromkeys(logging for logging, _ in PAIRS)):
        key = jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), _LOGS), number)
        targets = [target for name, target in PAIRS if name == logging]
        found: dict[str, list[dict[str, Any]]] = {target: [] for target in targets}
        for log in range(logs):
            bootstrap = UserBootstrap(np.arange(sessions), resamples, log).weights
            columns, before = world.log(
                world.policies[logging], sessions, jax.random.fold_in(key, log)
            )
            predictions = _predictions(world, columns)
            for target in targets:
                found[target].append(
                    _one_log(world, target, columns, before, predictions, bootstrap)
                )
        for target, results in found.items():
            rows += _judged(world, logging, target, results)
        print(f"{logging}: {logs} logs done", flush=True)
    return rows


def _first(columns: Arrays) -> Arrays:
    """The rows of first recommendations."""
    return {name: x[columns["step"] == 1] for name, x in columns.items()}


def _predictions(world: World, columns: Arrays) -> list[tuple[np.ndarray, np.ndarray]]:
    """The halves of the first recommendations, with predicted rewards."""
    first = _first(columns)
    return cross_fitted(world.features, first["row"], first["item"], first["reward"])


def _one_log(
    world: World,
    target: str,
    columns: Arrays,
    before: Arrays,
    predictions: Sequence[tuple[np.ndarray, np.ndarray]],
    bootstrap: np.ndarray,
) -> dict[str, Any]:
    """The replicates of each estimator of a target from one log, and the effective sizes of the log."""
    chosen, first = world.probabilities[target], _first(columns)
    weight = chosen[first["row"], first["item"]].astype(np.float64) / first["propensity"]
    predicted, value = np.zeros(len(weight)), np.zeros(len(weight))
    for rows, model in predictions:
        users = first["row"][rows]
        predicted[rows] = model[users, first["item"][rows]]
        value[rows] = np.einsum("un,un->u", chosen, model)[users]
    replicates = first_step(weight, first["reward"], predicted, value, bootstrap)
    weights, rewards = _by_session(world, target, columns, before)
    replicates |= session(weights, rewards, bootstrap)
    sizes = effective_size(weight), effective_size(weights.prod(axis=1))
    return {"replicates": replicates, "sizes": sizes}


def _by_session(
    world: World, target: str, columns: Arrays, before: Arrays
) -> tuple[np.ndarray, np.ndarray]:
    """The weight and the reward of each step of each session, float64[n, T]; 1 and 0 after its end."""
    shape = (columns["episode"].max() + 1, world.horizon)
    weights, rewards = np.ones(shape), np.zeros(shape)
    place = columns["episode"], columns["step"] - 1
    aim = _propensities(world, target, before, columns["item"])
    weights[place] = aim.astype(np.float64) / columns["propensity"]
    rewards[place] = columns["reward"]
    return weights, rewards


def _propensities(world: World, target: str, before: Arrays, item: np.ndarray) -> np.ndarray:
    """The probability with which the target recommends each logged item, float32[R]."""
    parts = []
    for start in range(0, len(item), _CHUNK):
        rows = np.minimum(np.arange(start, start + _CHUNK), len(item) - 1)
        obs = Observation(**{name: jnp.asarray(x[rows]) for name, x in before.items()})
        of_rows = _propensity(world.env, world.params, world.policies[target], obs, item[rows])
        parts.append(np.asarray(of_rows))
    return np.concatenate(parts)[: len(item)]


@partial(jax.jit, static_argnames="env")
def _propensity(
    env: UserSimulator, params: EnvParams, policy: EpsilonSoftmax, obs: Observation, item: jax.Array
) -> jax.Array:
    return jax.vmap(lambda o, i: policy.propensity(env, o, params, i))(obs, item)


def _judged(
    world: World, logging: str, target: str, results: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    """A row for each estimator: how far its estimates from the logs of a pair of policies are from the truth."""
    possible = world.probabilities[logging] > 0
    support = float((world.probabilities[target] * possible).sum(axis=1).mean())
    rows = []
    for level, names in (("first", FIRST), ("session", SESSION)):
        truth = world.values[target][level]
        sizes = [result["sizes"][level == "session"] for result in results]
        for name in names:
            estimates = [estimate(result["replicates"][name]) for result in results]
            rows.append(
                {
                    "logging": logging,
                    "target": target,
                    "level": level,
                    "estimator": name,
                    "truth": truth,
                    **judged(estimates, truth),
                    "effective_size": float(np.mean(sizes)),
                    "support": support,
                }
            )
    return rows


def judged(estimates: Sequence[Any], truth: float) -> dict[str, float]:
    """Bias, error and coverage of the estimates from L logs, each with its interval.

    Args:
        estimates: `value`, `low` and `high` of each log.
        truth: what they should be.
    """
    values = np.array([x["value"] for x in estimates], np.float64)
    low, high = (np.array([x[end] for x in estimates], np.float64) for end in ("low", "high"))
    covers = (low <= truth) & (truth <= high)
    bias = mean_interval((values - truth)[None], np.arange(len(values)))
    share = stats.binomtest(int(covers.sum()), len(covers)).proportion_ci(CONFIDENCE, "wilson")
    return {
        "mean": float(values.mean()),
        "bias": float((values - truth).mean()),
        "bias_low": bias[0],
        "bias_high": bias[1],
        "rmse": float(np.sqrt(((values - truth) ** 2).mean())),
        "coverage": float(covers.mean()),
        "coverage_low": float(share.low),
        "coverage_high": float(share.high),
        "width": float((high - low).mean()),
    }
