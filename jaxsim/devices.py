"""Sessions on several devices: the same program runs on one device or many, in one process or many.

Sessions are independent, so a batch of them is split over a mesh axis and each device rolls out its share
(`over_sessions`) without communication. A session's trajectory depends only on its own key, so it is the one that
a single device computes. Params are replicated, or the catalogue's tables are split over items if one device
cannot hold them (`place_params`); then a lookup asks all devices, and the one that holds the row answers.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from jaxsim.errors import InputError
from jaxsim.taste import TasteModel
from jaxsim.types import EnvParams

SESSIONS = "sessions"
Axes = Any  # as in jax.vmap: an int, None, or a tree of them


def make_mesh(devices: Sequence[jax.Device] | None = None) -> Mesh:
    """A mesh with one axis, "sessions".

    Args:
        devices: the devices to use; by default all devices of all processes.

    Raises:
        InputError: `devices` is empty.
    """
    chosen = jax.devices() if devices is None else list(devices)
    if not chosen:
        raise InputError("devices is empty: pass some of jax.devices(), or None for all of them")
    return jax.make_mesh((len(chosen),), (SESSIONS,), (AxisType.Auto,), devices=chosen)


@struct.dataclass
class SplitTable:
    """A table [N, ...] whose rows are split over a mesh axis; it is indexed like an array.

    Inside `over_sessions` every device must index it equally often, because all devices take part in each lookup.
    Do not index it in a branch or loop that runs differently on different devices.

    Attributes:
        rows: [M, ...], M = N rounded up to a multiple of the number of devices; the rows beyond N are zero.
            Inside `over_sessions` it holds only this device's rows.
        num_rows: N.
    """

    rows: jax.Array
    num_rows: int = struct.field(pytree_node=False)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the whole table, without the rows that round it up."""
        return (self.num_rows, *self.rows.shape[1:])

    def __jax_array__(self) -> jax.Array:
        """The whole table, [N, ...], gathered on every device while it is used."""
        rows = self.rows
        if _inside_over_sessions():
            rows = jax.lax.all_gather(rows, SESSIONS, tiled=True)
        return rows[: self.num_rows]

    def __getitem__(self, index: Any) -> jax.Array:
        """`table[row, ...]` of integer arrays, rows in [0, N); `table[:, ...]` gathers the whole table."""
        row, *rest = index if isinstance(index, tuple) else (index,)
        if isinstance(row, slice):
            return jnp.asarray(self)[index]
        if not _inside_over_sessions():
            return self.rows[index]
        return self._ask_all(jnp.asarray(row), *map(jnp.asarray, rest))

    def _ask_all(self, *index: jax.Array) -> jax.Array:
        """Every device asks all; each answers from its own rows, or with 0, and the answers are summed."""
        count = self.rows.shape[0]
        first = jax.lax.axis_index(SESSIONS) * count

        def answer(row: jax.Array, *rest: jax.Array) -> jax.Array:
            is_here = (row >= first) & (row < first + count)
            values = self.rows[(jnp.clip(row - first, 0, count - 1), *rest)]
            shape = jnp.broadcast_shapes(row.shape, *(x.shape for x in rest))
            is_here = jnp.broadcast_to(is_here, shape)
            is_here = is_here.reshape(*shape, *[1] * (values.ndim - len(shape)))
            return jnp.where(is_here, values, jnp.zeros((), values.dtype))

        answers = jax.vmap(answer)(*jax.lax.all_gather(index, SESSIONS))
        return jax.lax.psum_scatter(answers, SESSIONS)


