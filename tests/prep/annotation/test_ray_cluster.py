import itertools
import re
import shutil
import socket
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from jaxsim import InputError
from prep.annotation.annotators.base import Completion, Request, Sampling
from prep.annotation.annotators.huggingface import HuggingFaceAnnotator
from prep.annotation.annotators.model_source import locate_model
from prep.annotation.annotators.ray_cluster import RayAnnotator, _exchange, _Replica
from tests.prep.annotation.tiny_glm import (
    DIES_OF_LONG_PROMPTS,
    DIES_ONCE,
    write_model,
    write_remote_code_model,
)

ray = pytest.importorskip("ray")
torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

DRAWN = Sampling(temperature=0.8, max_tokens=6, seed=1)


@pytest.fixture(scope="module", autouse=True)
def no_hub(tmp_path_factory):
    """No connection to the hub, here and in the processes that Ray starts."""
    modules = str(tmp_path_factory.mktemp("modules"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HUB_OFFLINE", "1")
        patch.setenv("HF_MODULES_CACHE", modules)
        patch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        patch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", modules)
        patch.setattr(sys, "path", [*sys.path])
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        yield
        torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory) -> Path:
    return write_model(tmp_path_factory.mktemp("models") / "tiny")


def requests(numbers) -> list[Request]:
    return [Request(f"key {n}", f"film {n} " * (1 + n % 3), "1") for n in numbers]


@pytest.mark.slow
def test_on_a_local_ray_where_an_actor_dies(tmp_path, capfd):
    folder, marker = write_remote_code_model(tmp_path / "own", DIES_ONCE)
    died = marker.with_name(f"{marker.name}-died")
    options = {"sampling": DRAWN, "batch_size": 2, "trust_remote_code": True}
    annotator = RayAnnotator(str(folder), **options)
    taken = itertools.count()
    endless = (requests([next(taken)])[0] for _ in itertools.repeat(0))
    assert not ray.is_initialized()
    completions = annotator.complete(endless)
    replies = list(itertools.islice(completions, 45))
    completions.close()
    assert not ray.is_initialized()
    assert died.exists()
    # Two windows of 16 batches: one for the replies so far, one for those ahead.
    assert next(taken) == 2 * 32
    plain = HuggingFaceAnnotator(str(folder), **options)
    expected = {c.key: c for c in plain.complete(requests(range(64)))}
    assert len({reply.key for reply in replies}) == len(replies)
    assert all(reply == expected[reply.key] for reply in replies)
    assert (annotator.model, annotator.revision) == (plain.model, plain.revision)
    assert annotator.count_tokens("a film") == plain.count_tokens("a film")
    out, err = capfd.readouterr()
    assert "Traceback" not in out + err


@pytest.mark.slow
def test_a_batch_that_kills_its_replicas_fails_alone(tmp_path):
    folder, _ = write_remote_code_model(tmp_path / "own", DIES_OF_LONG_PROMPTS)
    annotator = RayAnnotator(str(folder), "", DRAWN, 1, trust_remote_code=True)
    prompts = [
        Request("a", "slow", "1"),
        Request("b", "film " * 14, "1"),
        Request("c", "long", "1"),
    ]
    completions = {each.key: each for each in annotator.complete(prompts)}
    failure = "the model's process died 3 times over the batch of this prompt"
    assert completions["b"] == Completion("b", None, failure)
    assert completions["a"].text is not None
    assert completions["c"].text is not None


class FakeRay:
    """Replicas that die over a batch with "kill", and take along what waits for them."""

    exceptions = ray.exceptions

    def __init__(self, replicas: int) -> None:
        self.queues: list[list[tuple]] = [[] for _ in range(replicas)]
        self.tickets = itertools.count()
        self.lost: set[tuple] = set()
        self.most = 0

    def replica(self, number: int) -> SimpleNamespace:
        def remote(batch: list[Request]) -> tuple:
            self.queues[number].append(ticket := (number, next(self.tickets), batch))
            self.most = max(self.most, len(self.queues[number]))
            return ticket[:2]

        return SimpleNamespace(answer=SimpleNamespace(remote=remote))

    def wait(self, refs: list, num_returns: int) -> tuple:
        done = next((ref for ref in refs if ref in self.lost), refs[0])
        return [done], []

    def get(self, ref: tuple) -> list[Completion]:
        queue = self.queues[ref[0]]
        batch = next((batch for *ticket, batch in queue if tuple(ticket) == ref), None)
        if ref in self.lost:
            raise ray.exceptions.ActorUnavailableError("gone", None)
        queue[:] = [each for each in queue if each[:2] != ref]
        if any("kill" in request.prompt for request in batch):
            self.lost |= {each[:2] for each in queue}
            queue.clear()
            raise ray.exceptions.ActorUnavailableError("gone", None)
        return [Completion(request.key, "fine") for request in batch]


@pytest.mark.parametrize("replicas", [1, 2])
@pytest.mark.parametrize("killers", [{0}, {3}, {9}, {2, 3}, set(range(10))])
def test_what_waits_behind_a_killer_is_answered(replicas, killers):
    fake = FakeRay(replicas)
    batches = [[Request(str(n), "kill" if n in killers else "film", "1")] for n in range(10)]
    actors = [fake.replica(number) for number in range(replicas)]
    replies = list(_exchange(fake, actors, batches[0], iter(batches[1:])))
    assert sorted(int(reply.key) for reply in replies) == list(range(10))
    assert {int(reply.key) for reply in replies if reply.text is None} == killers
    assert fake.most == 2


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda folder: (folder / "model.safetensors").unlink(), "cannot be loaded"),
        (lambda folder: shutil.rmtree(folder), "no such folder"),
        (lambda folder: (folder / "notes.txt").write_text("other"), "a node .* has other files"),
    ],
)
def test_a_replica_that_cannot_work_is_one_line(model_folder, tmp_path, spoil, message):
    folder = Path(shutil.copytree(model_folder, tmp_path / "model"))
    source = locate_model(str(folder), "", False)
    spoil(folder)
    if message.startswith("cannot"):
        source = locate_model(str(folder), "", False)
    problem = _Replica(source, DRAWN, 4, "cpu").answer([Request("a", "slow", "1")])
    assert re.search(message, problem)
    assert str(folder) in problem
    assert "\n" not in problem


