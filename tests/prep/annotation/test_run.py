"""Runs: no prompt is asked twice, what does not parse is asked again, and every task is accounted for."""

import itertools
import json
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxsim import InputError
from prep.annotation import exchange
from prep.annotation.annotators.base import Completion, Sampling
from prep.annotation.annotators.replay import ReplayAnnotator
from prep.annotation.plan import TOKENS_OUT, plan
from prep.annotation.prompts import estimate_tokens
from prep.annotation.run import ATTEMPTS, run
from prep.annotation.store import ReplyStore
from prep.annotation.tasks import Task
from prep.replies.parser import parse_reply
from tests.paths import SAMPLES
from tests.prep.conftest import reply_text

GOOD = reply_text(["funny"], ["slow"])
RUBBISH = "I had rather not."
BOTH = ("pos", "neg")


def task(number, prompt=None, user=None):
    name = "T_obj" if user is None else "T_sub"
    return Task(
        name, f"i{number}", user, prompt or f"prompt {number}", BOTH if user is None else ("pos",)
    )


class Script:
    """Answers each prompt with what `replies` has for its first line, one after the other; None is a failure."""

    def __init__(self, replies=None, *, model="model", tokens=None, sampling=None):
        self.model, self.revision, self.sampling = model, "", sampling or Sampling()
        self.replies = {prompt: list(texts) for prompt, texts in (replies or {}).items()}
        self.tokens = tokens
        self.asked = []
        self.closed = 0

    def count_tokens(self, prompt):
        return self.tokens

    def complete(self, requests):
        try:
            for request in requests:
                self.asked.append(request)
                yield self.answer(request)
        finally:
            self.closed += 1

    def answer(self, request):
        texts = self.replies.get(request.prompt.partition("\n")[0], [])
        text = texts.pop(0) if texts else GOOD
        if text is None:
            return Completion(request.key, None, "the server is on strike")
        return Completion(request.key, text, None, 10, 4)

    @property
    def prompts(self):
        return [request.prompt for request in self.asked]


def ask(tasks, annotator, store, **settings):
    """The report of a run, and the replies that it handed on."""
    replies = []
    report = run(tasks, annotator, store, replies.append, **settings)
    return report, replies


def stored(store):
    """Prompt -> its replies, in the order of the attempts."""
    rows = store._db.execute(
        "SELECT key, reply FROM replies JOIN prompts ON id = prompt_id ORDER BY id, attempt"
    )
    texts = {}
    for key, text in rows:
        texts.setdefault(key, []).append(text)
    return texts


def test_every_task_gets_its_reply_in_the_order_of_the_tasks(store):
    model = Script({"prompt 1": [reply_text(["a"], ["b"])], "review": [reply_text(["c"], [])]})
    tasks = [task(2), task(1), task(1, "review", "u")]
    report, replies = ask(iter(tasks), model, store)
    assert [each[1:4] for each in replies] == [
        ("i2", GOOD, None),
        ("i1", reply_text(["a"], ["b"]), None),
        ("i1", reply_text(["c"], []), "u"),
    ]
    for reply, each in zip(replies, tasks, strict=True):
        assert reply.parsed == parse_reply(reply.text, each.polarities)
    assert [(r.prompt, r.item_id, r.user_id) for r in model.asked] == [
        (each.prompt, each.item_id, each.user_id) for each in tasks
    ]
    assert (report.tasks, report.usable, report.unparseable, report.failed) == (3, 3, 0, 0)
    assert (report.received, report.stored_before) == (3, 0)
    assert (report.tokens_in, report.tokens_out) == (30, 12)
    assert report.notes() == []
    report.check()


def test_the_next_run_asks_for_nothing_and_does_not_even_start_the_model(store):
    tasks = [task(n) for n in range(200)]
    _, first = ask(tasks, Script(), store)
    silent = Script()
    report, second = ask(tasks, silent, store)
    assert not silent.asked
    assert not silent.closed
    assert report.stored_before == report.usable == 200
    assert second == first


