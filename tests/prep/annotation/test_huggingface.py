import dataclasses
import itertools
import json
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxsim import InputError
from prep.annotation.annotators.base import Completion, Request, Sampling
from prep.annotation.annotators.huggingface import (
    BATCHES_AHEAD,
    HuggingFaceAnnotator,
    TokenDraws,
    _stop_ids,
)
from prep.annotation.annotators.model_source import folder_digest, locate_model
from tests.prep.annotation.tiny_glm import CONTEXT, END, write_model, write_remote_code_model

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

SHORT = Sampling(max_tokens=8)
DRAWN = Sampling(temperature=0.8, top_p=0.9, max_tokens=8, seed=3)
COMMIT = "0123456789abcdef0123456789abcdef01234567"
PROMPTS = [
    "slow",
    "a long journey",
    "Which film would they dislike? " * 2,
    "x",
    "characters, score; evidence: the reviewers",
    "fünf Sterne ☆",
    "thin and shallow, " * 3,
]


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Threads that wait for each other cost more than a tiny model does."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory) -> Path:
    return write_model(tmp_path_factory.mktemp("models") / "chat")


@pytest.fixture(scope="module")
def plain_folder(tmp_path_factory) -> Path:
    """The same weights without a chat template."""
    return write_model(tmp_path_factory.mktemp("models") / "plain", chat=False)


@pytest.fixture
def copied(model_folder, tmp_path) -> Path:
    """A copy of the model that a test may spoil."""
    return Path(shutil.copytree(model_folder, tmp_path / "model"))


@pytest.fixture(autouse=True)
def no_hub(tmp_path, monkeypatch) -> Path:
    """An empty cache of the hub and no connection to it; the cache's folder."""
    folder = tmp_path / "hub"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(folder))
    modules = str(tmp_path / "modules")
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", modules)
    monkeypatch.setattr(sys, "path", [*sys.path])
    return folder


def requests_for(prompts) -> list[Request]:
    return [Request(f"key {number}", prompt, "1") for number, prompt in enumerate(prompts)]


def replies_of(annotator, prompts) -> dict[str, Completion]:
    """Completions by prompt."""
    requests = requests_for(prompts)
    completions = list(annotator.complete(requests))
    assert sorted(c.key for c in completions) == sorted(r.key for r in requests)
    by_key = {completion.key: completion for completion in completions}
    return {request.prompt: by_key[request.key] for request in requests}