def place_params(params: EnvParams, mesh: Mesh, shard_catalogue: bool = False) -> EnvParams:
    """Put params on every device of a mesh. Every process makes the same call, with equal params.

    Args:
        params: of `jaxsim.make`. If the catalogue is too big for one device, make it on the host:
            `with jax.default_device(jax.local_devices(backend="cpu")[0]): env, params = jaxsim.make(...)`.
        mesh: of `make_mesh`.
        shard_catalogue: split the tables of the catalogue and of the taste model's kernel over items: each of n
            devices holds N / n rows, rounded up.

    Returns:
        Params with global arrays, for `over_sessions` or any jitted function.

    Raises:
        InputError: a mesh without the axis "sessions", params that are already split, or a kernel to be split that
            beginning sessions read.
    """
    _check_mesh(mesh)
    if any(isinstance(x, SplitTable) for x in jax.tree.leaves(params, is_leaf=_is_split)):
        raise InputError(
            "the catalogue of params is split already: pass the params that jaxsim.make returned"
        )
    if shard_catalogue and params.taste is not None and params.histories.posterior is None:
        # A session that begins reads the kernel in a loop, which would wait for other devices for ever.
        raise InputError(
            "shard_catalogue=True splits the taste model's kernel, so sessions must begin from stored posteriors: "
            'make the environment with prefixes="table"'
        )
    everywhere = NamedSharding(mesh, PartitionSpec())

    def replicate(tree: Any) -> Any:
        return jax.tree.map(lambda x: _place(x, everywhere), tree)

    if not shard_catalogue:
        return replicate(params)

    def split(tree: Any) -> Any:
        return jax.tree.map(lambda x: _split_rows(x, mesh), tree)

    placed = replicate(params.replace(catalogue=None, taste=None))
    taste = params.taste
    if taste is not None:
        fields = {field.name: getattr(taste, field.name) for field in dataclasses.fields(taste)}
        kernel = split(fields.pop("kernel"))
        taste = TasteModel(kernel=kernel, **replicate(fields))
    return placed.replace(catalogue=split(params.catalogue), taste=taste)


def split_sessions(tree: Any, mesh: Mesh) -> Any:
    """Split arrays of B sessions over the mesh, on their first axis. Every process makes the same call.

    Args:
        tree: pytree of arrays [B, ...], equal on every process; PRNG keys may be typed.
        mesh: of `make_mesh`.

    Raises:
        InputError: a mesh without the axis "sessions", or B is not a multiple of the number of devices.
    """
    _check_mesh(mesh)
    _check_divides(tree, 0, mesh)
    return jax.tree.map(lambda x: _place(x, _sharding(mesh)), tree)


def over_sessions(
    function: Callable[..., Any],
    mesh: Mesh,
    in_axes: Sequence[Axes] = (0, None),
    out_axes: Axes = 0,
) -> Callable[..., Any]:
    """Run `function` on every device for its share of the sessions: `jax.shard_map` with the axes of `jax.vmap`.

    Inside, each of n devices has B / n sessions, params are whole (lookups in a split catalogue go across
    devices), and the mesh axis is "sessions": `jax.lax.pmean(x, "sessions")` is a mean over all sessions.
    Randomness must come from arguments that are split, one key for each session. From a shared key every device
    would draw the same numbers for its own sessions.

    Args:
        function: a pure function of positional arguments; wrap the result in `jax.jit`.
        mesh: of `make_mesh`.
        in_axes: for each argument the axis of the sessions, or None for an argument that all devices share; a tree
            of these for an argument with parts of both kinds.
        out_axes: the same for the outputs: an int or None for all outputs, or a tree. None is for outputs that are
            equal on every device; this is not checked.

    Returns:
        A function of the whole arguments; its outputs are whole too, split over the mesh.

    Raises:
        InputError: a mesh without the axis "sessions"; when called, a number of arguments other than that of
            `in_axes`, or a number of sessions that is not a multiple of the number of devices.
    """
    _check_mesh(mesh)
    out_specs = jax.tree.map(_spec, out_axes, is_leaf=_is_none)

    def split(*args: Any) -> Any:
        if len(args) != len(in_axes):
            raise InputError(
                f"{len(args)} arguments, but in_axes has {len(in_axes)} entries: give one for each"
            )
        for arg, axes in zip(args, in_axes, strict=True):
            jax.tree.map(lambda axis, x: _check_divides(x, axis, mesh), axes, arg, is_leaf=_is_none)
        return jax.shard_map(
            function,
            mesh=mesh,
            in_specs=tuple(map(_argument_specs, args, in_axes)),
            out_specs=out_specs,
            # The check refuses a scan whose carry starts equal on all devices and then differs.
            check_vma=False,
        )(*args)

    return split