def test_equal_prompts_are_asked_once_and_answer_all(store):
    tasks = [task(n, "the same") for n in range(150)] + [task(999, "another")]
    model = Script()
    report, replies = ask(tasks, model, store)
    assert model.prompts == ["the same", "another"]
    assert sorted(reply.item_id for reply in replies) == sorted(each.item_id for each in tasks)
    assert report.usable == 151
    (prompt,) = store.prompts_about("i149", None)
    assert prompt.prompt == "the same"


def test_an_unparseable_reply_is_kept_and_asked_again_with_a_note(store):
    model = Script({"prompt 0": [RUBBISH, GOOD]})
    report, replies = ask([task(0)], model, store)
    first, second = model.prompts
    assert first == "prompt 0"
    assert second.startswith("prompt 0\n")
    assert RUBBISH in second
    assert "no Pros in it" in second
    assert list(stored(store).values()) == [[RUBBISH, GOOD]]
    assert [reply.text for reply in replies] == [GOOD]
    assert (report.usable, report.received) == (1, 2)


def test_what_never_parses_is_given_up_reported_and_not_asked_again(store):
    model = Script({"prompt 0": [RUBBISH] * 9})
    report, replies = ask([task(0), task(1)], model, store)
    assert len(model.asked) == ATTEMPTS + 1
    assert (report.usable, report.unparseable, report.failed) == (1, 1, 0)
    assert [(reply.item_id, reply.parsed.problem) for reply in replies] == [
        ("i1", None),
        ("i0", "no Pros in it"),
    ]
    (note,) = report.notes()
    assert note.startswith("1 of 2 prompts got no reply that could be used")
    assert "item i0: no Pros in it" in note
    report.check()
    again = Script()
    assert run([task(0), task(1)], again, store).unparseable == 1
    assert not again.asked
    assert run([task(0), task(1)], again, store, attempts=ATTEMPTS + 1).usable == 2
    assert len(again.asked) == 1


def test_failures_are_not_stored_and_the_next_run_asks_for_just_these(store):
    model = Script({"prompt 3": [None], "prompt 7": [None]})
    tasks = [task(n) for n in range(10)]
    report = run(tasks, model, store)
    assert (report.usable, report.failed) == (8, 2)
    with pytest.raises(InputError) as caught:
        report.check()
    assert str(caught.value) == (
        "2 of 10 prompts got no reply (item i3: the server is on strike): run the same command again to ask "
        "for just these"
    )
    assert len(stored(store)) == 8
    again = Script()
    assert run(tasks, again, store).usable == 10
    assert again.prompts == ["prompt 3", "prompt 7"]


@pytest.mark.parametrize(
    "other",
    [
        Script(model="other"),
        Script(sampling=Sampling(temperature=0.5)),
        Script(sampling=Sampling(seed=1)),
    ],
)
def test_replies_of_another_model_or_sampling_are_not_taken(store, other):
    run([task(0)], Script(), store)
    run([task(0)], other, store)
    assert len(other.asked) == 1


def test_replies_to_another_version_of_the_prompts_are_not_taken(store, monkeypatch):
    run([task(0)], Script(), store)
    monkeypatch.setattr(exchange, "PROMPT_VERSION", "next")
    model = Script()
    run([task(0)], model, store)
    assert len(model.asked) == 1
    assert {row[1] for row in store.summary()} == {"1", "next"}


def test_tasks_are_taken_as_they_are_needed(store):
    class Stops(Script):
        def answer(self, request):
            if len(self.asked) > 100:
                raise InputError("enough")
            return super().answer(request)

    taken = []
    endless = (taken.append(n) or task(n) for n in itertools.count())
    model = Stops()
    with pytest.raises(InputError, match="enough"):
        run(endless, model, store)
    assert len(taken) <= 100 + 64
    assert len(stored(store)) == 100
    assert model.closed == 1


def test_an_interrupt_keeps_what_came_and_says_how_to_go_on(path, store):
    class Interrupted(Script):
        def answer(self, request):
            if len(self.asked) == 4:
                raise KeyboardInterrupt
            return super().answer(request)

    with pytest.raises(KeyboardInterrupt) as stop:
        run([task(n) for n in range(9)], Interrupted(), store)
    assert str(stop.value) == (
        f"3 new replies are stored in {path}; run the same command again to continue"
    )
    model = Script()
    assert run([task(n) for n in range(9)], model, store).usable == 9
    assert len(model.asked) == 6


