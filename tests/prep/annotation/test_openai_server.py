import asyncio
import importlib.util
import itertools
import sys
import threading
import time
from email.utils import formatdate

import pytest

from jaxsim import InputError
from prep.annotation.annotators import rate_limits
from prep.annotation.annotators.base import Completion, Request, Sampling
from prep.annotation.annotators.openai_server import OpenAIAnnotator
from tests.prep.annotation.openai_protocol_server import (
    HTML,
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
GONE = "http://127.0.0.1:9/v1"  # nothing listens at the port of the discard protocol


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)


def annotator(url, **settings):
    settings = {"retries": 2, "backoff": 0.001, "timeout": 60.0} | settings
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
    found, server = ask(misbehaving, 60, concurrency=8, retries=20)
    assert found == {
        request.key: Completion(request.key, reply_to(request.prompt), None, 11, 7)
        for request in requests(60)
    }
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
    said = {
        name: server.requests[0].get(name)
        for name in ("temperature", "top_p", "seed", "max_tokens")
    }
    assert said == {"temperature": 0.7, "top_p": 0.9, "seed": 5, "max_tokens": 100}


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
    found, server = ask(always(answer))
    assert found == {"k0": expected}
    assert len(server.requests) == 1


TROUBLES = {
    "500": error(500),
    "503": error(503, headers={"retry-after": "0"}),
    "529": error(529),
    "408": error(408),
    "409": error(409),
    "429": error(429, headers={"retry-after-ms": "1"}),
    "429 bare": error(429),
    "an error that is no JSON": Answer(b"oops", 502),
    "reset": Answer(b"", reset=True),
    "cut body": Answer(chat_completion("never"), cut_at=40),
    "HTML": HTML,
    "half JSON": Answer(b'{"choices": [{"mess'),
    "nothing": Answer(b""),
    "null": Answer(b"null"),
    "deep": Answer(b"[" * 100_000),
    "no choices": body(choices=[]),
    "choices null": body(choices=None),
    "content no text": Answer(chat_completion({"a": 1})),
    "other JSON": Answer({"hello": "world"}),
}


@pytest.mark.parametrize("trouble", TROUBLES.values(), ids=TROUBLES.keys())
def test_passing_troubles_are_tried_again(trouble):
    found, server = ask(first(trouble, trouble))
    assert found["k0"].text == reply_to("prompt 0")
    assert len(server.requests) == 3


@pytest.mark.parametrize(
    ("trouble", "reason"),
    [
        (error(500, "overloaded"), "HTTP 500: overloaded, 3 times"),
        (HTML, "the answer is not a chat completion in JSON, 3 times"),
        (Answer(b"", reset=True), "3 times"),
    ],
)
def test_lasting_troubles_of_one_prompt_are_its_failure_alone(trouble, reason):
    def script(number, request):
        return trouble if request["messages"][0]["content"] == "prompt 1" else None

    found, server = ask(script, 4, concurrency=2)
    assert found["k1"].text is None
    assert reason in found["k1"].failure
    assert sum(each.text is not None for each in found.values()) == 3
    assert len(server.requests) == 3 + 3


def test_a_stall_ends_at_the_time_limit():
    stall = Answer(b"", stall=1.0)
    found, _ = ask(lambda n, r: stall if r["messages"][0]["content"] == "prompt 0" else None, 2,
                   timeout=0.2, retries=1)  # fmt: skip
    assert found["k0"].failure == "no answer within 0.2 seconds, 2 times"