def _argument_specs(argument: Any, axes: Axes) -> Any:
    def specs(axis: int | None, part: Any) -> Any:
        if axis is not None:
            return _spec(axis)
        return jax.tree.map(
            lambda x: _spec(0 if isinstance(x, SplitTable) else None), part, is_leaf=_is_split
        )

    return jax.tree.map(specs, axes, argument, is_leaf=_is_none)


def _is_none(axis: Any) -> bool:
    return axis is None


def _spec(axis: int | None) -> PartitionSpec:
    if axis is not None and axis < 0:
        raise InputError(f"axis {axis}: count the axes of sessions from the front, from 0")
    return PartitionSpec() if axis is None else PartitionSpec(*[None] * axis, SESSIONS)


def _sharding(mesh: Mesh) -> NamedSharding:
    return NamedSharding(mesh, _spec(0))


def _is_split(x: Any) -> bool:
    return isinstance(x, SplitTable)


def _inside_over_sessions() -> bool:
    return SESSIONS in jax.sharding.get_abstract_mesh().manual_axes


def _place(value: Any, sharding: NamedSharding) -> jax.Array:
    """A global array of a value that is equal on every process."""
    if isinstance(value, jax.Array) and jnp.issubdtype(value.dtype, jax.dtypes.prng_key):
        data = _place(jax.random.key_data(value), sharding)
        return jax.random.wrap_key_data(data, impl=jax.random.key_impl(value))
    host = _on_host(value)
    # Not device_put: with several processes it compares their values, and sends all of them for that.
    return jax.make_array_from_callback(host.shape, sharding, lambda index: host[index])


def _split_rows(table: jax.Array, mesh: Mesh) -> SplitTable:
    """A table [N, ...] with its rows split; rows of zeros round N up to a multiple of the number of devices."""
    host = _on_host(table)
    devices = mesh.shape[SESSIONS]
    shape = (-(-len(host) // devices) * devices, *host.shape[1:])

    def share(index: Any) -> np.ndarray:
        rows = host[index]
        missing = shape[0] // devices - len(rows)
        return np.pad(rows, [(0, missing)] + [(0, 0)] * (host.ndim - 1)) if missing else rows

    return SplitTable(jax.make_array_from_callback(shape, _sharding(mesh), share), len(host))


def _on_host(value: Any) -> np.ndarray:
    host = np.asarray(value)
    return host.astype(jax.dtypes.canonicalize_dtype(host.dtype), copy=False)


def _check_mesh(mesh: Mesh) -> None:
    if SESSIONS not in mesh.axis_names:
        raise InputError(
            f"the mesh has the axes {mesh.axis_names}, none named {SESSIONS!r}: use jaxsim.make_mesh()"
        )


def _check_divides(tree: Any, axis: int | None, mesh: Mesh) -> None:
    """Check the number of sessions. It is not rounded up as rows are: added sessions would count in means."""
    if axis is None:
        return
    devices = mesh.shape[SESSIONS]
    for x in jax.tree.leaves(tree):
        if np.ndim(x) <= axis:
            raise InputError(
                f"an array of shape {np.shape(x)} has no axis {axis} of sessions to split"
            )
        count = np.shape(x)[axis]
        if count % devices:
            raise InputError(
                f"{count:,} sessions cannot be split over {devices} devices: use a multiple, such as "
                f"{-(-count // devices) * devices:,}"
            )
