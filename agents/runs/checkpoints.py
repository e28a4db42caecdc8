"""Checkpoints of a training run: all that it needs to go on exactly where it was."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp

from agents.runs.training import Progress
from jaxsim import InputError

CHECKPOINT_EVERY = 10
KEPT = 2


class Checkpoints:
    """The latest checkpoints of one run, in a folder; each appears whole or not at all.

    A checkpoint is written under another name and renamed: a process that is killed while writing leaves the
    earlier ones as they were.
    """

    def __init__(self, folder: Path, every: int = CHECKPOINT_EVERY) -> None:
        """Keep checkpoints in a folder, which is made; they are due after every `every` chunks."""
        self.folder = folder.absolute()
        self.every = every
        # Synchronous: the next chunk takes over the state's buffers, which a background thread would still read.
        options = ocp.CheckpointManagerOptions(
            max_to_keep=KEPT, enable_async_checkpointing=False, cleanup_tmp_directories=True
        )
        self._manager = ocp.CheckpointManager(
            self.folder, options=options, item_names=("state", "progress")
        )
        self._damaged: set[int] = set()

    @property
    def latest(self) -> Path | None:
        """Where the latest checkpoint is, of those not found damaged; None if there is none."""
        chunks = max(set(self._manager.all_steps()) - self._damaged, default=None)
        return None if chunks is None else self.folder / str(chunks)

    def is_due(self, chunks: int, total: int) -> bool:
        """Whether to save after so many of all chunks: now and then, and after the last."""
        return chunks % self.every == 0 or chunks == total

    def save(self, progress: Progress) -> None:
        """Write a checkpoint, then remove all but the latest; those found damaged are removed before."""
        for chunks in self._manager.all_steps():
            # Orbax writes none that is not later than all that are there.
            if chunks in self._damaged or chunks >= progress.chunks:
                self._manager.delete(chunks)
        self._damaged.clear()
        account = {
            "log": progress.log,
            "seconds": progress.seconds,
            "compile_seconds": progress.compile_seconds,
        }
        self._manager.save(
            progress.chunks,
            args=ocp.args.Composite(
                state=ocp.args.StandardSave(_keys_to_data(progress.state)),
                progress=ocp.args.JsonSave(account),
            ),
        )

    def restore(self, template: Any) -> Progress | None:
        """The latest checkpoint that can be read; None if there is none.

        Args:
            template: the state's structure, shapes and dtypes, as `jax.eval_shape` gives them; with shardings
                where it is not all on the default device. The state is placed as they say.

        Raises:
            InputError: there are checkpoints, but none that can be read.
        """
        failure = ""
        damaged: set[int] = set()
        for chunks in sorted(self._manager.all_steps(), reverse=True):
            try:
                progress = self._restore(chunks, template)
            except (
                Exception
            ) as error:  # of many types: what a damaged file raises is up to its reader
                failure = " ".join(str(error).split())[:200]
                print(f"{self.folder / str(chunks)}: cannot be read, trying the one before")
                damaged.add(chunks)
            else:
                self._damaged = damaged
                return progress
        if failure:
            raise InputError(f"{self.folder}: no checkpoint can be read ({failure}); start again")
        return None

    def _restore(self, chunks: int, template: Any) -> Progress:
        placed = jax.tree.map(_data_of, template)
        found = self._manager.restore(
            chunks,
            args=ocp.args.Composite(
                state=ocp.args.StandardRestore(placed), progress=ocp.args.JsonRestore()
            ),
        )
        state = jax.tree.map(_from_data, template, found["state"])
        return Progress(state=state, chunks=chunks, **found["progress"])

    def close(self) -> None:
        """Free the folder for others."""
        self._manager.close()


def _is_key(leaf: Any) -> bool:
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _keys_to_data(state: Any) -> Any:
    """The state with plain numbers in place of PRNG keys, which have no representation on disk."""
    return jax.tree.map(lambda x: jax.random.key_data(x) if _is_key(x) else x, state)


def _data_of(leaf: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
    """What `_keys_to_data` makes of an array, and where it lies; the words of a key are its last axis."""
    plain = jax.eval_shape(_keys_to_data, leaf)
    return jax.ShapeDtypeStruct(plain.shape, plain.dtype, sharding=_sharding_of(leaf))


def _from_data(leaf: jax.ShapeDtypeStruct, data: jax.Array) -> jax.Array:
    if not _is_key(leaf):
        return data
    return jax.device_put(jax.random.wrap_key_data(data), _sharding_of(leaf))


def _sharding_of(leaf: jax.ShapeDtypeStruct) -> jax.sharding.Sharding:
    return leaf.sharding or jax.sharding.SingleDeviceSharding(jax.devices()[0])