def test_a_model_that_leaves_out_prompts_or_answers_twice(store):
    class Sloppy(Script):
        def complete(self, requests):
            for request in requests:
                if request.item_id != "i1":
                    yield Completion(request.key, GOOD)
                    yield Completion(request.key, RUBBISH)

    report = run([task(n) for n in range(3)], Sloppy(), store)
    assert (report.usable, report.failed) == (2, 1)
    assert report.first_failure == "item i1: the language model left it out"
    assert list(stored(store).values()) == [[GOOD], [GOOD]]


def test_equal_prompts_that_fail_are_asked_once(store):
    model = Script({"the same": [None] * 9})
    report = run([task(n, "the same") for n in range(100)], model, store)
    assert (len(model.asked), report.failed, report.tasks) == (1, 100, 100)


FATES = st.lists(st.sampled_from([GOOD, RUBBISH, None]), max_size=5)


@settings(max_examples=40)
@given(st.lists(FATES, min_size=1, max_size=8), st.integers(1, 3), st.integers(1, 3))
def test_any_course_of_events_gives_what_a_simple_account_says(
    tmp_path_factory, fates, attempts, runs
):
    """Each run goes through the replies of a prompt until one is good, none comes, or enough did."""
    expected = {}
    for number, fate in enumerate(fates):
        left, kept, asked = list(fate), [], 0
        for _ in range(runs):
            while GOOD not in kept and len(kept) < attempts:
                asked += 1
                text = left.pop(0) if left else GOOD
                if text is None:
                    break
                kept.append(text)
        expected[f"prompt {number}"] = (kept, asked)
    model = Script({f"prompt {number}": fate for number, fate in enumerate(fates)})
    with ReplyStore(tmp_path_factory.mktemp("any") / "replies.sqlite") as store:
        for _ in range(runs):
            tasks = [task(number) for number in range(len(fates))]
            report = run(tasks, model, store, attempts=attempts)
        settings_of_run = exchange.settings_of(model)
        kept = {
            f"prompt {number}": stored(store).get(settings_of_run.key(task(number)), [])
            for number in range(len(fates))
        }
        asked = Counter(prompt.partition("\n")[0] for prompt in model.prompts)
    assert {prompt: (kept[prompt], asked[prompt]) for prompt in expected} == expected
    good = sum(GOOD in texts for texts in kept.values())
    given_up = sum(GOOD not in texts and len(texts) == attempts for texts in kept.values())
    assert (report.usable, report.unparseable) == (good, given_up)
    assert report.failed == len(fates) - good - given_up


def test_a_plan_counts_calls_tokens_and_cost_without_asking(store):
    model = Script({"prompt 0": [RUBBISH] * 3, "prompt 1": [RUBBISH, None]}, tokens=7)
    run([task(0), task(1), task(2)], model, store)
    asked = len(model.asked)
    reviews = [task(n, f"review {n // 2}", "u") for n in range(4)]
    planned = plan([*(task(n) for n in range(5)), *reviews], model, store)
    assert len(model.asked) == asked
    t_obj, t_sub = planned.prompts
    assert (t_obj.prompt_name, t_obj.tasks, t_obj.stored, t_obj.unparseable, t_obj.calls) == (
        "T_obj", 5, 1, 1, 3,
    )  # fmt: skip
    assert (t_obj.tokens_in, t_obj.tokens_in_from) == (21, "counted by the model")
    assert (t_obj.tokens_out, t_obj.tokens_out_from) == (12, "4 a reply, as stored so far")
    assert (t_sub.tasks, t_sub.calls, t_sub.tokens_in) == (4, 2, 14)
    assert (t_sub.tokens_out, t_sub.tokens_out_from) == (
        2 * TOKENS_OUT["T_sub"],
        f"{TOKENS_OUT['T_sub']} a reply, assumed",
    )
    *each, together = planned.lines(2e6, 1e6)
    assert [line.partition(":")[0] for line in each] == ["T_obj", "T_sub"]
    tokens_out = t_obj.tokens_out + t_sub.tokens_out
    assert together.startswith(f"together: 5 calls, 35 tokens in, {tokens_out} tokens out; ")
    assert f"cost {2 * 35 + tokens_out:,.2f} at 2e+06 and 1e+06" in together