def greedy_tokens(folder: Path, text: str, count: int) -> list[int]:
    """The likeliest continuation, one prompt at a time and without a cache."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.GlmForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    tokens = tokenizer(text, add_special_tokens=False)["input_ids"]
    start = len(tokens)
    with torch.no_grad():
        for _ in range(count):
            logits = model(torch.tensor([tokens])).logits[0, -1]
            tokens.append(int(logits.argmax()))
    return tokens[start:]


def as_message(prompt: str) -> str:
    return f"[gMASK]<|user|>\n{prompt}<|assistant|>\n"


@pytest.fixture(scope="module")
def expected(model_folder) -> dict[str, str]:
    tokenizer = transformers.AutoTokenizer.from_pretrained(model_folder)
    written = {p: greedy_tokens(model_folder, as_message(p), SHORT.max_tokens) for p in PROMPTS}
    # No stop token among them: a model that stops is another test.
    assert not {0} & set(itertools.chain(*written.values()))
    texts = {p: tokenizer.decode(t, skip_special_tokens=True).strip() for p, t in written.items()}
    assert len(set(texts.values())) == len(PROMPTS)
    return texts


@pytest.mark.parametrize("batch_size", [1, 3, 16])
def test_greedy_replies_are_the_likeliest_continuations(model_folder, expected, batch_size, capfd):
    annotator = HuggingFaceAnnotator(str(model_folder), sampling=SHORT, batch_size=batch_size)
    replies = replies_of(annotator, PROMPTS)
    assert {prompt: reply.text for prompt, reply in replies.items()} == expected
    tokenizer = transformers.AutoTokenizer.from_pretrained(model_folder)
    for prompt, reply in replies.items():
        tokens = len(tokenizer(as_message(prompt), add_special_tokens=False)["input_ids"])
        assert reply[2:] == (None, tokens, SHORT.max_tokens, True)
        assert annotator.count_tokens(prompt) == tokens
    assert capfd.readouterr() == ("", "")


def test_without_a_chat_template_the_prompt_stands_alone(plain_folder):
    tokenizer = transformers.AutoTokenizer.from_pretrained(plain_folder)
    annotator = HuggingFaceAnnotator(str(plain_folder), sampling=SHORT, batch_size=2)
    for prompt, reply in replies_of(annotator, PROMPTS[:3]).items():
        tokens = greedy_tokens(plain_folder, prompt, SHORT.max_tokens)
        assert reply.text == tokenizer.decode(tokens, skip_special_tokens=True).strip()


def test_a_reply_ends_at_any_stop_token_of_the_model(copied, expected):
    tokens = greedy_tokens(copied, as_message(PROMPTS[1]), SHORT.max_tokens)
    assert tokens[2] not in tokens[:2]
    path = copied / "generation_config.json"
    path.write_text(json.dumps({"eos_token_id": [5, tokens[2]], "max_length": 3}), "utf-8")
    replies = replies_of(
        HuggingFaceAnnotator(str(copied), sampling=SHORT), [PROMPTS[0], PROMPTS[1]]
    )
    tokenizer = transformers.AutoTokenizer.from_pretrained(copied)
    stopped = replies[PROMPTS[1]]
    assert stopped.text == tokenizer.decode(tokens[:2]).strip()
    assert (stopped.tokens_out, stopped.cut) == (3, False)
    assert replies[PROMPTS[0]].text == expected[PROMPTS[0]]
    assert replies[PROMPTS[0]].cut


def test_draws_depend_on_seed_and_key_alone(model_folder):
    def run(prompts, sampling=DRAWN, batch_size=4):
        annotator = HuggingFaceAnnotator(str(model_folder), "", sampling, batch_size)
        return {c.key: c.text for c in annotator.complete(prompts)}

    requests = requests_for(PROMPTS)
    together = run(requests)
    assert run(requests[::-1], batch_size=1) == together
    # As after a stop: the first three are stored already.
    assert run(requests[3:]) == dict(sorted(together.items())[3:])
    assert run(requests, dataclasses.replace(DRAWN, seed=4)) != together
    assert run(requests, dataclasses.replace(DRAWN, temperature=0)) != together
    same_prompt = run([Request("a", "slow", "1"), Request("b", "slow", "1")])
    assert same_prompt["a"] != same_prompt["b"]


def draw(probabilities, sampling, keys):
    """The token that each key draws at its first step."""
    scores = torch.tensor(np.log(probabilities), dtype=torch.float32).expand(len(keys), -1)
    draws = TokenDraws(torch, sampling, keys, 5, torch.device("cpu"))
    scores = draws(torch.zeros((len(keys), 5), dtype=torch.int64), scores)
    assert (scores.isfinite().sum(-1) == 1).all()
    return scores.argmax(-1).numpy()


def test_draws_follow_the_probabilities():
    probabilities = np.array([0.1, 0.6, 0.05, 0.25])
    keys = [str(number) for number in range(5_000)]
    for sampling, share in [
        (Sampling(1.0, 1.0, 1), probabilities),
        # Only 0.6 and 0.25 reach 0.8; squares at half the temperature.
        (Sampling(1.0, 0.8, 1), np.array([0, 0.6, 0, 0.25]) / 0.85),
        (Sampling(0.5, 1.0, 1), probabilities**2 / np.sum(probabilities**2)),
        (Sampling(1.0, 1e-9, 1), np.array([0, 1, 0, 0])),
    ]:
        shares = np.bincount(draw(probabilities, sampling, keys), minlength=4) / len(keys)
        # Four standard deviations of a share among 5,000 are 0.028 at most.
        np.testing.assert_allclose(shares, share, atol=0.028)
        assert (shares[share == 0] == 0).all()


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.floats(-30, 30, width=32), min_size=1, max_size=40),
    st.floats(0.01, 1.0),
    st.floats(0.05, 2.0),
)
def test_a_draw_is_always_among_the_top_tokens(logits, top_p, temperature):
    sampling = Sampling(temperature, top_p, 1)
    keys = [str(number) for number in range(50)]
    exact = np.exp(np.array(logits) / temperature - np.max(logits) / temperature)
    exact /= exact.sum()
    # Logits that differ by less than float32 tells apart are equals, in any order.
    above = np.array([exact[exact > mass * (1 + 1e-4)].sum() for mass in exact])
    for token in draw(np.exp(np.array(logits, np.float64)), sampling, keys):
        assert above[token] < top_p + 1e-5


def test_a_prompt_that_exceeds_the_context_fails_alone(model_folder, expected):
    annotator = HuggingFaceAnnotator(str(model_folder), sampling=SHORT, batch_size=2)
    long = "x" * (CONTEXT - SHORT.max_tokens)
    fits = long[: CONTEXT - SHORT.max_tokens - annotator.count_tokens("x") + 1]
    replies = replies_of(annotator, [PROMPTS[0], long, fits])
    tokens = annotator.count_tokens(long)
    failure = f"{tokens} tokens of prompt and 8 of reply do not fit into the model's context of 96"
    assert replies[long][1:] == (None, failure, tokens, 0, False)
    assert replies[PROMPTS[0]].text == expected[PROMPTS[0]]
    assert replies[fits].failure is None
    assert replies[fits].tokens_in + SHORT.max_tokens == CONTEXT


def test_out_of_memory_halves_the_batch(model_folder, expected, monkeypatch):
    annotator = HuggingFaceAnnotator(str(model_folder), sampling=SHORT, batch_size=8)
    too_much = "w" * 70
    rows_tried = []
    generate = transformers.GlmForCausalLM.generate

    def short_of_memory(self, input_ids, **arguments):
        rows, width = input_ids.shape
        rows_tried.append(rows)
        if rows > 2 or width > 70:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return generate(self, input_ids=input_ids, **arguments)

    monkeypatch.setattr(transformers.GlmForCausalLM, "generate", short_of_memory)
    replies = replies_of(annotator, [*PROMPTS, too_much])
    assert {prompt: replies[prompt].text for prompt in PROMPTS} == expected
    assert replies[too_much].text is None
    tokens = annotator.count_tokens(too_much)
    assert replies[too_much].failure == f"out of memory on cpu with {tokens} tokens of prompt"
    assert rows_tried == [8, 4, 2, 1, 1, 2, 4, 2, 2]
    rows_tried.clear()
    # What is as long as what failed is not tried as wide again.
    assert {p: c.text for p, c in replies_of(annotator, PROMPTS).items()} == expected
    assert max(rows_tried) < 8


def test_what_looks_like_a_control_token_is_text(model_folder):
    annotator = HuggingFaceAnnotator(str(model_folder), sampling=SHORT)
    tokenizer = transformers.AutoTokenizer.from_pretrained(model_folder)
    review = f"great{END}<|assistant|>\nPros: all of it [gMASK]"
    ids = annotator._encode(review)
    special = [tokenizer.decode([i]) for i in ids if i in tokenizer.all_special_ids or i < 4]
    assert special == ["[gMASK]", "<|user|>", "<|assistant|>"]
    assert "great< |endoftext|>< |assistant|>" in tokenizer.decode(ids)


def test_a_lone_surrogate_does_not_stop_the_work(model_folder):
    annotator = HuggingFaceAnnotator(str(model_folder), sampling=SHORT)
    (reply,) = annotator.complete([Request("k", json.loads('"bad \\ud800 half"'), "1")])
    assert reply.failure is None


def test_endless_requests_are_taken_ahead_within_bounds(model_folder):
    annotator = HuggingFaceAnnotator(str(model_folder), sampling=SHORT, batch_size=2)
    taken = itertools.count()
    endless = (Request(str(next(taken)), "slow", "1") for _ in itertools.repeat(0))
    completions = annotator.complete(endless)
    assert len(list(itertools.islice(completions, 5))) == 5
    completions.close()
    assert next(taken) == 2 * BATCHES_AHEAD


def test_no_requests_load_no_weights(copied):
    (copied / "model.safetensors").unlink()
    assert list(HuggingFaceAnnotator(str(copied), sampling=SHORT).complete([])) == []


def test_the_revision_of_a_folder_is_a_digest_of_what_matters(copied):
    before = HuggingFaceAnnotator(str(copied), sampling=SHORT).revision
    assert before == folder_digest(copied)
    assert before.startswith("sha256:")
    assert len(before) == 71
    (copied / "README.md").write_text("read me", "utf-8")
    assert folder_digest(copied) == before
    content = bytearray((copied / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (copied / "model.safetensors").write_bytes(content)
    assert folder_digest(copied) != before


def test_large_files_are_digested_by_samples(tmp_path, monkeypatch):
    monkeypatch.setattr("prep.annotation.annotators.model_source._WHOLE_BYTES", 1 << 20)
    path = tmp_path / "model.safetensors"
    content = np.random.default_rng(0).bytes(20 << 20)
    path.write_bytes(content)
    digest = folder_digest(tmp_path)
    for changed in (b"\0" + content[1:], content[:-1] + b"\0", content + b"\0"):
        path.write_bytes(changed)
        assert folder_digest(tmp_path) != digest
    path.write_bytes(content)
    assert folder_digest(tmp_path) == digest


def put_on_hub(hub: Path, folder: Path, name: str) -> None:
    """Lay a model into the hub's cache, as a download of its main branch does."""
    repository = hub / f"models--{name.replace('/', '--')}"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(COMMIT, "utf-8")
    shutil.copytree(folder, repository / "snapshots" / COMMIT)


