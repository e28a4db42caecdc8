"""Whether the default device simulates what the CPU does: the same decisions and, from the same keys, sessions.

f_mat and f_sim judge whole numbers, so that their votes should not depend on the device (item features round
cosines to millionths after a float32 product, which may land on either side of a half). f_sta is float32: a
device that adds in another order moves its probability a little, and where that crosses one half the vote flips;
the session then goes another way. JAX lets GPUs multiply float32 matrices at a lower precision unless
`jax_default_matmul_precision`, or the program, says otherwise: both settings are compared, and their speeds.

With `--cache-dtype bfloat16` the device stays the same, and f_sta's cache in 16 bits is compared with that in 32.
"""

import contextlib
import math
from functools import partial
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from benchmarks import hardware
from benchmarks.hardware import Timing
from benchmarks.output import check_json, write_json
from benchmarks.throughput.measurement import calls_of
from benchmarks.throughput.random_actions import draw_allowed
from benchmarks.throughput.rollout import Runner, compare_in_turn
from benchmarks.throughput.step_cost import state_bytes
from jaxsim import Dataset, EnvParams, InputError, UserSimulator, load_dataset, make
from jaxsim.dataset import TRAIN
from jaxsim.ensemble import STA_THRESHOLD, Decision
from jaxsim.sasrec import CacheDtype
from jaxsim.similarity import COSINE_UNIT
from jaxsim.user_models import Interaction

CATALOGUES: tuple[Literal["tables", "features"], ...] = ("tables", "features")
PRECISIONS = ("default", "highest")  # of float32 matrix products on the default device
VOTES = ("f_mat", "f_sim", "f_sta")
STEPS = 20  # of a timed call
_RUN_SECONDS = 0.5


@struct.dataclass
class Histories:
    """C decisions to take.

    Attributes:
        items: int32[C, W], a user's initial history and a random tail, -1 pads.
        labels: int8[C, W].
        candidate, user: int32[C].
    """

    items: jax.Array
    labels: jax.Array
    candidate: jax.Array
    user: jax.Array


@struct.dataclass
class Sessions:
    """What happened in B sessions of T steps, before each step and by it; int32[T, B], votes int8[T, B, 3]."""

    user: jax.Array
    item: jax.Array
    like: jax.Array
    votes: jax.Array


def run_agreement(
    dataset: str = "ml-100k",
    decisions: int = 8192,
    sessions: int = 4096,
    steps: int = 50,
    timed_sessions: int = 0,
    repeats: int = 5,
    seed: int = 0,
    cache_dtype: CacheDtype = "float32",
    json: Path | None = None,
) -> None:
    """Compare the default device with the CPU: decisions, sessions from the same keys, and the price of precision.

    Example:
        --cache-dtype bfloat16

    Args:
        dataset: name that `python -m prep build` has built, or path of a packed folder.
        decisions: random decisions to compare.
        sessions: sessions to compare, stepped with random allowed actions.
        steps: of each session.
        timed_sessions: sessions at once where speed is measured; 0 takes 1,024 on a CPU and 32,768 otherwise.
        repeats: timed runs of each speed; the median counts.
        seed: of everything random.
        cache_dtype: "bfloat16" compares f_sta's cache in 16 bits with that in 32, both on the default device.
        json: also write the result here.
    """
    check_json(json)
    for name, value, least in (
        ("decisions", decisions, 1),
        ("sessions", sessions, 1),
        ("steps", steps, 1),
        ("timed-sessions", timed_sessions, 0),
        ("repeats", repeats, 1),
    ):
        if value < least:
            raise InputError(f"--{name} {value}: give a whole number from {least}")
    packed = load_dataset(dataset)
    timed = timed_sessions or (1024 if jax.default_backend() == "cpu" else 32768)
    if cache_dtype != "float32":
        result = measure_cache(packed, cache_dtype, sessions, steps, timed, repeats, seed)
        print(format_cache(result))
    else:
        result = measure(packed, decisions, sessions, steps, timed, repeats, seed)
        print(format_report(result))
    write_json(json, result)