@pytest.mark.parametrize("status", [400, 413, 422])
def test_a_prompt_that_is_refused_is_a_failure_at_once(status):
    answer = error(status, f"This model's maximum context length is 9 ({SECRET})", param="messages")
    found, server = ask(first(answer), 3, concurrency=1)
    assert found["k0"].failure.startswith(
        f"HTTP {status}: This model's maximum context length is 9"
    )
    assert (found["k1"].text, found["k2"].text) == (reply_to("prompt 1"), reply_to("prompt 2"))
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
        (error(429, code="insufficient_quota"), "no access .* its account"),
        (error(400, "use 1", param="temperature"), "refuses the setting temperature .*use 1"),
        (error(429, headers={"retry-after": "90000"}), "asks to wait 90,000 seconds"),
    ],
)
def test_what_no_other_prompt_would_cure_is_one_line_at_once(answer, message, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    with ProtocolServer(always(answer)) as server:
        with pytest.raises(InputError, match=message) as caught:
            list(annotator(server.url, concurrency=4).complete(requests(50)))
        assert str(caught.value).startswith(f"{server.url}: ")
        assert len(server.requests) <= 4
    assert SECRET not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_key_is_never_shown(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    found, _ = ask(always(error(400, f"you sent {SECRET}\nand so on " + "x" * 999)))
    assert found["k0"].failure.startswith("HTTP 400: you sent *** and so on xxx")
    assert len(found["k0"].failure) < 250
    shown = annotator(GONE)
    assert SECRET not in repr(vars(shown))


def test_no_server_is_one_line():
    with pytest.raises(InputError, match=r"http://127\.0\.0\.1:9/v1: cannot be reached"):
        list(annotator(GONE).complete(requests(5)))


def test_a_server_that_goes_away_ends_the_run_after_what_it_answered():
    found = []
    with ProtocolServer() as server:
        answers = annotator(server.url, concurrency=1).complete(requests(9))
        found += itertools.islice(answers, 3)
    with pytest.raises(InputError, match="cannot be reached"):
        found.extend(answers)
    assert 3 <= len(found) <= 4


def test_a_server_that_fails_everything_ends_the_run():
    with (
        ProtocolServer(always(error(500, "broken"))) as server,
        pytest.raises(InputError, match=r"32 prompts in a row got no reply .*HTTP 500: broken"),
    ):
        list(annotator(server.url, retries=0).complete(requests(1000)))
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


def arrivals(script, count, **settings):
    """When the requests came."""
    times = []

    def timed(number, request):
        times.append(time.monotonic())
        return script(number, request)

    ask(timed, count, **settings)
    return times


def test_all_wait_when_one_is_told_to():
    # Two go out at once; the first is told to wait, and nothing more is sent meanwhile.
    refused = error(429, headers={"retry-after": "0.3"})
    times = arrivals(first(refused), 6, concurrency=2)
    assert len(times) == 7
    assert times[2] - times[0] >= 0.3 or times[3] - times[0] >= 0.3


@pytest.mark.parametrize("reset", ["300ms", "0.3s", "0.3"])
def test_all_wait_when_nothing_remains_until_the_reset(reset):
    headers = {"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": reset}
    used_up = Answer(chat_completion("last"), headers=headers)
    times = arrivals(first(used_up), 3, concurrency=1)
    assert times[1] - times[0] >= 0.3


def test_a_queue_is_no_failure_as_long_as_others_get_through():
    found, server = ask(
        lambda number, _: None if number % 4 == 0 else error(429, headers={"retry-after-ms": "1"}),
        30,
        concurrency=4,
        retries=8,
    )
    assert all(each.text is not None for each in found.values())
    assert len(server.requests) > 60


def test_a_server_that_refuses_every_prompt_is_not_asked_for_ever():
    message = "'max_context' is not supported with this model"
    with pytest.raises(
        InputError, match=r"prompts in a row got no reply \(HTTP 400: 'max_context'"
    ):
        ask(lambda *_: error(400, message), 500)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "2"}, 2.0),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "-1"}, None),
        ({"retry-after": formatdate(1_000_060, usegmt=True)}, 60.0),
        ({"retry-after": formatdate(999_000, usegmt=True)}, 0.0),
        ({"retry-after-ms": "250", "retry-after": "9"}, 0.25),
    ],
)
def test_seconds_to_wait_before_a_retry(headers, seconds, monkeypatch):
    monkeypatch.setattr(rate_limits.time, "time", lambda: 1_000_000.0)
    assert rate_limits.retry_after(headers) == seconds


@pytest.mark.parametrize(
    ("remaining", "reset", "seconds"),
    [
        ("0", "6m0s", 360.0),
        ("0", "1h2m3.5s", 3723.5),
        ("0", "20ms", 0.02),
        ("0", "7", 7.0),
        ("0", "1700000007", 7.0),
        ("0", "1700000007000", 7.0),
        ("0", "1600000000", 0.0),
        ("0", "", 0.0),
        ("0", "later", 0.0),
        ("1", "6m0s", 0.0),
        ("none", "6m0s", 0.0),
    ],
)
def test_seconds_until_the_reset(remaining, reset, seconds, monkeypatch):
    monkeypatch.setattr(rate_limits.time, "time", lambda: 1_700_000_000.0)
    for suffix in ("", "-requests", "-tokens"):
        headers = {f"x-ratelimit-remaining{suffix}": remaining, f"x-ratelimit-reset{suffix}": reset}
        assert rate_limits.until_reset(headers) == seconds
    plenty = {"x-ratelimit-remaining-a": "5", "x-ratelimit-reset-a": "99s"}
    assert rate_limits.until_reset(headers | plenty) == seconds


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
        InputError, match=f"address '{url}' is none: give --llm.base-url such as http"
    ):
        annotator(url)


def test_a_password_in_the_address_is_not_shown():
    with pytest.raises(InputError) as caught:
        list(annotator("http://me:hush@127.0.0.1:9/v1", retries=0).complete(requests(1)))
    assert str(caught.value).startswith("http://127.0.0.1:9/v1: cannot be reached")
    with pytest.raises(InputError) as caught:
        annotator("me:hush@host/v1")
    assert "hush" not in str(caught.value)


def test_the_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(InputError, match=r"pip install 'jaxsim-recsys\[openai\]'"):
        OpenAIAnnotator("m", GONE)
