import asyncio
import importlib.util
import itertools
import re
import sys
import threading

import pytest

from jaxsim import InputError
from prep.annotation.annotators.base import Completion, Request, Sampling
from prep.annotation.annotators.openai_server import OpenAIAnnotator
from tests.prep.annotation.openai_protocol_server import (
    HTML,
    SOON,
    Answer,
    ProtocolServer,
    chat_completion,
    error,
    misbehaving,
    reply_to,
)

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("openai") is None, reason="openai is not installed"
)
SECRET = "sk-the-secret-key"
NO_REPLY = "the answer is not a chat completion in JSON"
GONE = "http://127.0.0.1:9/v1"  # nothing listens at the port of the discard protocol


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)


def annotator(url, **settings):
    settings = {"max_retries": 2, "timeout": 60.0} | settings
    return OpenAIAnnotator("the-model", url, **settings)


def requests(count, prompt="prompt"):
    return [Request(f"k{n}", f"{prompt} {n}", f"i{n}") for n in range(count)]


def ask(script, count=1, **settings):
    """What comes of `count` requests to a server with this script, by key; and the server."""
    with ProtocolServer(script) as server:
        completions = list(annotator(server.url, **settings).complete(requests(count)))
    assert len({each.key for each in completions}) == len(completions) == count
    return {each.key: each for each in completions}, server


def first(*answers):
    """A script: these answers to the first requests, and then whole ones."""
    return lambda number, _: answers[number] if number < len(answers) else None


def always(answer):
    return lambda *_: answer


def body(**changes):
    return Answer(chat_completion("text", **changes))


def test_replies_belong_to_their_prompts_and_come_with_counts():
    completions, server = ask(misbehaving, 60, concurrency=8, max_retries=8)
    failures = [each.key for each in completions.values() if each.text is None]
    assert completions == {
        request.key: Completion(request.key, reply_to(request.prompt), None, 11, 7)
        if request.key not in failures
        else Completion(request.key, None, NO_REPLY)
        for request in requests(60)
    }
    assert len(failures) < 10
    assert set(server.whole.values()) == {1}


def test_greedy_requests_say_what_every_server_knows():
    _, server = ask(first())
    assert server.requests == [
        {
            "model": "the-model",
            "messages": [{"role": "user", "content": "prompt 0"}],
            "temperature": 0.0,
            "max_tokens": 512,
        }
    ]


def test_sampling_requests_say_how():
    _, server = ask(first(), sampling=Sampling(0.7, 0.9, 100, 5))
    sent = {
        name: server.requests[0].get(name)
        for name in ("temperature", "top_p", "seed", "max_tokens")
    }
    assert sent == {"temperature": 0.7, "top_p": 0.9, "seed": 5, "max_tokens": 100}


def test_the_key_is_that_of_the_environment(monkeypatch):
    _, server = ask(first())
    assert SECRET not in str(server.headers)
    monkeypatch.setenv("OPENAI_API_KEY", f" {SECRET}\n")
    _, server = ask(first())
    assert {name.lower(): text for name, text in server.headers.items()}["authorization"] == (
        f"Bearer {SECRET}"
    )


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (Answer(chat_completion("te", "length")), Completion("k0", "te", None, 11, 7, cut=True)),
        (Answer(chat_completion(None)), Completion("k0", "", None, 11, 7)),
        (Answer(chat_completion("", "length")), Completion("k0", "", None, 11, 7, cut=True)),
        (Answer(chat_completion("half", "content_filter")), Completion("k0", "half", None, 11, 7)),
        (
            Answer(chat_completion(None, "content_filter")),
            Completion("k0", None, "withheld by the server's content filter"),
        ),
        (body(usage=None), Completion("k0", "text")),
        (body(usage={"prompt_tokens": "x"}), Completion("k0", "text")),
        (body(choices=[{"message": {"content": "bare"}}], usage={}), Completion("k0", "bare")),
        (
            body(choices=[{"message": {"content": None, "refusal": "No."}}], usage={}),
            Completion("k0", "No."),
        ),
        (Answer(b'{"choices": [{"message": {"content": "\\ud800"}}]}'), Completion("k0", "\ud800")),
    ],
)
def test_what_servers_answer(answer, expected):
    completions, server = ask(always(answer))
    assert completions == {"k0": expected}
    assert len(server.requests) == 1


