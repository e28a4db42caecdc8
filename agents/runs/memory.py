"""Estimates the memory of a training run before anything is compiled, and refuses a run that does not fit."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import psutil

from agents.algorithms.algorithm import Algorithm, AlgorithmConfig
from agents.algorithms.rollout import slate_size_of
from agents.algorithms.trpo import TRPOConfig
from agents.runs.seeds import choose_at_once
from jaxsim import EnvParams, InputError

# The buffers of the state are reused from chunk to chunk, but inside a chunk XLA works on a copy; if seeds follow
# one another, the one in progress has a copy of its own. A gradient step
# holds several arrays with a score of every item, for each step of its batch; TRPO also holds what its products
# with the Fisher matrix reuse. For one seed with 65,000 items and default settings, the estimate is 0.94 to 1.18
# times the state and temporaries that XLA's memory analysis gives on a CPU.
STATE_COPIES = 2
SCORE_COPIES = 5
TRPO_SCORE_COPIES = 13
# With slates, TRPO's products hold as many more for each place. For one seed with MovieLens 100K, K = 5 and
# the residual encoder, the estimate is 1.1 times what XLA gives.
TRPO_PLACE_COPIES = 3
# A gradient through an encoder that gathers the window's items holds several arrays with `width` numbers for each
# position of the window. These numbers of arrays come from XLA's temporaries of one gradient on a CPU, with 1,024
# windows of 150 items and width 32.
ENCODER_COPIES = {"mean": 0, "residual": 6, "attention": 7, "gru": 13}
_CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")


def training_bytes(
    algorithm: Algorithm,
    params: EnvParams,
    num_seeds: int,
    devices: int = 1,
    at_once: int | None = None,
) -> int:
    """Estimate of the bytes that training needs on each device, for its states and for temporary arrays.

    On one device the params are not counted, because they are there already. On several devices each gets a copy.
    Nothing is computed or allocated. The arguments are those of `agents.runs.training.train_seeds`.
    """
    state = jax.eval_shape(algorithm.init, jax.random.key(0), params)
    per_step = _scores_bytes(algorithm) + _encoder_bytes(algorithm.config, state)
    config = algorithm.config
    steps = max(config.num_envs, config.steps_per_gradient)
    if _splits_sessions(num_seeds, devices):
        own_seeds, state_bytes = num_seeds, _own_bytes(algorithm.state_axes, state, devices)
        steps_bytes = steps * per_step // devices
    else:
        own_seeds, state_bytes = num_seeds // devices, _bytes(state)
        steps_bytes = steps * per_step
    beside = min(choose_at_once(num_seeds, at_once), own_seeds)
    states = STATE_COPIES * own_seeds + (beside if beside < own_seeds else 0)
    copied = _bytes(params) if devices > 1 else 0
    return states * state_bytes + beside * steps_bytes + copied


def _splits_sessions(num_seeds: int, devices: int) -> bool:
    """Whether the devices share the sessions of each seed; otherwise each device has its own seeds."""
    return num_seeds % devices != 0


def _bytes(tree: Any) -> int:
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def _own_bytes(axes: Any, state: Any, devices: int) -> int:
    """Bytes of the state on each device: a share of arrays that have an axis of sessions, a copy of the others."""
    shares = jax.tree.map(
        lambda axis, part: _bytes(part) // (1 if axis is None else devices),
        axes,
        state,
        is_leaf=lambda axis: axis is None,
    )
    return sum(jax.tree.leaves(shares))


def _scores_bytes(algorithm: Algorithm) -> int:
    """Bytes of the scores of all items that are held at once for each step."""
    if isinstance(algorithm.config, TRPOConfig):
        places = slate_size_of(algorithm.env) or 0
        copies = TRPO_SCORE_COPIES + TRPO_PLACE_COPIES * places
    else:
        copies = SCORE_COPIES
    return 4 * copies * algorithm.num_choices


def _encoder_bytes(config: AlgorithmConfig, state: Any) -> int:
    """Bytes that the encoder holds at once for the window of each step."""
    copies = ENCODER_COPIES[config.encoder]
    return 4 * copies * config.width * state.sessions.obs.items.shape[-1] if copies else 0


def free_bytes(device: jax.Device) -> int:
    """Bytes that this process may still use on a device."""
    stats = device.memory_stats() or {}
    if "bytes_limit" in stats:
        return stats["bytes_limit"] - stats.get("bytes_in_use", 0)
    free = psutil.virtual_memory().available
    limit = _CGROUP_LIMIT.read_text().strip() if _CGROUP_LIMIT.is_file() else "max"
    if limit != "max":  # the limit of a container
        free = min(free, int(limit) - psutil.Process().memory_info().rss)
    return free


def check_memory(
    algorithm: Algorithm,
    params: EnvParams,
    num_seeds: int,
    devices: int = 1,
    at_once: int | None = None,
) -> None:
    """Check that a run fits the memory of the devices that share it; arguments as in `training_bytes`.

    Raises:
        InputError: it does not fit. The message has the estimate, the free memory and the largest num_envs that
            fits.
    """
    device = jax.devices()[0]
    free = free_bytes(device)
    if device.platform == "cpu":  # CPU devices share one memory
        free //= devices
    at_once = choose_at_once(num_seeds, at_once)
    needed = training_bytes(algorithm, params, num_seeds, devices, at_once)
    if needed <= free:
        return

    def fits(resized: Algorithm) -> bool:
        return training_bytes(resized, params, num_seeds, devices, at_once) <= free

    step = devices if _splits_sessions(num_seeds, devices) else 1
    largest = _largest_num_envs(algorithm, fits, step)
    where = f" on each of {devices} devices" if devices > 1 else ""
    remedy = f"num_envs of {largest} would fit" if largest else "no num_envs would fit"
    raise InputError(
        f"num_envs is {algorithm.config.num_envs}: with it, training {num_seeds} seeds needs about "
        f"{needed / 1e9:,.1f} GB{where}, but {max(free, 0) / 1e9:,.1f} GB are free on {device.platform}; "
        f"{remedy}, or train fewer seeds{'' if at_once == 1 else ', or fewer at once'}"
    )


def _largest_num_envs(algorithm: Algorithm, fits: Callable[[Algorithm], bool], step: int) -> int:
    """The largest multiple of `step` that fits as num_envs and that the other settings allow; 0 if none does."""

    def resized(num_envs: int) -> Algorithm | None:
        if num_envs % step:
            return None
        try:
            config = dataclasses.replace(algorithm.config, num_envs=num_envs)
            config.check()
            return dataclasses.replace(algorithm, config=config)
        except InputError:
            return None

    def some_fits(num_envs: int) -> bool:
        # The estimate needs a valid config: take the largest valid num_envs up to this one.
        candidate = next(filter(None, map(resized, range(num_envs, 0, -1))), None)
        return candidate is None or fits(candidate)

    low, high = 0, algorithm.config.num_envs
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if some_fits(middle) else (low, middle)
    return next((n for n in range(low, 0, -1) if resized(n)), 0)
