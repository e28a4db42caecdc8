"""Replies of a Hugging Face model on a Ray cluster: Ray Data, one replica of the model an actor.

Requests travel in batches. A task beside the driver takes batches from a desk and hands them on as a stream of
Ray Data; a pool of actors, each of which loads the model once, answers them; the driver iterates over what comes
out and puts as many new batches onto the desk. So the stream may be endless, and a reply reaches the caller as
soon as its batch is done. Ray restarts an actor that died and has its batch done again; a batch over which
actors die time and again is given up, alone.

A row of the stream is a whole batch, as JSON: Ray Data gathers rows into blocks and hands on only full blocks,
and a block limit of one byte makes it hand on every row at once.
"""

import asyncio
import json
import logging
import os
import socket
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing, contextmanager
from itertools import chain, count, islice
from typing import Any

from jaxsim import InputError
from prep.annotation.annotators.base import Completion, Request, Sampling
from prep.annotation.annotators.huggingface import (
    BATCHES_AHEAD,
    DEFAULT_BATCH_SIZE,
    GREEDY,
    HuggingFaceAnnotator,
)
from prep.annotation.annotators.model_source import ModelSource, first_line

INSTALL = "pip install 'jaxsim-recsys[ray]'"

_BATCHES_PER_REPLICA = 2  # one in work and one that waits for it
_STORE_BYTES = 256 << 20  # prompts and replies are small
_KNOCK_SECONDS = 10.0
_TRIES_OF_A_BATCH = 3  # then the batch itself is what kills the actors
_QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_BACKEND_LOG_LEVEL": "fatal"}