def measure(
    dataset: Dataset,
    decisions: int,
    sessions: int,
    steps: int,
    timed_sessions: int,
    repeats: int,
    seed: int,
    **settings: Any,
) -> dict[str, Any]:
    """The content of `--json`; `settings` are further arguments of `jaxsim.make`."""
    cpu, device = jax.devices("cpu")[0], jax.devices()[0]
    rows = []
    for catalogue in CATALOGUES:
        # With the tables also that of prefixes, so that both ways to begin a session are compared.
        kinds = {"catalogue": catalogue, "prefixes": "table" if catalogue == "tables" else "encode"}
        print(f"{catalogue}: simulating on the CPU ...", flush=True)
        with jax.default_device(cpu):
            env, params = make(dataset, **{**settings, **kinds})
            asked = random_histories(env, params, decisions, seed)
            theirs = decide(env, params, asked, cpu, seed)
            their_sessions = play(env, params, sessions, steps, cpu, seed)
        for precision in PRECISIONS:
            print(f"{catalogue}: simulating on the device, {precision} precision ...", flush=True)
            with matmul_precision(precision), jax.default_device(device):
                env, params = make(dataset, **{**settings, **kinds})
                ours = decide(env, params, asked, device, seed)
                our_sessions = play(env, params, sessions, steps, device, seed)
                speed = speed_of(env, params, timed_sessions, repeats)
            rows.append(
                {
                    "catalogue": catalogue,
                    "precision": precision,
                    "decisions": compare_decisions(theirs, ours),
                    "sessions": compare_sessions(their_sessions, our_sessions),
                    "speed": speed,
                }
            )
            print(row_line(rows[-1]), flush=True)
    return {
        "device": hardware.device_name(),
        "jax": jax.__version__,
        "dataset": dataset.name,
        "decisions": decisions,
        "sessions": sessions,
        "steps": steps,
        "repeats": repeats,
        "seed": seed,
        "rows": rows,
    }


def matmul_precision(name: str) -> contextlib.AbstractContextManager[Any]:
    """JAX's precision of float32 matrix products within a `with`; "default" leaves it as it is."""
    return contextlib.nullcontext() if name == "default" else jax.default_matmul_precision(name)


# ---- decisions -------------------------------------------------------------------------------------------


def random_histories(env: UserSimulator, params: EnvParams, count: int, seed: int) -> Histories:
    """Users' initial histories, each with a random tail, and a random candidate."""
    rng = np.random.default_rng(seed)
    initial, window = params.histories, env.window
    user = rng.integers(env.num_users, size=count)
    items = rng.integers(env.num_items, size=(count, window))
    labels = rng.integers(2, size=(count, window))
    length = np.asarray(initial.length)[user][:, None]
    end = length + rng.integers(env.session_capacity + 1, size=(count, 1))
    padding = ((0, 0), (0, env.session_capacity))
    position = np.arange(window)
    known = position < length
    items = np.where(known, np.pad(np.asarray(initial.items)[user], padding), items)
    labels = np.where(known, np.pad(np.asarray(initial.likes)[user], padding), labels)
    items = np.where(position < end, items, -1)
    return Histories(
        items=jnp.asarray(items, jnp.int32),
        labels=jnp.asarray(labels, jnp.int8),
        candidate=jnp.asarray(rng.integers(env.num_items, size=count), jnp.int32),
        user=jnp.asarray(user, jnp.int32),
    )


def decide(
    env: UserSimulator, params: EnvParams, asked: Histories, device: jax.Device, seed: int
) -> Decision:
    """`env.respond` to all of them on a device; the result on the host."""
    keys = jax.random.split(jax.random.key(seed), len(asked.user))
    params, asked, keys = jax.device_put((params, asked, keys), device)
    return jax.device_get(_decide(env, params, asked, keys))


@partial(jax.jit, static_argnames="env")
def _decide(env: UserSimulator, params: EnvParams, asked: Histories, keys: jax.Array) -> Decision:
    def one(key: jax.Array, asked: Histories) -> Decision:
        return env.respond(key, asked.items, asked.labels, asked.candidate, params, asked.user)

    return jax.vmap(one)(keys, asked)


