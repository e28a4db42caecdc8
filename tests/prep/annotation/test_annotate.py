"""`prep annotate` and `prep build --annotate`: from raw tables by way of a server to a packed dataset."""

import json
import re

import pytest

import jaxsim
import jaxsim.dataset
from prep.__main__ import run
from prep.annotation import annotate as model_replies
from prep.annotation import exchange
from prep.annotation.annotators.base import Sampling
from prep.config import AnnotationConfig, LanguageModelConfig
from tests.prep.annotation.openai_protocol_server import Answer, ProtocolServer, chat_completion
from tests.prep.conftest import reply_text
from tests.prep.sources.test_own_dataset import books, pairs_of_split

__all__ = ["books"]  # a fixture

pytest.importorskip("openai")


def opinionated(number, request):
    """Praise and criticise by genre; one review's prompt and one book's never get a usable reply."""
    prompt = request["messages"][0]["content"]
    genre = re.search(r"fantasy|crime|poetry|travel", prompt)[0]
    if "Name: Book 7\n" in prompt and "by reader" not in prompt:
        return Answer(chat_completion("I would rather not say."))
    sides = [side for side in ("Pros", "Cons") if f"{side} 1:" in prompt]
    about = "a review" if "by reader" in prompt else "a book"
    lines = [
        f"{side} 1: A reason\nEvidence: it\nKeywords: {side} {genre} {about}" for side in sides
    ]
    return Answer(chat_completion("\n".join(lines)))


def args(folder, server, *more):
    return [str(folder / "books.csv"), "--items", str(folder / "items.csv"), "--like-threshold", "4",
            "--noun", "book", "--annotate", "openai", "--llm.model", "tiny", "--llm.base-url", server.url,
            "--llm.store", str(folder / "replies.sqlite"), *map(str, more)]  # fmt: skip


@pytest.fixture
def server():
    with ProtocolServer(opinionated) as server:
        yield server


@pytest.mark.usefixtures("no_training")
def test_asked_once_and_packed(books, server, capsys):
    plan = books / "plan.json"
    prices = ("--llm.price-in", "2", "--llm.price-out", "8")
    run(["annotate", *args(books, server, "--dry-run", *prices, "--json", plan)])
    printed = capsys.readouterr().out
    planned = json.loads(plan.read_text("utf-8"))
    assert [(each["prompt_name"], each["calls"]) for each in planned["prompts"]] == [
        ("T_obj", 40),
        ("T_sub", 240),
    ]
    assert planned["calls"] == 280
    cost = (planned["tokens_in"] * 2 + planned["tokens_out"] * 8) / 1e6
    assert planned["cost"] == pytest.approx(cost)
    assert f"cost {cost:.2f} at 2 and 8 a million" in printed
    assert "T_obj: 40 calls" in printed
    assert "T_sub: 240 calls" in printed
    assert "cost" in printed
    assert "nothing was asked" in printed
    assert not server.requests
    assert not (books / "replies.sqlite").exists()

    out = books / "replies.jsonl"
    run(["annotate", *args(books, server, "--out", out, "--llm.attempts", "2")])
    captured = capsys.readouterr()
    assert "279 of 280 prompts have a reply that can be used" in captured.out
    assert "1 of 280 prompts got no reply that could be used" in captured.err
    asked = len(server.requests)
    assert asked == 281  # Book 7 twice
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert len([line for line in lines if "user_id" not in line]) == 40
    assert len([line for line in lines if "user_id" in line]) == 240

    build = ["build", *args(books, server, "--llm.attempts", "2", "--out", books / "packed")]
    build += ["--max-share", "1", "--encoder", "hashed"]
    with pytest.raises(SystemExit):
        run(build)
    printed = capsys.readouterr().err
    assert "the reply for item b7 (Book 7) does not parse: no Pros in it; ask again with" in printed
    run([*build, "--allow-missing-replies"])
    assert len(server.requests) == asked  # all of it came from the store
    dataset = jaxsim.load_dataset(books / "packed")
    assert {"pros crime a book", "cons poetry a review"} <= set(dataset.keywords)
    assert not any("rather" in word for word in dataset.keywords)
    assert dataset.manifest["counts"]["replies_unparsed"] == 1
    assert "39 parsed, 1 that do not parse" in capsys.readouterr().out
    model = dataset.manifest["language_model"]
    assert (model["name"], model["prompt_version"], model["noun"]) == (
        "tiny",
        exchange.PROMPT_VERSION,
        "book",
    )
    sent = " ".join(request["messages"][0]["content"] for request in server.requests)
    for user, item in pairs_of_split(dataset, [1, 2]):
        name = f"Book {item[1:]}\n"
        assert not re.search(f"Name: {name}(?:(?!=====).)*reader {user[1:]}\\b", sent, re.DOTALL)


