"""Replies of a Hugging Face model on a Ray cluster: a pool of actors, each with one replica of the model.

Requests travel in batches. Each replica has one batch in work and one that waits for it; as soon as a batch is
done, its replies reach the caller and the replica gets the next one. So requests may be endless. Ray restarts
an actor that died and has its batch done again; a batch over which actors die several times is given up, alone.
"""

import logging
import os
import socket
import sys
import warnings
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
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
_OBJECT_STORE_BYTES = 256 << 20  # prompts and replies are small
_CONNECT_S = 10.0
_TRIES_OF_A_BATCH = 3  # then the batch itself is what kills the actors


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
        replicas: int = 1,
        gpus_per_replica: float | None = None,
        address: str = "local",
    ) -> None:
        """Find the model; Ray is started or joined by `complete`.

        Args:
            model, revision, sampling, batch_size, trust_remote_code: as for `HuggingFaceAnnotator`.
            replicas: how many replicas; each takes one CPU core.
            gpus_per_replica: GPUs that each replica takes, or the share of one; None for one if the cluster has
                any GPU and none otherwise.
            address: `local` starts Ray on this machine and ends it after the work; `auto` or `host:port` joins a
                cluster. If Ray runs in this process already, it is used and left running.

        Raises:
            InputError: ray is not installed, a number is out of range, or as for `HuggingFaceAnnotator`.
        """
        _import_ray()
        if replicas < 1 or (gpus_per_replica or 0) < 0:
            raise InputError(
                f"give 1 replica or more and GPUs from 0; got {replicas} and {gpus_per_replica or 0:g}"
            )
        # Only its tokenizer is used here: a driver need not have a GPU.
        self._local = HuggingFaceAnnotator(
            model, revision, sampling, batch_size, "cpu", trust_remote_code
        )
        self._batch_size, self._replicas, self._gpus = batch_size, replicas, gpus_per_replica
        self._address = address

    @property
    def model(self) -> str:
        """Its name, as the user gave it."""
        return self._local.model

    @property
    def revision(self) -> str:
        """As for `HuggingFaceAnnotator`; replicas that have other files refuse to work."""
        return self._local.revision

    @property
    def sampling(self) -> Sampling:
        """How it writes."""
        return self._local.sampling

    def count_tokens(self, prompt: str) -> int:
        """How many tokens a prompt is, message template included."""
        return self._local.count_tokens(prompt)

    def complete(self, requests: Iterable[Request]) -> Generator[Completion, None, None]:
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
            replicas = self._start_replicas(ray, gpus)
            try:
                yield from _exchange(ray, replicas, first, batches)
            finally:
                for replica in replicas:
                    ray.kill(replica)

    def _batches(self, requests: Iterable[Request]) -> Iterator[list[Request]]:
        """Yield batches of prompts of about equal length."""
        remaining = iter(requests)
        while window := list(islice(remaining, self._batch_size * BATCHES_AHEAD)):
            window.sort(key=lambda request: len(request.prompt), reverse=True)
            for start in range(0, len(window), self._batch_size):
                yield window[start : start + self._batch_size]

    def _check_resources(self, present: dict[str, float], is_ours: bool) -> float:
        """GPUs of each replica, after a check that all replicas fit."""
        gpus = self._gpus
        if gpus is None:
            gpus = 1.0 if present.get("GPU", 0) > 0 else 0.0
        needed = {"CPU": self._replicas, "GPU": self._replicas * gpus}
        lacking = [
            f"{number:g} {name}s, of which Ray has {present.get(name, 0):g}"
            for name, number in needed.items()
            if number > present.get(name, 0)
        ]
        if lacking:
            message = f"{self._replicas} replicas of the model need {' and '.join(lacking)}"
            if is_ours:
                raise InputError(f"{message}: ask for fewer or smaller replicas")
            # A cluster may grow.
            print(f"note: {message}; waiting for more", file=sys.stderr)
        return gpus

    def _start_replicas(self, ray: Any, gpus: float) -> list[Any]:
        actor = ray.remote(_Replica).options(
            num_cpus=1,
            num_gpus=gpus,
            max_restarts=-1,
            max_task_retries=_TRIES_OF_A_BATCH - 1,
        )
        # A replica that asked for no GPU takes none, also where Ray leaves them visible.
        device = None if gpus else "cpu"
        arguments = (self._local.source, self.sampling, self._batch_size, device)
        return [actor.remote(*arguments) for _ in range(self._replicas)]