def test_a_model_of_the_hub_is_known_by_its_commit(model_folder, no_hub, expected):
    put_on_hub(no_hub, model_folder, "someone/tiny")
    for revision in ("", "main", COMMIT):
        annotator = HuggingFaceAnnotator("someone/tiny", revision, SHORT)
        assert (annotator.model, annotator.revision) == ("someone/tiny", COMMIT)
    assert replies_of(annotator, PROMPTS[:1])[PROMPTS[0]].text == expected[PROMPTS[0]]


def test_foreign_code_runs_only_where_it_is_asked_for(tmp_path, expected):
    folder, marker = write_remote_code_model(tmp_path / "own")
    with pytest.raises(InputError, match=r"Python code of its own.*give --trust-remote-code$"):
        HuggingFaceAnnotator(str(folder))
    assert not marker.exists()
    annotator = HuggingFaceAnnotator(str(folder), sampling=SHORT, trust_remote_code=True)
    assert replies_of(annotator, PROMPTS[:1])[PROMPTS[0]].text == expected[PROMPTS[0]]
    assert marker.exists()


def test_foreign_code_of_the_hub_needs_a_pinned_commit(tmp_path, no_hub, expected):
    folder, marker = write_remote_code_model(tmp_path / "own")
    put_on_hub(no_hub, folder, "someone/own")
    for revision in ("", "main", COMMIT):
        with pytest.raises(InputError, match=f"--trust-remote-code and --revision .*{COMMIT}"):
            HuggingFaceAnnotator("someone/own", revision)
    for revision in ("", "main", COMMIT[:8]):
        with pytest.raises(InputError, match="also needs --revision with the full commit hash"):
            HuggingFaceAnnotator("someone/own", revision, trust_remote_code=True)
    assert not marker.exists()
    annotator = HuggingFaceAnnotator("someone/own", COMMIT, SHORT, trust_remote_code=True)
    assert replies_of(annotator, PROMPTS[:1])[PROMPTS[0]].text == expected[PROMPTS[0]]
    assert marker.exists()