@pytest.mark.usefixtures("no_training")
def test_changed_prompts_never_meet_old_replies(books, server, monkeypatch):
    command = ["annotate", *args(books, server, "--llm.no-subjective", "--llm.attempts", "1")]
    run(command)
    assert len(server.requests) == 40
    run(command)
    assert len(server.requests) == 40
    monkeypatch.setattr(exchange, "PROMPT_VERSION", "next")
    run(command)
    assert len(server.requests) == 80
    run([*command, "--llm.temperature", "0.5"])
    assert len(server.requests) == 120
    run([*command, "--noun", "paperback"])
    assert len(server.requests) == 160


@pytest.mark.usefixtures("no_training")
def test_an_export_of_changed_prompts_can_be_built_from(books, server, prep_error):
    out = books / "replies.jsonl"
    base = args(books, server, "--llm.no-subjective", "--llm.attempts", "1")
    run(["annotate", *base, "--out", str(books / "first.jsonl")])
    run(["annotate", *base, "--noun", "paperback", "--out", str(out)])
    assert len(out.read_text().splitlines()) == 40
    table = [str(books / "books.csv"), "--items", str(books / "items.csv"), "--like-threshold", "4"]
    run(["build", *table, "--replies", str(out), "--out", str(books / "packed"), "--encoder", "hashed",
         "--allow-missing-replies", "--max-share", "1"])  # fmt: skip
    replay = ["annotate", *table, "--annotate", "replay", "--replies", out, "--llm.no-subjective"]
    before = out.read_bytes()
    assert "replies.jsonl: is an input; give another file" in prep_error(*replay, "--out", out)
    run([*map(str, replay), "--out", str(books / "again.jsonl")])
    store = jaxsim.dataset.cache_dir() / "replies" / "books.sqlite"
    stored = store.read_bytes()
    assert "books.sqlite: is an input" in prep_error(*replay, "--out", store)
    assert store.read_bytes() == stored
    assert "a dry run has no replies" in prep_error(*replay, "--out", books / "x", "--dry-run")
    assert out.read_bytes() == before


@pytest.mark.usefixtures("no_training")
def test_another_recording_is_another_model(books, capsys):
    """Equal prompts may have been answered differently in a recording, and a new recording counts."""
    items = [f"b{n},Book,fantasy" for n in range(40)]
    (books / "items.csv").write_text("item,name,categories\n" + "\n".join(items))
    table = [str(books / "books.csv"), "--items", str(books / "items.csv"), "--like-threshold", "4",
             "--annotate", "replay", "--llm.no-subjective", "--llm.store", str(books / "s.sqlite")]  # fmt: skip
    for word in ("first", "second"):
        recording, out = books / f"{word}.jsonl", books / f"{word}-out.jsonl"
        recorded = {f"b{n}": reply_text([f"{word} {n}"], ["dull"]) for n in range(40)}
        lines = [json.dumps({"item_id": item, "reply": text}) for item, text in recorded.items()]
        recording.write_text("\n".join(lines))
        run(["annotate", *table, "--replies", str(recording), "--out", str(out)])
        read = [json.loads(line) for line in out.read_text().splitlines()]
        assert {line["item_id"]: line["reply"] for line in read} == recorded
        capsys.readouterr()
        run(["annotate", *table, "--replies", str(recording), "--dry-run"])
        assert "T_obj: 0 calls to make; 40 of 40 replies are stored" in capsys.readouterr().out
    recording.write_text(lines[0])
    with pytest.raises(SystemExit):
        run(["annotate", *table, "--replies", str(recording)])
    assert "give recordings of the others with --replies" in capsys.readouterr().err