TROUBLES = {
    "500": error(500, headers=SOON),
    "529": error(529, headers=SOON),
    "408": error(408, headers=SOON),
    "429": error(429, headers=SOON),
    "an error that is no JSON": Answer(b"oops", 502, SOON),
    "reset": Answer(b"", reset=True),
    "cut body": Answer(chat_completion("never"), cut_at=40),
}


@pytest.mark.parametrize("trouble", TROUBLES.values(), ids=TROUBLES.keys())
def test_the_client_asks_again_after_a_passing_trouble(trouble):
    completions, server = ask(first(trouble))
    assert completions["k0"].text == reply_to("prompt 0")
    assert len(server.requests) == 2


@pytest.mark.parametrize(
    "answer",
    [
        HTML,
        Answer(b'{"choices": [{"mess'),
        Answer(b""),
        Answer(b"null"),
        Answer(b"[" * 100_000),
        body(choices=[]),
        body(choices=None),
        Answer(chat_completion({"a": 1})),
        Answer({"hello": "world"}),
    ],
)
def test_an_answer_that_is_no_reply_is_a_failure_of_its_prompt_alone(answer):
    completions, _ = ask(first(answer), 3, concurrency=1)
    assert completions["k0"] == Completion("k0", None, NO_REPLY)
    assert (completions["k1"].text, completions["k2"].text) == (
        reply_to("prompt 1"),
        reply_to("prompt 2"),
    )


@pytest.mark.parametrize(
    ("trouble", "reason"),
    [
        (error(500, "overloaded", SOON), "HTTP 500: overloaded"),
        (Answer(b"", reset=True), "."),
    ],
)
def test_lasting_troubles_of_one_prompt_are_its_failure_alone(trouble, reason):
    def script(number, request):
        return trouble if request["messages"][0]["content"] == "prompt 1" else None

    completions, server = ask(script, 4, concurrency=2, max_retries=1)
    assert completions["k1"].text is None
    assert re.match(reason, completions["k1"].failure)
    assert sum(each.text is not None for each in completions.values()) == 3
    assert len(server.requests) == 3 + 2


def test_a_stall_ends_at_the_time_limit():
    stall = Answer(b"", stall=1.0)
    completions, _ = ask(
        lambda n, r: stall if r["messages"][0]["content"] == "prompt 0" else None,
        2,
        timeout=0.2,
        max_retries=0,
    )
    assert completions["k0"].failure == "no answer in time"


