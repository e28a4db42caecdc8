"""Several runs in one program: side by side, or one after the other."""

from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any

import jax


def choose_at_once(num_runs: int, asked: int | None = None) -> int:
    """How many of several runs are computed side by side: what is asked, or what suits the device.

    On a CPU it is one. The arrays of one run fit the processor's caches and those of several do not, so runs side
    by side take longer than one after the other (`python -m benchmarks seed-order`). Other devices gain from more
    work at a time: there it is all.

    Args:
        num_runs: from 1.
        asked: a number from 1, or None to choose by the device.
    """
    if asked is not None:
        return min(asked, num_runs)
    return 1 if jax.default_backend() == "cpu" else num_runs


def over_runs(
    function: Callable[..., Any], in_axes: Sequence[int | None], at_once: int
) -> Callable[..., Any]:
    """A version of `function` for several runs, like `jax.vmap(function, in_axes)`.

    Args:
        function: of arrays or pytrees.
        in_axes: for each argument 0 if each run has its own, along the leading axis; None if all share it.
        at_once: number of runs that are vmapped together. With 1 the runs follow one another in a loop, and the
            result of each has the same bits whatever runs are beside it.
    """

    @wraps(function)
    def mapped(*args: Any) -> Any:
        own = [arg for arg, axis in zip(args, in_axes, strict=True) if axis == 0]
        if 1 < at_once >= len(jax.tree.leaves(own)[0]):
            return jax.vmap(function, in_axes)(*args)

        def one(values: list[Any]) -> Any:
            left = iter(values)
            pairs = zip(args, in_axes, strict=True)
            return function(*(next(left) if axis == 0 else arg for arg, axis in pairs))

        def apart(values: list[Any]) -> Any:
            # XLA would compile a run together with what takes it out of the arrays of all runs. There is nothing
            # to take out of the arrays of a single run, and it would be rounded differently.
            return jax.lax.optimization_barrier(one(jax.lax.optimization_barrier(values)))

        if at_once == 1:
            return jax.lax.map(apart, own)
        return jax.lax.map(one, own, batch_size=at_once)

    return mapped