def test_only_so_many_reviews_of_an_item(books, server, capsys):
    run(["annotate", *args(books, server, "--dry-run", "--llm.reviews-per-item", "2")])
    assert "T_sub: 80 calls" in capsys.readouterr().out


@pytest.mark.usefixtures("no_training")
def test_recorded_replies_go_through_the_same_store(books, server, capsys):
    out = books / "replies.jsonl"
    run(["annotate", *args(books, server, "--out", out, "--llm.no-subjective")])
    replay = [str(books / "books.csv"), "--items", str(books / "items.csv"), "--like-threshold", "4",
              "--annotate", "replay", "--replies", str(out), "--llm.no-subjective"]  # fmt: skip
    run(["build", *replay, "--out", str(books / "packed"), "--encoder", "hashed", "--max-share", "1",
         "--allow-missing-replies"])  # fmt: skip
    dataset = jaxsim.load_dataset(books / "packed")
    assert dataset.manifest["language_model"]["annotate"] == "replay"
    assert "pros crime a book" in dataset.keywords
    assert (dataset.path.parent / "cache" / "replies" / "books.sqlite").exists()


def test_what_cannot_be_asked(books, server, prep_error):
    command = ["annotate", *args(books, server)]
    plain = ["annotate", books / "books.csv", "--like-threshold", "4"]
    assert "asks no language model" in prep_error(*plain, "--annotate", "none")
    forgotten = ["build", *plain[1:], "--replies", "r.jsonl", "--llm.model", "glm"]
    assert "--llm: --annotate replies asks no language model" in prep_error(*forgotten)
    assert "--trust-remote-code: --annotate openai" in prep_error(*command, "--trust-remote-code")
    assert "--llm.attempts is 0" in prep_error(*command, "--llm.attempts", "0")
    assert "--llm.top-p is 0.0" in prep_error(*command, "--llm.top-p", "0")
    assert "--annotate replay: give the files" in prep_error(*command, "--annotate", "replay")
    (books / "replies.sqlite").write_text("no database at all, but text that is long enough " * 100)
    assert "replies.sqlite" in prep_error(*command)
    assert not server.requests


@pytest.mark.slow
def test_a_model_on_this_machine_answers_through_the_command_line(books, capsys):
    """A tiny random model writes rubbish: all of it is kept, none of it becomes a keyword."""
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    from tests.prep.annotation.tiny_glm import write_model

    folder = write_model(books / "model", context=8192)
    command = [str(books / "books.csv"), "--items", str(books / "items.csv"), "--like-threshold", "4",
               "--annotate", "huggingface", "--llm.model", str(folder), "--llm.no-subjective",
               "--llm.attempts", "1", "--llm.max-tokens", "4", "--llm.store", str(books / "s.sqlite")]  # fmt: skip
    run(["annotate", *command, "--dry-run"])
    assert "counted by the model" in capsys.readouterr().out
    run(["annotate", *command, "--out", str(books / "replies.jsonl")])
    captured = capsys.readouterr()
    lines = (books / "replies.jsonl").read_text().splitlines()
    assert len(lines) == 40
    assert "0 of 40 prompts have a reply that can be used" in captured.out