@pytest.mark.parametrize("status", [400, 413, 422])
def test_a_prompt_that_is_refused_is_a_failure_at_once(status):
    answer = error(status, f"This model's maximum context length is 9 ({SECRET})", param="messages")
    completions, server = ask(first(answer), 3, concurrency=1)
    assert completions["k0"].failure.startswith(
        f"HTTP {status}: This model's maximum context length is 9"
    )
    assert (completions["k1"].text, completions["k2"].text) == (
        reply_to("prompt 1"),
        reply_to("prompt 2"),
    )
    assert len(server.requests) == 3


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (
            error(401, f"bad key {SECRET}"),
            "no access to the model 'the-model' .*HTTP 401.* OPENAI_API_KEY",
        ),
        (error(403), "no access to the model 'the-model'"),
        (error(404, "no such model"), "no model 'the-model' there.* /v1 .HTTP 404: no such model"),
        (error(429, code="insufficient_quota", headers=SOON), "no access .* its account"),
        (error(400, "use 1", param="temperature"), "refuses the setting temperature .*use 1"),
    ],
)
def test_what_no_other_prompt_would_cure_is_one_line_at_once(answer, message, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    with ProtocolServer(always(answer)) as server:
        with pytest.raises(InputError, match=message) as caught:
            list(annotator(server.url, concurrency=4).complete(requests(50)))
        assert str(caught.value).startswith(f"{server.url}: ")
        assert len(server.requests) <= 4 * 3
    assert SECRET not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_key_is_never_shown(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    completions, _ = ask(always(error(400, f"you sent {SECRET}\nand so on " + "x" * 999)))
    assert completions["k0"].failure.startswith("HTTP 400: you sent *** and so on xxx")
    assert len(completions["k0"].failure) < 250
    shown = annotator(GONE)
    assert SECRET not in repr(vars(shown))


def test_no_server_is_one_line():
    with pytest.raises(InputError, match=r"http://127\.0\.0\.1:9/v1: cannot be reached"):
        list(annotator(GONE, max_retries=0).complete(requests(5)))


def test_a_server_that_goes_away_ends_the_run_after_what_it_answered():
    completions = []
    with ProtocolServer() as server:
        answers = annotator(server.url, concurrency=1, max_retries=0).complete(requests(9))
        completions += itertools.islice(answers, 3)
    with pytest.raises(InputError, match="cannot be reached"):
        completions.extend(answers)
    assert 3 <= len(completions) <= 4


def test_a_server_that_fails_everything_ends_the_run():
    with (
        ProtocolServer(always(error(500, "broken"))) as server,
        pytest.raises(InputError, match=r"32 prompts in a row got no reply .*HTTP 500: broken"),
    ):
        list(annotator(server.url, max_retries=0).complete(requests(1000)))
    assert len(server.requests) < 100


def test_no_more_requests_at_once_than_allowed():
    with ProtocolServer(delay=0.02) as server:
        list(annotator(server.url, concurrency=5).complete(requests(40)))
    assert server.most_at_once == 5


def test_requests_are_taken_as_they_are_needed_and_closing_ends_all():
    taken = []
    endless = (taken.append(n) or Request(f"k{n}", f"p{n}", "i") for n in itertools.count())
    with ProtocolServer(lambda n, _: Answer(b"", stall=0.5) if n > 20 else None) as server:
        answers = annotator(server.url, concurrency=4).complete(endless)
        assert len(list(itertools.islice(answers, 6))) == 6
        answers.close()
    assert len(taken) <= 6 + 4
    assert "openai-server" not in [thread.name for thread in threading.enumerate()]


def test_it_works_where_an_event_loop_runs_already():
    async def notebook():
        with ProtocolServer() as server:
            return list(annotator(server.url).complete(requests(3)))

    assert len(asyncio.run(notebook())) == 3


def test_a_server_that_refuses_every_prompt_is_not_asked_for_ever():
    message = "'max_context' is not supported with this model"
    with pytest.raises(
        InputError, match=r"prompts in a row got no reply \(HTTP 400: 'max_context'"
    ):
        ask(lambda *_: error(400, message), 500)


def test_the_hosted_server_needs_a_key(monkeypatch):
    with pytest.raises(
        InputError, match=r"https://api\.openai\.com/v1: needs a key.*OPENAI_API_KEY"
    ):
        list(OpenAIAnnotator("m").complete([]))  # to plan needs none
    monkeypatch.setenv("OPENAI_API_KEY", "schl\u00fcssel")
    with pytest.raises(InputError, match="OPENAI_API_KEY holds characters"):
        OpenAIAnnotator("m")
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    assert OpenAIAnnotator("m")._arguments()["max_completion_tokens"] == 512


@pytest.mark.parametrize(
    "url", ["localhost:8000/v1", "ftp://host/v1", "http://", "http://host:port/v1", "8000"]
)
def test_an_address_that_is_none(url):
    with pytest.raises(
        InputError, match=f"address '{url}' cannot be used: give --llm.base-url such as http"
    ):
        annotator(url)


def test_a_password_in_the_address_is_not_shown():
    with pytest.raises(InputError) as caught:
        list(annotator("http://me:hush@127.0.0.1:9/v1", max_retries=0).complete(requests(1)))
    assert str(caught.value).startswith("http://127.0.0.1:9/v1: cannot be reached")
    with pytest.raises(InputError) as caught:
        annotator("me:hush@host/v1")
    assert "hush" not in str(caught.value)


def test_the_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(InputError, match=r"pip install 'jaxsim-recsys\[openai\]'"):
        OpenAIAnnotator("m", GONE)