class RayAnnotator:
    """A causal language model in several replicas on Ray (see `prep.annotation.annotators.base.Annotator`).

    Replies are those of `HuggingFaceAnnotator` with the same settings. Every call of `complete` starts the
    replicas and stops them when its iterator ends or is closed. Every node needs this package with its extras
    `embed` and `ray`, and a model that is given as a folder at the same path.
    """

    def __init__(
        self,
        model: str,
        revision: str = "",
        sampling: Sampling = GREEDY,
        batch_size: int = DEFAULT_BATCH_SIZE,
        trust_remote_code: bool = False,
        replicas: int | tuple[int, int] = 1,
        cpus_per_replica: float = 1.0,
        gpus_per_replica: float | None = None,
        address: str = "local",
    ) -> None:
        """Find the model; Ray is started or joined by `complete`.

        Args:
            model, revision, sampling, batch_size, trust_remote_code: as for `HuggingFaceAnnotator`.
            replicas: how many replicas, or (fewest, most) as the work demands.
            cpus_per_replica: cores that each replica takes; torch computes on as many.
            gpus_per_replica: GPUs that each replica takes, or the share of one; None for one if the cluster has
                any GPU and none otherwise.
            address: `local` starts Ray on this machine and ends it after the work; `auto` or `host:port` joins a
                cluster. Where this process has Ray running already, that is used and left running.

        Raises:
            InputError: ray is not installed, a number is out of range, or as for `HuggingFaceAnnotator`.
        """
        _import_ray()
        self._fewest, self._most = (replicas, replicas) if isinstance(replicas, int) else replicas
        if not 1 <= self._fewest <= self._most:
            raise InputError(
                f"replicas must be 1 or more, the fewest before the most; got {replicas}"
            )
        if cpus_per_replica <= 0 or (gpus_per_replica or 0) < 0:
            raise InputError(
                f"a replica needs a positive number of CPUs and no negative one of GPUs; got {cpus_per_replica:g} "
                f"and {gpus_per_replica or 0:g}"
            )
        # Only its tokenizer is used here: a driver need not have a GPU.
        self._local = HuggingFaceAnnotator(
            model, revision, sampling, batch_size, "cpu", trust_remote_code
        )
        self._batch_size = batch_size
        self._cpus, self._gpus = cpus_per_replica, gpus_per_replica
        self._address = address

    @property
    def model(self) -> str:
        """Its name, as the user gave it."""
        return self._local.model

    @property
    def revision(self) -> str:
        """As for `HuggingFaceAnnotator`; replicas that find other files refuse to work."""
        return self._local.revision

    @property
    def sampling(self) -> Sampling:
        """How it writes."""
        return self._local.sampling

    def count_tokens(self, prompt: str) -> int:
        """How many tokens a prompt is, message template included."""
        return self._local.count_tokens(prompt)

    def complete(self, requests: Iterable[Request]) -> Iterator[Completion]:
        """Answer requests, in any order.

        Raises:
            InputError: Ray cannot be reached, is too small or breaks down, or a replica cannot load the model.
        """
        batches = self._batches(requests)
        first = next(batches, None)
        if first is None:
            return
        ray = _import_ray()
        with _session(ray, self._address) as is_ours:
            gpus = self._check_resources(ray.cluster_resources(), is_ours)
            with _desk(ray) as desk, closing(self._stream(ray, desk, gpus)) as stream:
                yield from self._exchange(ray, chain([first], batches), desk, stream)

    def _batches(self, requests: Iterable[Request]) -> Iterator[list[Request]]:
        """Yield batches of prompts that are about as long as each other."""
        remaining = iter(requests)
        while window := list(islice(remaining, self._batch_size * BATCHES_AHEAD)):
            window.sort(key=lambda request: len(request.prompt), reverse=True)
            for start in range(0, len(window), self._batch_size):
                yield window[start : start + self._batch_size]

    def _check_resources(self, present: dict[str, float], is_ours: bool) -> float:
        """GPUs per replica, once it is known that the fewest replicas fit."""
        gpus = self._gpus
        if gpus is None:
            gpus = 1.0 if present.get("GPU", 0) > 0 else 0.0
        needed = {"CPU": self._fewest * self._cpus, "GPU": self._fewest * gpus}
        lacking = [
            f"{number:g} {name}s, of which Ray has {present.get(name, 0):g}"
            for name, number in needed.items()
            if number > present.get(name, 0)
        ]
        if lacking:
            message = f"{self._fewest} replicas of the model need {' and '.join(lacking)}"
            if is_ours:
                raise InputError(f"{message}: ask for fewer or smaller replicas")
            # A cluster may grow.
            print(f"note: {message}; waiting for more", file=sys.stderr)
        return gpus

    def _stream(self, ray: Any, desk: Any, gpus: float) -> Generator[str, None, None]:
        """Yield the replies to each batch that comes to the desk, as `_Replica` gives them."""
        with _streaming_context(ray):
            blocks = iter(
                self._dataset(ray, desk, gpus).iter_batches(
                    batch_size=None, batch_format="pyarrow", prefetch_batches=0
                )
            )
            # Closed before Ray is shut down: its thread would start Ray anew.
            with closing(blocks):
                try:
                    for block in blocks:
                        yield from block["replies"].to_pylist()
                except (
                    Exception
                ) as error:  # Ray has many, and raises those of its actors as they are
                    raise InputError(f"Ray gave up ({_cause(error)})") from None

    def _dataset(self, ray: Any, desk: Any, gpus: float) -> Any:
        """Batches as they come to the desk, then their replies; nothing runs yet."""
        here = {"ray.io/node-id": ray.get_runtime_context().get_node_id()}
        # A replica that asked for no GPU takes none, also where Ray leaves them in its sight.
        device = None if gpus else "cpu"
        of_replica = (desk, self._local.source, self.sampling, self._batch_size, device)
        pool = ray.data.ActorPoolStrategy(
            min_size=self._fewest,
            max_size=self._most,
            max_tasks_in_flight_per_actor=_BATCHES_PER_REPLICA,
        )
        batches = ray.data.from_items([0], override_num_blocks=1).map_batches(
            _batches_of(ray, desk), num_cpus=0, label_selector=here
        )
        return batches.map(
            _Replica,
            fn_constructor_args=(*of_replica, _TRIES_OF_A_BATCH),
            compute=pool,
            num_cpus=self._cpus,
            num_gpus=gpus,
        )

    def _exchange(
        self, ray: Any, batches: Iterator[list[Request]], desk: Any, stream: Iterator[str]
    ) -> Iterator[Completion]:
        """Keep a bounded number of batches in work, and yield what comes back."""
        in_work = 0
        while True:
            for batch in islice(batches, self._most * _BATCHES_PER_REPLICA - in_work):
                prompts = [(request.key, request.prompt) for request in batch]
                ray.get(desk.put.remote(json.dumps(prompts)))
                in_work += 1
            if not in_work:
                return
            yield from _completions(next(stream))
            in_work -= 1


class _Desk:
    """An actor beside the driver: hands out each batch once and counts how often it was begun."""

    def __init__(self) -> None:
        self._batches: asyncio.Queue[str] = asyncio.Queue()
        self._numbers = count()
        self._begun: Counter[int] = Counter()
        self._is_open = False

    async def open(self) -> bool:
        """Whether this is the first time that someone asks to hand on the batches."""
        first, self._is_open = not self._is_open, True
        return first

    async def put(self, batch: str) -> None:
        await self._batches.put(batch)

    async def take(self) -> tuple[int, str]:
        """The next batch and its number, once there is one."""
        batch = await self._batches.get()
        return next(self._numbers), batch

    async def begin(self, number: int) -> int:
        """How often work on a batch has begun, this time included."""
        self._begun[number] += 1
        return self._begun[number]

    async def end(self, number: int) -> None:
        del self._begun[number]