def compare_decisions(theirs: Decision, ours: Decision) -> dict[str, Any]:
    """How far two devices' decisions agree.

    Returns:
        equal_votes: shares, in the order of `VOTES`; equal_responses: a share; largest_difference of the sides
        that f_mat and f_sim compare, in keywords and in millionths, and of f_sta's probability; flips: of f_sta;
        flips_within: the farthest from one half that the reference's probability was where f_sta flipped.
    """
    sides = {
        "keywords": ("alpha_pos", "alpha_neg"),
        "cosine_millionths": ("beta_pos", "beta_neg"),
    }
    largest = {
        name: max(_difference(getattr(theirs, side), getattr(ours, side)) for side in pair)
        for name, pair in sides.items()
    }
    probability = np.asarray(theirs.sta_probability, np.float64)
    moved = np.abs(probability - ours.sta_probability)
    flipped = theirs.votes[:, 2] != ours.votes[:, 2]
    within = np.abs(probability - STA_THRESHOLD)[flipped].max(initial=0.0)
    return {
        "equal_votes": [float(x) for x in (theirs.votes == ours.votes).mean(axis=0)],
        "equal_responses": float((theirs.response.like == ours.response.like).mean()),
        "largest_difference": largest | {"sta_probability": float(moved.max())},
        "mean_difference_sta_probability": float(moved.mean()),
        "flips": int(flipped.sum()),
        "flips_within": float(within),
    }


def _difference(a: np.ndarray, b: np.ndarray) -> int:
    """Largest difference of two sides as whole numbers; cosines in millionths, -inf below all of them."""

    def whole(x: np.ndarray) -> np.ndarray:
        if np.issubdtype(x.dtype, np.integer):
            return x.astype(np.int64)
        units = np.where(np.isneginf(x), -2.0, x).astype(np.float64) * COSINE_UNIT
        return np.rint(units).astype(np.int64)

    return int(np.abs(whole(a) - whole(b)).max())


# ---- sessions --------------------------------------------------------------------------------------------


def play(
    env: UserSimulator, params: EnvParams, sessions: int, steps: int, device: jax.Device, seed: int
) -> Sessions:
    """Sessions with random allowed actions on a device; the result on the host."""
    keys = jax.random.split(jax.random.key(seed), (sessions, 2))
    params, keys = jax.device_put((params, keys), device)
    return jax.device_get(_play(env, params, keys, steps))


@partial(jax.jit, static_argnames=("env", "steps"))
def _play(env: UserSimulator, params: EnvParams, keys: jax.Array, steps: int) -> Sessions:
    states = jax.vmap(env.reset, (0, None))(keys[:, 0], params)[1]

    def step(states: Any, time: jax.Array) -> tuple[Any, Sessions]:
        keys_act, keys_step = jax.vmap(lambda key: jax.random.split(jax.random.fold_in(key, time)))(
            keys[:, 1]
        ).T
        action = jax.vmap(draw_allowed, (0, 0, None))(keys_act, states.items, env.num_items)
        _, following, *_, info = jax.vmap(env.step, (0, 0, 0, None))(
            keys_step, states, action, params
        )
        return following, Sessions(states.user, action, info["response"].like, info["votes"])

    return jax.lax.scan(step, states, jnp.arange(steps))[1]


def compare_sessions(theirs: Sessions, ours: Sessions) -> dict[str, Any]:
    """How far two devices' sessions agree.

    Returns:
        identical: share whose users, items and responses are all equal; first_step and median_step: where the
        earliest session, and the median of those that differ, part; None if none does. parted_by: of the votes at
        those steps, how many differ, in the order of `VOTES`. equal_responses: share of all steps.
    """
    equal = np.stack(
        [getattr(theirs, name) == getattr(ours, name) for name in ("user", "item", "like")]
    ).all(axis=0)
    parted = ~equal.all(axis=0)
    step = equal.argmin(axis=0)[parted]
    votes = (theirs.votes != ours.votes)[step, np.flatnonzero(parted)]
    return {
        "identical": float(1 - parted.mean()),
        "first_step": int(step.min()) if len(step) else None,
        "median_step": float(np.median(step)) if len(step) else None,
        "parted_by": [int(x) for x in votes.sum(axis=0)],
        "equal_responses": float((theirs.like == ours.like).mean()),
        "like_rates": [float(x.like.mean()) for x in (theirs, ours)],
    }