def test_replicas_must_fit(model_folder, capsys):
    annotator = RayAnnotator(str(model_folder), sampling=DRAWN, replicas=3)
    # A GPU each where there is one, none otherwise.
    assert annotator._check_resources({"CPU": 3.0}, True) == 0.0
    assert annotator._check_resources({"CPU": 8.0, "GPU": 4.0}, True) == 1.0
    with pytest.raises(InputError, match="3 replicas of the model need 3 GPUs, of which Ray has 2"):
        annotator._check_resources({"CPU": 8.0, "GPU": 2.0}, True)
    with pytest.raises(InputError, match="need 3 CPUs, of which Ray has 2: ask for fewer"):
        annotator._check_resources({"CPU": 2.0}, True)
    assert capsys.readouterr().err == ""
    assert annotator._check_resources({"CPU": 2.0}, False) == 0.0
    assert capsys.readouterr().err.startswith("note: 3 replicas of the model need 3 CPUs")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model": "no/such/folder"}, "no/such/folder: no such folder"),
        ({"replicas": 0}, "give 1 replica or more"),
        ({"gpus_per_replica": -1.0}, "GPUs from 0; got 1 and -1"),
    ],
)
def test_options_that_cannot_be_used(model_folder, options, message):
    with pytest.raises(InputError, match=message) as caught:
        RayAnnotator(**{"model": str(model_folder), "sampling": DRAWN, **options})
    assert "\n" not in str(caught.value)


def test_without_requests_ray_is_not_started(model_folder):
    assert list(RayAnnotator(str(model_folder), sampling=DRAWN).complete([])) == []
    assert not ray.is_initialized()


def test_a_cluster_that_does_not_answer_is_one_line(model_folder):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # taken, but nobody listens
        address = f"127.0.0.1:{unused.getsockname()[1]}"
        annotator = RayAnnotator(str(model_folder), sampling=DRAWN, address=address)
        with pytest.raises(InputError, match=f"joined at '{address}' .*refused") as caught:
            list(annotator.complete(requests(range(1))))
    assert "\n" not in str(caught.value)
    assert not ray.is_initialized()


def test_missing_ray_says_what_to_install(model_folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InputError, match=r"pip install 'jaxsim-recsys\[ray\]'"):
        RayAnnotator(str(model_folder))