def test_a_plan_without_a_store_or_a_tokenizer_estimates():
    prompts = [f"What of number {n} and the rest?" for n in range(5)]
    planned = plan([task(n, text) for n, text in enumerate(prompts)], Script(), None)
    (t_obj,) = planned.prompts
    assert t_obj.tokens_in == sum(map(estimate_tokens, prompts))
    assert t_obj.tokens_in_from == "estimated"
    short = Script(sampling=Sampling(max_tokens=30))
    assert plan([task(0)], short, None).prompts[0].tokens_out == 30


def test_a_plan_of_very_many_prompts_counts_a_sample():
    class Counting(Script):
        counted = 0

        def count_tokens(self, prompt):
            self.counted += 1
            return len(prompt) // 2

    model = Counting()
    prompts = ["x" * (2 * (n % 7) + 100) + f"{n:06}" for n in range(5000)]
    (t_obj,) = plan([task(n, text) for n, text in enumerate(prompts)], model, None).prompts
    assert model.counted < 400
    assert t_obj.tokens_in_from == f"counted by the model on {model.counted} of them"
    assert t_obj.tokens_in == pytest.approx(sum(len(text) // 2 for text in prompts), rel=0.01)


def test_nothing_to_plan():
    planned = plan([], Script(), None)
    (line,) = planned.lines(1, 1)
    assert line.startswith("together: 0 calls")


def test_recorded_replies_are_given_back_by_item_and_user(tmp_path, store):
    file = tmp_path / "recorded.jsonl"
    records = [
        {"item_id": "i0", "reply": f"{GOOD}.", "finish_reason": "length"},
        {"user_id": "u", "item_id": "i0", "reply": reply_text(["c"], [])},
    ]
    file.write_text("\n".join(map(json.dumps, records)))
    model = ReplayAnnotator([file], "Claude")
    report, replies = ask([task(0), task(0, "review", "u"), task(1)], model, store)
    assert [each[1:5] for each in replies] == [
        ("i0", f"{GOOD}.", None, True),
        ("i0", reply_text(["c"], []), "u", False),
    ]
    with pytest.raises(InputError, match=r"1 of 3 prompts .*item i1: no recorded reply"):
        report.check()
    assert {row[2] for row in store.summary()} == {"Claude"}


def test_two_recorded_replies_to_the_same_prompt_are_refused(tmp_path):
    file = tmp_path / "recorded.jsonl"
    file.write_text('{"item_id": 1, "reply": "a"}\n' * 2 + '{"item_id": "1", "reply": "b"}\n')
    with pytest.raises(
        InputError, match=r"recorded\.jsonl:3: a second reply for item 1 that differs .*jsonl:1"
    ):
        ReplayAnnotator([file])


SAMPLE = SAMPLES / "amazon-2014"


@pytest.mark.skipif(not SAMPLE.is_dir(), reason="real excerpts are not here")
def test_real_replies_go_through_the_store_unchanged(store):
    files = [SAMPLE / "t_obj_replies.jsonl", SAMPLE / "t_sub_replies.jsonl"]
    recorded = [json.loads(line) for file in files for line in file.read_text("utf-8").splitlines()]
    tasks = [
        Task(
            "T_sub" if "user_id" in each else "T_obj",
            each["item_id"],
            each.get("user_id"),
            json.dumps(each),
            BOTH if "user_id" not in each else ("pos",) if "Pros" in each["reply"] else ("neg",),
        )
        for each in recorded
    ]
    report, replies = ask(tasks, ReplayAnnotator(files), store, attempts=1)
    texts = {(each.item_id, each.user_id): each.text for each in replies}
    assert report.usable >= 0.97 * len(tasks)
    assert texts == {(each["item_id"], each.get("user_id")): each["reply"] for each in recorded}