# ---- speed -----------------------------------------------------------------------------------------------


def speed_of(env: UserSimulator, params: EnvParams, sessions: int, repeats: int) -> dict[str, Any]:
    """Steps per second of the program that `benchmarks.throughput` times, at the precision of the surroundings."""
    runner = Runner(env, params, sessions, STEPS)
    runner.seconds(calls=1)  # the first call warms up
    calls = math.ceil(_RUN_SECONDS / runner.seconds(calls=1))
    timing = Timing.of([runner.seconds(calls) for _ in range(repeats)])
    steps = calls * STEPS * sessions
    return {
        "sessions": sessions,
        "steps_per_second": steps / timing.median,
        "low_quartile": steps / timing.high,
        "high_quartile": steps / timing.low,
    }


# ---- the type of the cache -------------------------------------------------------------------------------


def measure_cache(
    dataset: Dataset,
    cache_dtype: CacheDtype,
    sessions: int,
    steps: int,
    timed_sessions: int,
    repeats: int,
    seed: int,
    **settings: Any,
) -> dict[str, Any]:
    """Compare f_sta's cache in another type with that in float32, on the default device.

    Decisions are on what users really rated after their initial histories, in that order, and the true labels
    enter the history: both caches see the same. Sessions start from the same keys, with random allowed actions.

    Returns:
        The content of `--json`: decisions as `compare_decisions`, and their `count`; sessions as
        `compare_sessions`; `speed` of both in turn, as `compare_in_turn`; `state_bytes` of one session.
    """
    device = jax.devices()[0]
    made: dict[str, tuple[UserSimulator, EnvParams]] = {
        "float32": make(dataset, **settings),
        cache_dtype: make(dataset, **settings, cache_dtype=cache_dtype),
    }
    print("deciding on what users rated next ...", flush=True)
    real = real_continuations(dataset, made["float32"][0].session_capacity)
    judged = {name: jax.device_get(_judge(*pair, *real)) for name, pair in made.items()}
    asked = np.asarray(real[0]) >= 0
    kept = {name: jax.tree.map(lambda x: x[asked], decision) for name, decision in judged.items()}
    print("playing sessions ...", flush=True)
    played = {name: play(*pair, sessions, steps, device, seed) for name, pair in made.items()}
    print("timing both in turn ...", flush=True)
    runners = {name: Runner(*pair, timed_sessions, STEPS) for name, pair in made.items()}
    calls = {name: calls_of(runner) for name, runner in runners.items()}
    speed = compare_in_turn(runners, calls, STEPS * timed_sessions, "float32", repeats)
    return {
        "device": hardware.device_name(),
        "jax": jax.__version__,
        "dataset": dataset.name,
        "cache_dtype": cache_dtype,
        "decisions": {
            "count": int(asked.sum()),
            **compare_decisions(kept["float32"], kept[cache_dtype]),
        },
        "sessions": {
            "count": sessions,
            "steps": steps,
            **compare_sessions(played["float32"], played[cache_dtype]),
        },
        "speed": {"sessions": timed_sessions, **speed},
        "state_bytes": {name: state_bytes(*pair) for name, pair in made.items()},
        "repeats": repeats,
        "seed": seed,
    }


def real_continuations(dataset: Dataset, capacity: int) -> tuple[jax.Array, jax.Array]:
    """What U users rated after their training interactions: items int32[U, S], -1 pads; labels int8[U, S]."""
    arrays = dataset.arrays
    later = np.flatnonzero(arrays["interaction_split"] != TRAIN)
    user = dataset.interaction_user()[later]
    counts = np.bincount(user, minlength=dataset.num_users)
    position = np.arange(len(later)) - (np.cumsum(counts) - counts)[user]
    first = position < capacity
    cells = user[first], position[first]
    items = np.full((dataset.num_users, capacity), -1, np.int32)
    labels = np.zeros((dataset.num_users, capacity), np.int8)
    items[cells] = arrays["interaction_item"][later[first]]
    labels[cells] = arrays["interaction_label"][later[first]]
    return jnp.asarray(items), jnp.asarray(labels)