class _Replica:
    """One replica of the model, in an actor."""

    def __init__(
        self,
        desk: Any,
        source: ModelSource,
        sampling: Sampling,
        batch_size: int,
        device: str | None,
        tries: int,
    ) -> None:
        self._ray = _import_ray()
        self._desk = desk
        self._tries = tries
        # What goes wrong travels as data: Ray would wrap an exception in its own.
        self._error: str | None = None
        try:
            self._annotator = HuggingFaceAnnotator(
                source.where,
                source.commit or "",
                sampling,
                batch_size,
                device,
                trust_remote_code=source.trusts_code,
            )
        except InputError as error:
            self._error = str(error)
            return
        if self._annotator.revision != source.revision:
            self._error = (
                f"{source.model}: a node of the cluster has other files there than this machine"
            )

    def __call__(self, row: dict[str, Any]) -> dict[str, str]:
        """Answer a batch: JSON of a list of completions, or of what prevents them all."""
        if self._error is not None:
            return {"replies": json.dumps(self._error)}
        requests = [Request(key, prompt, "") for key, prompt in json.loads(row["batch"])]
        try:
            replies = self._answer(int(row["number"]), requests)
        except InputError as error:
            return {"replies": json.dumps(str(error))}
        return {"replies": json.dumps(replies)}

    def _answer(self, number: int, requests: list[Request]) -> list[Completion]:
        """Answer a batch, unless it has killed a replica, out of memory say, time and again."""
        if self._ray.get(self._desk.begin.remote(number)) > self._tries:
            failure = f"the model's process died {self._tries} times over the batch of this prompt"
            replies = [Completion(request.key, None, failure) for request in requests]
        else:
            replies = list(self._annotator.complete(requests))
        self._desk.end.remote(number)
        return replies


def _batches_of(ray: Any, desk: Any) -> Callable[[Any], Iterator[dict[str, list[Any]]]]:
    """Make the task that hands on batches as they come to the desk."""

    def read(_: Any) -> Iterator[dict[str, list[Any]]]:
        if not ray.get(desk.open.remote()):
            # Ray runs a task again whose process was lost, but what that took from the desk is gone.
            raise RuntimeError("the task that hands out batches was lost; what is stored stays")
        while True:
            number, batch = ray.get(desk.take.remote())
            yield {"number": [number], "batch": [batch]}

    return read


def _completions(replies: str) -> Iterator[Completion]:
    content = json.loads(replies)
    if isinstance(content, str):
        raise InputError(content)
    for fields in content:
        yield Completion(*fields)


def _import_ray() -> Any:
    try:
        import ray
        import ray.data
        import ray.util.scheduling_strategies
    except ImportError as error:
        raise InputError(f"a Ray cluster needs ray ({first_line(error)}): {INSTALL}") from None
    return ray


@contextmanager
def _session(ray: Any, address: str) -> Iterator[bool]:
    """Start or join Ray, unless this process has; yield whether it was started for this block alone."""
    if ray.is_initialized():
        yield False
        return
    is_local = address == "local"
    options: dict[str, Any] = {"address": address}
    if is_local:
        options |= {"include_dashboard": False, "object_store_memory": _STORE_BYTES}
    try:
        if not is_local:
            _knock(address)
        with _defaults_in_environment(_QUIET), _quiet_stderr(), warnings.catch_warnings():
            # JAX warns of any fork; that of a subprocess runs another program at once.
            warnings.simplefilter("ignore", RuntimeWarning)
            ray.init(logging_level=logging.ERROR, log_to_driver=False, **options)
    except Exception as error:  # a wrong address, no answer, a version that differs
        raise InputError(
            f"Ray cannot be {'started' if is_local else f'joined at {address!r}'} ({first_line(error)})"
        ) from None
    try:
        yield is_local
    finally:
        ray.shutdown()


def _knock(address: str) -> None:
    """Raise OSError where nobody listens at a `host:port`: Ray itself would try for many minutes."""
    host, _, port = address.rpartition(":")
    if host and "/" not in host and port.isdecimal():
        socket.create_connection((host, int(port)), timeout=_KNOCK_SECONDS).close()


@contextmanager
def _defaults_in_environment(values: dict[str, str]) -> Iterator[None]:
    added = {name: value for name, value in values.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            del os.environ[name]


@contextmanager
def _quiet_stderr() -> Iterator[None]:
    """Silence file descriptor 2: Ray's core writes there of the log level that it was given."""
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


@contextmanager
def _desk(ray: Any) -> Iterator[Any]:
    here = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(
        ray.get_runtime_context().get_node_id(), soft=False
    )
    desk = ray.remote(_Desk).options(num_cpus=0, scheduling_strategy=here).remote()
    try:
        yield desk
    finally:
        ray.kill(desk)


@contextmanager
def _streaming_context(ray: Any) -> Iterator[None]:
    """Have datasets that are made in the block hand on each row at once, and run quietly."""
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    context = ray.data.DataContext.get_current()
    settings = {
        "target_max_block_size": 1,
        "enable_progress_bars": False,
        "print_on_execution_start": False,
    }
    before = {name: getattr(context, name) for name in settings}
    try:
        for name, value in settings.items():
            setattr(context, name, value)
        yield
    finally:
        for name, value in before.items():
            setattr(context, name, value)


def _cause(error: Exception) -> str:
    """The last line of what Ray says, which is the exception that its tracebacks lead to."""
    lines = str(error).strip().splitlines()
    return lines[-1].strip() if lines else type(error).__name__