class _Replica:
    """One replica of the model, in an actor."""

    def __init__(
        self, source: ModelSource, sampling: Sampling, batch_size: int, device: str | None
    ) -> None:
        # Errors travel as data: Ray would wrap an exception in its own, and restart the actor.
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

    def answer(self, requests: list[Request]) -> list[Completion] | str:
        """Answer a batch; a string says why nothing can be answered."""
        if self._error is not None:
            return self._error
        try:
            return list(self._annotator.complete(requests))
        except InputError as error:
            return str(error)


def _exchange(
    ray: Any, replicas: list[Any], first: list[Request], batches: Iterator[list[Request]]
) -> Iterator[Completion]:
    """Keep every replica busy, and yield the replies of each batch when it is done.

    A replica that dies takes the batch that waits for it along, and Ray counts that against both. So a batch
    that was lost beside another one is tried again alone before it is given up.
    """
    in_work: dict[Any, tuple[Any, list[Request]]] = {}
    suspects: list[list[Request]] = []
    alone: set[Any] = set()

    def submit(replica: Any, batch: list[Request]) -> Any:
        done = replica.answer.remote(batch)
        in_work[done] = (replica, batch)
        return done

    def feed(replica: Any) -> None:
        working = [done for done, (other, _) in in_work.items() if other is replica]
        if suspects:
            if not working:
                alone.add(submit(replica, suspects.pop()))
        elif len(working) < _BATCHES_PER_REPLICA and not alone.intersection(working):
            batch = next(batches, None)
            if batch is not None:
                submit(replica, batch)

    submit(replicas[0], first)
    for replica in [*replicas[1:], *replicas]:
        feed(replica)
    while in_work:
        (done,), _ = ray.wait(list(in_work), num_returns=1)
        replica, batch = in_work.pop(done)
        completions = _completions(ray, done, batch)
        if completions is not None:
            yield from completions
        elif done in alone:
            yield from _given_up(batch)
        else:
            suspects.append(batch)
        alone.discard(done)
        for _ in range(_BATCHES_PER_REPLICA):
            feed(replica)


def _given_up(batch: list[Request]) -> list[Completion]:
    failure = f"the model's process died {_TRIES_OF_A_BATCH} times over the batch of this prompt"
    return [Completion(request.key, None, failure) for request in batch]


def _completions(ray: Any, done: Any, batch: list[Request]) -> list[Completion] | None:
    """The replies of a batch that is done; None if the replica died over it as often as it may.

    Raises:
        InputError: nothing can be answered.
    """
    try:
        replies = ray.get(done)
    except ray.exceptions.ActorDiedError as error:  # it could not be restarted
        raise InputError(f"Ray gave up ({first_line(error)})") from None
    except ray.exceptions.RayActorError:
        return None
    except Exception as error:  # Ray has many, and raises those of its actors as they are
        raise InputError(f"Ray gave up ({_cause(error)})") from None
    if isinstance(replies, str):
        raise InputError(replies)
    return replies


def _import_ray() -> Any:
    try:
        import ray
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
        options |= {"include_dashboard": False, "object_store_memory": _OBJECT_STORE_BYTES}
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        if not is_local:
            _check_listening(address)
        with warnings.catch_warnings():
            # JAX warns about any fork, but Ray's forked processes run another program at once.
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


def _check_listening(address: str) -> None:
    """Raise OSError if nothing listens at a `host:port`: Ray itself would try for many minutes."""
    host, _, port = address.rpartition(":")
    if host and "/" not in host and port.isdecimal():
        socket.create_connection((host, int(port)), timeout=_CONNECT_S).close()


def _cause(error: Exception) -> str:
    """The last line of Ray's message, which is the exception that its tracebacks lead to."""
    lines = str(error).strip().splitlines()
    return lines[-1].strip() if lines else type(error).__name__