@partial(jax.jit, static_argnames="env")
def _judge(env: UserSimulator, params: EnvParams, items: jax.Array, labels: jax.Array) -> Decision:
    """The decision on each item of each user's continuation, after the ones before it: `Decision` [U, S]."""

    def one_user(user: jax.Array, items: jax.Array, labels: jax.Array) -> Decision:
        model = env.user_model

        def step(state: Any, event: Any) -> tuple[Any, Decision]:
            item, label, key = event
            decision = model.decide(key, params, state, jnp.maximum(item, 0))
            valid = item >= 0
            slot = jnp.where(valid, state.length, env.window)
            new = Interaction(jnp.maximum(item, 0), label, valid, slot, key)
            return env._append(params, state, new), decision

        start = env.reset_user(user, params)[1]
        keys = jax.random.split(jax.random.key(0), len(items))
        return jax.lax.scan(step, start, (items, labels, keys))[1]

    users = jnp.arange(env.num_users, dtype=jnp.int32)
    return jax.vmap(one_user)(users, items, labels)


def format_cache(result: dict[str, Any]) -> str:
    """The comparison of two types of the cache as text for a terminal."""
    name, speed, held = result["cache_dtype"], result["speed"], result["state_bytes"]
    of_name, decisions, sessions = speed[name], result["decisions"], result["sessions"]
    return "\n".join(
        [
            f"{result['dataset']}: f_sta's cache in {name} beside float32, {result['device']}, "
            f"jax {result['jax']}",
            f"{decisions['count']:,} decisions on what users rated next, {sessions['count']:,} sessions of "
            f"{sessions['steps']} steps:",
            *_agreement_lines(decisions, sessions),
            f"  {held[name]:,} bytes a session instead of {held['float32']:,}",
            f"  {of_name['ratio']:.2f} ({of_name['low_quartile']:.2f} to {of_name['high_quartile']:.2f}) "
            f"times the {speed['float32']['steps_per_second']:,.0f} steps/s of float32, "
            f"{speed['sessions']:,} sessions at once",
        ]
    )


# ---- report ----------------------------------------------------------------------------------------------


def format_report(result: dict[str, Any]) -> str:
    """The comparison as text for a terminal."""
    head = (
        f"{result['dataset']}: the CPU beside {result['device']}, jax {result['jax']}; "
        f"{result['decisions']:,} decisions, {result['sessions']:,} sessions of {result['steps']} steps"
    )
    return "\n".join([head, *map(row_line, result["rows"])])


def row_line(row: dict[str, Any]) -> str:
    """One catalogue at one precision."""
    speed = row["speed"]
    return "\n".join(
        [
            f"{row['catalogue']}, {row['precision']} precision:",
            *_agreement_lines(row["decisions"], row["sessions"]),
            f"  {speed['steps_per_second']:,.0f} steps/s, {speed['sessions']:,} sessions at once",
        ]
    )


def _agreement_lines(decisions: dict[str, Any], sessions: dict[str, Any]) -> list[str]:
    largest = decisions["largest_difference"]
    votes = ", ".join(
        f"{name} {share:.4%}" for name, share in zip(VOTES, decisions["equal_votes"], strict=True)
    )
    parted = "none differs"
    if sessions["first_step"] is not None:
        by = ", ".join(map("{} {}".format, VOTES, sessions["parted_by"]))
        first, median = sessions["first_step"], sessions["median_step"]
        parted = f"the others from step {first} on, at the median {median:g} ({by})"
    return [
        f"  equal votes {votes}; responses {decisions['equal_responses']:.4%}",
        f"  largest difference {largest['keywords']} keywords, {largest['cosine_millionths']} millionths of a "
        f"cosine, {largest['sta_probability']:.2e} of f_sta's probability (mean "
        f"{decisions['mean_difference_sta_probability']:.2e}); flips of f_sta {decisions['flips']}, "
        f"within {decisions['flips_within']:.2e} of one half",
        f"  identical sessions {sessions['identical']:.4%}, {parted}",
    ]
