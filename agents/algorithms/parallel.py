"""Training on several devices.

Inside `jaxsim.over_sessions` each device has its share of the sessions, and all devices have the same network. A
session's random key depends on its number among all sessions, so it is the same on any number of devices.
Gradients and statistics are averaged over the mesh axis. On one device `axis_name` is None and nothing is
communicated.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import jax
from jax.sharding import Mesh

from jaxsim import InputError, make_mesh, over_sessions

AlgorithmT = TypeVar("AlgorithmT", bound=Any)


def num_devices(axis_name: str | None) -> int:
    """Number of devices that share the sessions."""
    return 1 if axis_name is None else jax.lax.axis_size(axis_name)


def own_share(count: int, axis_name: str | None) -> int:
    """Number of sessions, out of `count` on all devices, that this device has."""
    devices = num_devices(axis_name)
    assert count % devices == 0, "checked before training"
    return count // devices


def own_keys(key: jax.Array, count: int, axis_name: str | None) -> jax.Array:
    """The part of `jax.random.split(key, count)` that this device has; all of it on one device."""
    keys = jax.random.split(key, count)
    if axis_name is None:
        return keys
    share = own_share(count, axis_name)
    first = jax.lax.axis_index(axis_name) * share
    return jax.lax.dynamic_slice_in_dim(keys, first, share)


def mean_over_devices(tree: Any, axis_name: str | None) -> Any:
    """Mean of each array over the devices."""
    return tree if axis_name is None else jax.lax.pmean(tree, axis_name)


def sum_over_devices(tree: Any, axis_name: str | None) -> Any:
    """Sum of each array over the devices."""
    return tree if axis_name is None else jax.lax.psum(tree, axis_name)


@dataclass(frozen=True)
class Layout:
    """How a run of S seeds is split over the devices of a mesh.

    Attributes:
        mesh: from `jaxsim.make_mesh`; None for one device.
        state_axes: the axis of each part of the state that is split; None for parts that all devices share.
        seeds_axis: 0 if each device has seeds of its own, None if all devices train all seeds.
    """

    mesh: Mesh | None = None
    state_axes: Any = None
    seeds_axis: int | None = None

    def place(self, function: Callable[..., Any], in_axes: Sequence[Any], out_axes: Any) -> Any:
        """The function on the devices; see `jaxsim.over_sessions` for the axes."""
        if self.mesh is None:
            return function
        return over_sessions(function, self.mesh, in_axes, out_axes)


ONE_DEVICE = Layout()


def lay_out(algorithm: AlgorithmT, num_seeds: int, devices: int) -> tuple[AlgorithmT, Layout]:
    """Split a run over devices: by seeds if they divide evenly, otherwise by the sessions of each seed.

    Seeds need no communication. If sessions are split, gradients are averaged over devices.

    Args:
        algorithm: for one device.
        num_seeds: S.
        devices: number of devices to use, the first of `jax.devices()`.

    Returns:
        The algorithm as each device runs it, and the layout.

    Raises:
        InputError: there are fewer devices, or neither seeds nor sessions divide by them.
    """
    present = len(jax.devices())
    if not 1 <= devices <= present:
        raise InputError(f"devices is {devices}, but this machine has {present}")
    if devices == 1:
        return algorithm, ONE_DEVICE
    mesh = make_mesh(jax.devices()[:devices])
    if num_seeds % devices == 0:
        return algorithm, Layout(mesh, 0, 0)
    config = algorithm.config
    for name in ("num_envs", "batch_size"):
        number = getattr(config, name, devices)
        if number % devices:
            raise InputError(
                f"{devices} devices can split neither {num_seeds} seeds nor {name} {number} evenly: use a "
                f"multiple of {devices} for one of them"
            )
    axes = jax.tree.map(
        lambda axis: None if axis is None else axis + 1,
        algorithm.state_axes,
        is_leaf=lambda axis: axis is None,
    )
    return replace(algorithm, axis_name=mesh.axis_names[0]), Layout(mesh, axes)