@pytest.mark.parametrize("kind", ["huggingface", "ray", "openai"])
def test_settings_reach_the_annotator(monkeypatch, kind):
    given = {}

    def annotator(*arguments, **named):
        given.update(named, arguments=arguments)
        return "annotator"

    for name in ("HuggingFaceAnnotator", "RayAnnotator", "OpenAIAnnotator"):
        monkeypatch.setattr(model_replies, name, annotator)
    llm = LanguageModelConfig(
        model="m", revision="r", base_url="u", concurrency=3, timeout=4, batch_size=5, device="cpu",
        trust_remote_code=True, replicas=6, gpus_per_replica=0.5, ray_address="auto", temperature=0.7,
        top_p=0.8, max_tokens=9, seed=10,
    )  # fmt: skip
    config = AnnotationConfig(annotate=kind, llm=llm)
    assert model_replies.make_annotator(config) == "annotator"
    sampling = Sampling(0.7, 0.8, 9, 10)
    expected = {
        "huggingface": {"arguments": ("m", "r", sampling, 5, "cpu", True)},
        "ray": {"arguments": ("m", "r", sampling, 5), "trust_remote_code": True, "replicas": 6,
                "gpus_per_replica": 0.5, "address": "auto"},
        "openai": {"arguments": ("m", "u"), "revision": "r", "sampling": sampling, "concurrency": 3,
                   "timeout": 4},
    }  # fmt: skip
    assert given == expected[kind]


def test_options_of_remote_code_go_by_their_usual_names(books, prep_error, tmp_path):
    pytest.importorskip("torch")
    from tests.prep.annotation.tiny_glm import write_remote_code_model

    folder, marker = write_remote_code_model(tmp_path / "own")
    command = ["annotate", books / "books.csv", "--like-threshold", "4", "--annotate", "huggingface",
               "--llm.model", folder]  # fmt: skip
    assert "--trust-remote-code" in prep_error(*command)
    assert "a folder has no revisions" in prep_error(
        *command, "--trust-remote-code", "--revision", "a" * 40
    )
    assert not marker.exists()


@pytest.mark.usefixtures("no_training")
def test_a_store_can_be_shown_and_exported(books, server, capsys, prep_error):
    store, out = books / "replies.sqlite", books / "exported.jsonl"
    command = ["annotate", *args(books, server, "--llm.no-subjective", "--llm.attempts", "1")]
    run([*command, "--out", str(books / "replies.jsonl")])
    capsys.readouterr()
    run(["replies", "show", str(store)])
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "T_obj" in line]
    assert line.split()[-6:] == ["T_obj", "40", "40", "40", "440", "280"]
    run(["replies", "show", str(store), "--item", "b1"])
    shown = capsys.readouterr().out
    assert "Name: Book 1\n" in shown
    assert re.search(r"keywords pro: pros \w+ a book; con: cons \w+ a book", shown)
    run(["replies", "show", str(store), "--item", "b7"])
    assert "cannot be used: no Pros in it" in capsys.readouterr().out
    run(["replies", "export", str(store), "--out", str(out)])
    assert "40 replies written" in capsys.readouterr().out
    assert sorted(out.read_text().splitlines()) == sorted(
        (books / "replies.jsonl").read_text().splitlines()
    )
    assert "b99" in prep_error("replies", "show", store, "--item", "b99")
    assert "--item" in prep_error("replies", "show", store, "--user", "u")
    assert "neither a store" in prep_error("replies", "show", "nothing")
    assert "the store itself" in prep_error("replies", "export", store, "--out", store)
    assert "--settings 9" in prep_error("replies", "export", store, "--out", out, "--settings", "9")
    run([*command, "--llm.temperature", "0.5"])
    assert "choose one of --settings 1, 2" in prep_error("replies", "export", store, "--out", out)
    run(["replies", "export", str(store), "--out", str(out), "--settings", "2"])
    assert "40 replies written" in capsys.readouterr().out
