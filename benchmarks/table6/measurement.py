"""What is measured of a simulator: rewards of DQN in it, accuracy on held-out labels, and speed."""

import statistics
import time
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from agents.algorithms.algorithm import AlgorithmConfig
from agents.algorithms.registry import ALGORITHMS
from agents.evaluation.baselines import RandomPolicy
from agents.evaluation.evaluate import TOTAL_REWARD_FACTOR
from agents.evaluation.intervals import mean_interval
from agents.evaluation.sessions import fixed_sessions, run_sessions
from agents.runs.training import train_seeds
from benchmarks.fidelity import metrics
from benchmarks.fidelity.bootstrap import Estimate, UserBootstrap, estimate
from benchmarks.fidelity.events import Events
from benchmarks.hardware import repeated
from benchmarks.table2 import policies_of
from benchmarks.table6.simulators import Pairs, Simulated, ask
from benchmarks.throughput.measurement import STEPS, calls_of
from benchmarks.throughput.rollout import Runner
from prep.annotation.online import OnlineScorer

AGENT = "dqn"
_RUNS_OF_ONE = 100  # timed responses, of which the median counts
_TIMED_QUESTIONS = 10  # that a language model is asked one after the other


def rewards(
    simulated: Simulated,
    config: AlgorithmConfig,
    seeds: int,
    seed: int,
    repeats: int,
    evaluation_seed: int,
) -> dict[str, Any]:
    """Train DQN in a simulator, and evaluate the greedy policies in fixed sessions of the users it trained on.

    Args:
        simulated: the simulator.
        config: of DQN.
        seeds, seed: number of training seeds, and the first one.
        repeats: sessions of each user.
        evaluation_seed: of the sessions.

    Returns:
        `a_rwd` with `a_rwd_low`, `a_rwd_high`; `t_rwd`; `random_a_rwd`, of random recommendations in the same
        sessions; `train_steps` of one seed; `train_seconds`, `compile_seconds` and `evaluation_seconds`; and
        `sessions` with `session_steps`, the recommendations in them.
    """
    env, params = simulated.env, simulated.params
    trainer = ALGORITHMS[AGENT].algorithm(env, config)
    training = train_seeds(trainer, params, seed, seeds)
    begin = time.perf_counter()
    sessions = fixed_sessions(jax.random.key(evaluation_seed), env, params, repeats)
    policies = policies_of(trainer, training, seeds, sampled=False)
    returns = np.stack([run_sessions(env, params, p, sessions).returns for p in policies])
    random = run_sessions(env, params, RandomPolicy(), sessions).returns
    low, high = mean_interval(returns, np.asarray(sessions.users))
    mean = float(returns.mean())
    return {
        "a_rwd": mean,
        "a_rwd_low": low if np.isfinite(low) else None,
        "a_rwd_high": high if np.isfinite(high) else None,
        "t_rwd": TOTAL_REWARD_FACTOR * mean,
        "random_a_rwd": float(random.mean()),
        "train_steps": training.steps,
        "train_seconds": training.seconds,
        "compile_seconds": training.compile_seconds,
        "evaluation_seconds": time.perf_counter() - begin,
        "sessions": len(sessions.users),
        "session_steps": int(sessions.durations.sum()),
        "settings": asdict(config),
    }


def accuracy(
    bootstrap: UserBootstrap, labels: np.ndarray, probabilities: np.ndarray
) -> dict[str, Estimate]:
    """`auc` and `ece` of probabilities float64[E] of labels int8[E], with intervals over users."""
    error = metrics.calibration_error(bootstrap, labels, probabilities)
    return {
        "auc": estimate(metrics.auc(bootstrap, labels, probabilities)),
        "ece": estimate(error, centred=True),
    }


def accuracy_on_pairs(
    pairs: Pairs, probabilities: np.ndarray, resamples: int, seed: int
) -> dict[str, Estimate]:
    """`auc_pairs` and `auc_clean_pairs`: ROC-AUC on the pairs, and on the clean ones among them."""
    result = {}
    for name, chosen in (
        ("auc_pairs", np.ones(len(pairs.clean), bool)),
        ("auc_clean_pairs", pairs.clean),
    ):
        users, labels = pairs.events.user[chosen], pairs.events.label[chosen]
        bootstrap = UserBootstrap(users, resamples, seed)
        result[name] = estimate(metrics.auc(bootstrap, labels, probabilities[chosen]))
    return result


def speed(simulated: Simulated, events: Events, batch: int, repeats: int) -> dict[str, float]:
    """How long a response takes.

    Args:
        simulated: the simulator.
        events: the response to the first of them is timed, with its whole history.
        batch: sessions that are stepped at once in bulk.
        repeats: timed runs in bulk.

    Returns:
        `seconds_one`: median of `env.respond`, jitted, for one user; `responses_per_second`: median of the steps
        of `batch` sessions with random actions, as `python -m benchmarks throughput` measures them.
    """
    env, params = simulated.env, simulated.params
    first = (events.history_items[0], events.history_labels[0], events.item[0])
    arguments = tuple(jnp.asarray(x) for x in first)
    user = jnp.int32(events.user[0])
    respond = jax.jit(
        lambda key, items, labels, item, params, user: env.respond(
            key, items, labels, item, params, user
        )
    )
    one = repeated(lambda: respond(jax.random.key(0), *arguments, params, user), _RUNS_OF_ONE)
    runner = Runner(env, params, batch, STEPS)
    calls = calls_of(runner)
    bulk = statistics.median(runner.seconds(calls) for _ in range(repeats))
    return {"seconds_one": one.median, "responses_per_second": calls * STEPS * batch / bulk}


def ask_and_time(scorer: OnlineScorer, events: Events) -> tuple[np.ndarray, dict[str, Any]]:
    """A language model's probabilities of events, float64[E], and how long it took where it was really asked.

    Returns:
        The probabilities; `seconds_one`, the median of questions asked one after the other, and
        `responses_per_second` of the others, asked side by side; None where answers were stored already.
    """
    singles, answers = [], []
    for row in range(min(_TIMED_QUESTIONS, len(events))):
        calls, begin = scorer.calls, time.perf_counter()
        answers.append(ask(scorer, rows_of(events, slice(row, row + 1))))
        if scorer.calls > calls:
            singles.append(time.perf_counter() - begin)
    calls, begin = scorer.calls, time.perf_counter()
    answers.append(ask(scorer, rows_of(events, slice(len(answers), None))))
    asked, seconds = scorer.calls - calls, time.perf_counter() - begin
    return np.concatenate(answers), {
        "seconds_one": statistics.median(singles) if singles else None,
        "responses_per_second": asked / seconds if asked else None,
    }


def rows_of(events: Events, rows: slice) -> Events:
    """Some of the events."""
    return Events(**{name: column[rows] for name, column in _columns(events).items()})


def _columns(events: Events) -> Mapping[str, np.ndarray]:
    names = ("user", "item", "label", "history_items", "history_labels")
    return {name: getattr(events, name) for name in names}