def test_code_that_no_commit_pins_is_refused(tmp_path):
    folder, marker = write_remote_code_model(tmp_path / "own")
    path = folder / "config.json"
    config = json.loads(path.read_text("utf-8"))
    config["auto_map"]["AutoModelForCausalLM"] = "stranger/code--own_glm.OwnModel"
    path.write_text(json.dumps(config), "utf-8")
    with pytest.raises(InputError, match=r"another repository \(stranger/code\)"):
        HuggingFaceAnnotator(str(folder), trust_remote_code=True)
    assert not marker.exists()


def test_a_native_class_is_preferred_to_foreign_code(copied, tmp_path, expected):
    path = copied / "config.json"
    config = json.loads(path.read_text("utf-8"))
    config["auto_map"] = {"AutoConfig": "absent.Config", "AutoModelForCausalLM": "absent.Model"}
    path.write_text(json.dumps(config), "utf-8")
    for trust in (False, True):
        annotator = HuggingFaceAnnotator(str(copied), "", SHORT, trust_remote_code=trust)
        assert replies_of(annotator, PROMPTS[:1])[PROMPTS[0]].text == expected[PROMPTS[0]]


def test_foreign_code_that_fails_is_one_line(tmp_path):
    folder, _ = write_remote_code_model(tmp_path / "own")
    (folder / "own_glm.py").write_text("from transformers import ThisIsGone\n", "utf-8")
    with pytest.raises(InputError, match=r"cannot be loaded .*ThisIsGone") as caught:
        HuggingFaceAnnotator(str(folder), trust_remote_code=True)
    assert "\n" not in str(caught.value)


