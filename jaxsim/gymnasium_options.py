"""Seeds and options of the Gymnasium environments' `reset`, checked."""

from typing import Any

import jax
import numpy as np

from jaxsim.checks import check_range, integers
from jaxsim.dataset import Dataset
from jaxsim.errors import InputError


def key_of(seed: int, name: str = "seed") -> jax.Array:
    """The PRNG key of a seed.

    Raises:
        InputError: not a whole number from 0 to 2^32 - 1.
    """
    check_range(name, integers(name, seed, rank=0), 0, 2**32, "seeds")
    return jax.random.key(int(seed))


def check_options(options: dict[str, Any] | None, names: tuple[str, ...]) -> None:
    """Check the names of the options of a reset.

    Raises:
        InputError: another name.
    """
    unknown = sorted(set(options or ()) - set(names))
    if unknown:
        raise InputError(f"options has {unknown[0]!r}: use {' or '.join(map(repr, names))}")


def chosen_sessions(options: dict[str, Any] | None, num_envs: int) -> np.ndarray:
    """The sessions to reset, bool[num_envs]; all of them without a mask.

    Raises:
        InputError: the mask has another type or shape, or no session.
    """
    mask = np.asarray((options or {}).get("reset_mask", np.ones(num_envs, bool)))
    if mask.dtype != bool or mask.shape != (num_envs,):
        raise InputError(
            f"reset_mask is {mask.dtype}{list(mask.shape)}: pass bool[{num_envs}], one for each session"
        )
    if not mask.any():
        raise InputError("reset_mask chooses no session: set at least one entry to True")
    return mask


def chosen_user(
    options: dict[str, Any] | None, num_users: int, num_envs: int | None = None
) -> np.ndarray | None:
    """The user of the option, int32[] or int32[num_envs]; None without the option.

    Raises:
        InputError: not a user of the dataset, or not one for each session.
    """
    if not options or "user" not in options:
        return None
    rank = 0 if num_envs is None else np.ndim(options["user"])
    user = np.asarray(integers("user", options["user"], rank))
    check_range("user", user, 0, num_users, "the dataset's users")
    if num_envs is None:
        return user.astype(np.int32)
    if user.shape not in ((), (num_envs,)):
        raise InputError(
            f"user has shape {list(user.shape)}: pass one, or {num_envs}, one for each session"
        )
    return np.broadcast_to(user, (num_envs,)).astype(np.int32)


def check_rendering(render_mode: Any, dataset: Any, num_items: int) -> None:
    """Check the arguments of `GymnasiumEnv` about `render`.

    Raises:
        InputError: another mode, or something else than the environment's dataset.
    """
    if render_mode not in (None, "ansi"):
        raise InputError(f'render_mode is {render_mode!r}: give "ansi", or None')
    if dataset is None:
        return
    if not isinstance(dataset, Dataset) or dataset.num_items != num_items:
        raise InputError(
            "dataset is another one than env's: pass the one that jaxsim.make was given"
        )
