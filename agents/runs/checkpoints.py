"""Checkpoints of a training run: everything that the run needs to continue to the same bits."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp

from agents.runs.progress import Progress
from jaxsim import InputError

CHECKPOINT_EVERY = 10  # chunks
MAX_TO_KEEP = 2


class Checkpoints:
    """The latest checkpoints of one run, in a folder.

    A checkpoint is written under a temporary name and then renamed. A process that is killed while it writes
    leaves the earlier checkpoints unchanged.
    """

    def __init__(self, folder: Path, every: int = CHECKPOINT_EVERY) -> None:
        """Create the folder if needed; a checkpoint is due after every `every` chunks."""
        self.folder = folder.absolute()
        self.every = every
        # Synchronous: the next chunk reuses the buffers of the state, which a background thread would still read.
        options = ocp.CheckpointManagerOptions(
            max_to_keep=MAX_TO_KEEP,
            enable_async_checkpointing=False,
            cleanup_tmp_directories=True,
        )
        self._manager = ocp.CheckpointManager(
            self.folder, options=options, item_names=("state", "progress")
        )
        self._damaged: set[int] = set()

    @property
    def latest(self) -> Path | None:
        """Path of the latest checkpoint that is not damaged; None if there is none."""
        chunks = max(set(self._manager.all_steps()) - self._damaged, default=None)
        return None if chunks is None else self.folder / str(chunks)

    def is_due(self, chunks: int, total: int) -> bool:
        """Whether to save after `chunks` of `total` chunks; always true after the last one."""
        return chunks % self.every == 0 or chunks == total

    def save(self, progress: Progress) -> None:
        """Write a checkpoint, and remove damaged checkpoints and all but the latest."""
        for chunks in self._manager.all_steps():
            # Orbax refuses to write a checkpoint unless it is later than all others.
            if chunks in self._damaged or chunks >= progress.chunks:
                self._manager.delete(chunks)
        self._damaged.clear()
        record = {
            "log": progress.log,
            "seconds": progress.seconds,
            "compile_seconds": progress.compile_seconds,
        }
        self._manager.save(
            progress.chunks,
            args=ocp.args.Composite(
                state=ocp.args.StandardSave(_keys_to_data(progress.state)),
                progress=ocp.args.JsonSave(record),
            ),
        )

    def restore(self, template: Any) -> Progress | None:
        """The latest checkpoint that can be read; None if there is none.

        Args:
            template: structure, shapes and dtypes of the state, from `jax.eval_shape`. Where it has shardings, the
                state is placed accordingly; otherwise it is placed on the default device.

        Raises:
            InputError: there are checkpoints, but none can be read.
        """
        reason = ""
        damaged: set[int] = set()
        for chunks in sorted(self._manager.all_steps(), reverse=True):
            try:
                progress = self._restore(chunks, template)
            except Exception as error:  # the readers of Orbax raise many types for a damaged file
                reason = " ".join(str(error).split())[:200]
                print(f"{self.folder / str(chunks)}: cannot be read, trying the one before")
                damaged.add(chunks)
            else:
                self._damaged = damaged
                return progress
        if reason:
            raise InputError(f"{self.folder}: no checkpoint can be read ({reason}); start again")
        return None

    def _restore(self, chunks: int, template: Any) -> Progress:
        placed = jax.tree.map(_data_template, template)
        restored = self._manager.restore(
            chunks,
            args=ocp.args.Composite(
                state=ocp.args.StandardRestore(placed), progress=ocp.args.JsonRestore()
            ),
        )
        state = jax.tree.map(_from_data, template, restored["state"])
        return Progress(state=state, chunks=chunks, **restored["progress"])

    def close(self) -> None:
        """Release the folder."""
        self._manager.close()


def _is_key(leaf: Any) -> bool:
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _keys_to_data(state: Any) -> Any:
    """The state with uint32 arrays in place of PRNG keys, which cannot be written to disk."""
    return jax.tree.map(lambda x: jax.random.key_data(x) if _is_key(x) else x, state)


def _data_template(leaf: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
    """Shape, dtype and sharding of the array that `_keys_to_data` writes for an array."""
    data = jax.eval_shape(_keys_to_data, leaf)
    return jax.ShapeDtypeStruct(data.shape, data.dtype, sharding=_sharding_of(leaf))


def _from_data(leaf: jax.ShapeDtypeStruct, data: jax.Array) -> jax.Array:
    if not _is_key(leaf):
        return data
    return jax.device_put(jax.random.wrap_key_data(data), _sharding_of(leaf))


def _sharding_of(leaf: jax.ShapeDtypeStruct) -> jax.sharding.Sharding:
    return leaf.sharding or jax.sharding.SingleDeviceSharding(jax.devices()[0])