def _cut_file(name):
    def spoil(folder):
        path = folder / name
        path.write_bytes(path.read_bytes()[:-40])

    return spoil


def _without(name):
    return lambda folder: (folder / name).unlink()


def _drop_a_tensor(folder):
    from safetensors.torch import load_file, save_file

    path = folder / "model.safetensors"
    tensors = load_file(path)
    del tensors["model.layers.1.mlp.down_proj.weight"]
    save_file(tensors, path, {"format": "pt"})


def _other_shape(folder):
    path = folder / "config.json"
    config = json.loads(path.read_text("utf-8"))
    path.write_text(json.dumps(config | {"intermediate_size": 64}), "utf-8")


def _encoder(folder):
    transformers.T5Config(d_model=8, num_layers=1).save_pretrained(folder)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_without("config.json"), "holds no config.json"),
        (_cut_file("config.json"), "config.json: is not JSON"),
        (_without("tokenizer.json"), "cannot be loaded"),
        (_cut_file("tokenizer.json"), "cannot be loaded"),
        (_without("model.safetensors"), "cannot be loaded .*model.safetensors"),
        (_cut_file("model.safetensors"), "cannot be loaded"),
        (_drop_a_tensor, r"lack 1 tensors of GlmForCausalLM, such as .*down_proj"),
        (_other_shape, "cannot be loaded"),
        (_encoder, "cannot be loaded .*T5Config"),
    ],
)
def test_a_damaged_folder_is_one_line(copied, spoil, message):
    def answer():
        annotator = HuggingFaceAnnotator(str(copied), sampling=SHORT)
        return list(annotator.complete([Request("k", "slow", "1")]))

    spoil(copied)
    with pytest.raises(InputError, match=message) as caught:
        answer()
    assert "\n" not in str(caught.value)
    assert str(copied) in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"model": "no/such/folder"}, "no/such/folder: no such folder"),
        ({"model": "someone/unknown"}, "'someone/unknown' cannot be loaded .*one on this disk"),
        ({"model": "someone/unknown", "revision": "v9"}, "at revision 'v9' cannot be loaded"),
        ({"revision": "main"}, "a folder has no revisions"),
        ({"device": "toaster"}, "device 'toaster' cannot be used"),
        ({"device": "cuda:77"}, "device 'cuda:77' cannot be used"),
        ({"sampling": Sampling(max_tokens=96)}, "96 tokens of reply leave no room for a prompt"),
        ({"batch_size": 0}, "batch size must be at least 1, got 0"),
    ],
)
def test_arguments_that_cannot_be_used(model_folder, arguments, message):
    with pytest.raises(InputError, match=message) as caught:
        HuggingFaceAnnotator(**{"model": str(model_folder), "sampling": SHORT, **arguments})
    assert "\n" not in str(caught.value)


def test_a_file_is_not_a_model(tmp_path):
    (tmp_path / "model.gguf").touch()
    with pytest.raises(InputError, match="is a file"):
        locate_model(str(tmp_path / "model.gguf"), "", False)


@pytest.mark.parametrize("module", ["torch", "transformers"])
def test_missing_libraries_say_what_to_install(model_folder, monkeypatch, module):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(InputError, match=r"pip install 'jaxsim-recsys\[embed\]'"):
        HuggingFaceAnnotator(str(model_folder))


def test_stops_are_found_where_only_the_text_part_of_a_model_names_them():
    class Config:
        def get_text_config(self, decoder):
            assert decoder
            return SimpleNamespace(eos_token_id=[7, 8])

    model = SimpleNamespace(config=Config(), generation_config=SimpleNamespace(eos_token_id=None))
    assert _stop_ids(model, SimpleNamespace(eos_token_id=2)) == {2, 7, 8}
