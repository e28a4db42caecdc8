import itertools
import json
import threading
import time
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxsim import InputError
from prep.annotation import run as annotation
from prep.annotation.annotators.base import Completion, Sampling
from prep.annotation.annotators.replay import ReplayAnnotator
from prep.annotation.prompts import estimate_tokens
from prep.annotation.run import ATTEMPTS, TOKENS_OUT, Task
from prep.annotation.store import ReplyStore
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


@pytest.fixture
def path(tmp_path):
    return tmp_path / "replies.sqlite"


@pytest.fixture
def store(path):
    with ReplyStore(path) as opened:
        yield opened


def claims(store):
    return store._db.execute("SELECT count(*) FROM claims").fetchone()[0]


def test_every_task_gets_its_reply_in_the_order_of_the_tasks(store):
    model = Script({"prompt 1": [reply_text(["a"], ["b"])], "review": [reply_text(["c"], [])]})
    tasks = [task(2), task(1), task(1, "review", "u")]
    report = annotation.run(iter(tasks), model, store)
    assert [tuple(each) for each in report.replies()] == [
        ("i2", None, GOOD, False),
        ("i1", None, reply_text(["a"], ["b"]), False),
        ("i1", "u", reply_text(["c"], []), False),
    ]
    assert [(r.prompt, r.item_id, r.user_id) for r in model.asked] == [
        (each.prompt, each.item_id, each.user_id) for each in tasks
    ]
    assert (report.tasks, report.usable, report.unparseable, report.failed) == (3, 3, 0, 0)
    assert (report.received, report.stored_before) == (3, 0)
    assert (report.tokens_in, report.tokens_out) == (30, 12)
    assert report.notes() == []
    assert claims(store) == 0
    report.check()


def test_the_next_run_asks_for_nothing_and_does_not_even_start_the_model(store):
    tasks = [task(n) for n in range(200)]
    first = annotation.run(tasks, Script(), store)
    silent = Script()
    second = annotation.run(tasks, silent, store)
    assert not silent.asked
    assert not silent.closed
    assert second.stored_before == second.usable == 200
    assert list(second.replies()) == list(first.replies())


def test_equal_prompts_are_asked_once_and_answer_all(store):
    tasks = [task(n, "the same") for n in range(150)] + [task(999, "another")]
    model = Script()
    report = annotation.run(tasks, model, store)
    assert model.prompts == ["the same", "another"]
    assert [reply.item_id for reply in report.replies()] == [each.item_id for each in tasks]
    assert report.usable == 151
    assert {record.prompt: len(record.subjects) for record in store.records()} == {
        "the same": 150,
        "another": 1,
    }


def test_an_unparseable_reply_is_kept_and_asked_again_with_a_note(store):
    model = Script({"prompt 0": [RUBBISH, GOOD]})
    report = annotation.run([task(0)], model, store)
    first, second = model.prompts
    assert first == "prompt 0"
    assert second.startswith("prompt 0\n")
    assert RUBBISH in second
    assert "no Pros in it" in second
    assert [record.reply for record in store.records()] == [RUBBISH, GOOD]
    assert [record.prompt for record in store.records()] == ["prompt 0"] * 2
    assert [reply.text for reply in report.replies()] == [GOOD]
    assert (report.usable, report.received) == (1, 2)


def test_what_never_parses_is_given_up_reported_and_not_asked_again(store):
    model = Script({"prompt 0": [RUBBISH] * 9})
    report = annotation.run([task(0), task(1)], model, store)
    assert len(model.asked) == ATTEMPTS + 1
    assert (report.usable, report.unparseable, report.failed) == (1, 1, 0)
    assert [reply.item_id for reply in report.replies()] == ["i1"]
    (note,) = report.notes()
    assert note.startswith("1 of 2 prompts got no reply that could be used")
    assert "item i0: no Pros in it" in note
    report.check()
    again = Script()
    assert annotation.run([task(0), task(1)], again, store).unparseable == 1
    assert not again.asked
    assert annotation.run([task(0), task(1)], again, store, attempts=ATTEMPTS + 1).usable == 2
    assert len(again.asked) == 1


def test_failures_are_not_stored_and_the_next_run_asks_for_just_these(store):
    model = Script({"prompt 3": [None], "prompt 7": [None]})
    tasks = [task(n) for n in range(10)]
    report = annotation.run(tasks, model, store)
    assert (report.usable, report.failed) == (8, 2)
    with pytest.raises(InputError) as caught:
        report.check()
    assert str(caught.value) == (
        "2 of 10 prompts got no reply (item i3: the server is on strike): run the same command again to ask "
        "for just these"
    )
    assert len(list(store.records())) == 8
    assert claims(store) == 0
    again = Script()
    assert annotation.run(tasks, again, store).usable == 10
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
    annotation.run([task(0)], Script(), store)
    annotation.run([task(0)], other, store)
    assert len(other.asked) == 1


def test_replies_to_another_version_of_the_prompts_are_not_taken(store, monkeypatch):
    annotation.run([task(0)], Script(), store)
    monkeypatch.setattr(annotation, "PROMPT_VERSION", "next")
    model = Script()
    annotation.run([task(0)], model, store)
    assert len(model.asked) == 1
    assert {record.prompt_version for record in store.records()} == {"1", "next"}


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
        annotation.run(endless, model, store)
    assert len(taken) <= 100 + 64
    assert len(list(store.records())) == 100
    assert claims(store) == 0
    assert model.closed == 1


def test_an_interrupt_keeps_what_came_and_says_how_to_go_on(path, store, capsys):
    class Interrupted(Script):
        def answer(self, request):
            if len(self.asked) == 4:
                raise KeyboardInterrupt
            return super().answer(request)

    with pytest.raises(KeyboardInterrupt):
        annotation.run([task(n) for n in range(9)], Interrupted(), store)
    assert capsys.readouterr().err.splitlines()[-1] == (
        f"3 new replies are stored in {path}; run the same command again to go on"
    )
    assert claims(store) == 0
    model = Script()
    assert annotation.run([task(n) for n in range(9)], model, store).usable == 9
    assert len(model.asked) == 6


def test_a_model_that_leaves_out_prompts_or_answers_twice(store):
    class Sloppy(Script):
        def complete(self, requests):
            for request in requests:
                if request.item_id != "i1":
                    yield Completion(request.key, GOOD)
                    yield Completion(request.key, RUBBISH)

    report = annotation.run([task(n) for n in range(3)], Sloppy(), store)
    assert (report.usable, report.failed) == (2, 1)
    assert report.first_failure == "item i1: the language model left it out"
    assert [record.reply for record in store.records()] == [GOOD, GOOD]


def test_an_annotator_may_take_requests_in_another_thread(store):
    class Threaded(Script):
        def complete(self, requests):
            taken = []
            thread = threading.Thread(target=lambda: taken.extend(requests))
            thread.start()
            thread.join()
            yield from map(self.answer, taken)

    assert annotation.run([task(n) for n in range(200)], Threaded(), store).usable == 200


def other_claims(path, asked_of, tasks):
    other = ReplyStore(path)
    other.claim(asked_of, {asked_of.key(each.prompt): [each] for each in tasks})
    return other


def test_what_another_process_asks_is_waited_for_and_taken_from_the_store(path, store):
    model, tasks = Script(), [task(n) for n in range(5)]
    asked_of = annotation.asked_of(model)
    keys = [asked_of.key(each.prompt) for each in tasks]
    other = other_claims(path, asked_of, tasks[:2])

    def answer_later():
        time.sleep(0.3)
        other.add_reply(keys[0], Completion("", GOOD), release=True)
        time.sleep(0.3)
        other.close()  # gives up the second one

    thread = threading.Thread(target=answer_later)
    thread.start()
    report = annotation.run(tasks, model, store)
    thread.join()
    assert model.prompts == ["prompt 2", "prompt 3", "prompt 4", "prompt 1"]
    assert report.usable == 5
    assert [reply.item_id for reply in report.replies()] == [each.item_id for each in tasks]


def test_an_attempt_that_another_process_made_counts(path, store):
    model = Script()
    asked_of = annotation.asked_of(model)
    with other_claims(path, asked_of, [task(0)]) as other:
        other.add_reply(asked_of.key("prompt 0"), Completion("", RUBBISH), release=False)
    annotation.run([task(0)], model, store, attempts=2)
    assert RUBBISH in model.prompts[0]
    assert [record.attempt for record in store.records()] == [1, 2]


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
            report = annotation.run(
                [task(number) for number in range(len(fates))], model, store, attempts
            )
        kept = {prompt: [] for prompt in expected}
        for record in store.records():
            kept[record.prompt].append(record.reply)
        assert claims(store) == 0
    asked = Counter(prompt.partition("\n")[0] for prompt in model.prompts)
    assert {prompt: (kept[prompt], asked[prompt]) for prompt in expected} == expected
    good = sum(GOOD in texts for texts in kept.values())
    given_up = sum(GOOD not in texts and len(texts) == attempts for texts in kept.values())
    assert (report.usable, report.unparseable) == (good, given_up)
    assert report.failed == len(fates) - good - given_up


def test_a_plan_counts_calls_tokens_and_cost_without_asking(store):
    model = Script({"prompt 0": [RUBBISH] * 3, "prompt 1": [RUBBISH, None]}, tokens=7)
    annotation.run([task(0), task(1), task(2)], model, store)
    asked = len(model.asked)
    reviews = [task(n, f"review {n // 2}", "u") for n in range(4)]
    plan = annotation.plan([*(task(n) for n in range(5)), *reviews], model, store)
    assert len(model.asked) == asked
    t_obj, t_sub = plan.prompts
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
    assert (plan.calls, plan.tokens_in) == (5, 35)
    assert plan.cost(2e6, 1e6) == 2 * plan.tokens_in + plan.tokens_out
    *each, together = plan.lines(2e6, 1e6)
    assert [line.partition(":")[0] for line in each] == ["T_obj", "T_sub"]
    assert f"cost {2 * plan.tokens_in + plan.tokens_out:,.2f} at 2e+06 and 1e+06" in together


def test_a_plan_without_a_store_or_a_tokenizer_estimates():
    prompts = [f"What of number {n} and the rest?" for n in range(5)]
    plan = annotation.plan([task(n, text) for n, text in enumerate(prompts)], Script(), None)
    (t_obj,) = plan.prompts
    assert t_obj.tokens_in == sum(map(estimate_tokens, prompts))
    assert t_obj.tokens_in_from == "estimated"
    short = Script(sampling=Sampling(max_tokens=30))
    assert annotation.plan([task(0)], short, None).tokens_out == 30


def test_a_plan_of_very_many_prompts_counts_a_sample():
    class Counting(Script):
        counted = 0

        def count_tokens(self, prompt):
            self.counted += 1
            return len(prompt) // 2

    model = Counting()
    prompts = ["x" * (2 * (n % 7) + 100) + f"{n:06}" for n in range(5000)]
    (t_obj,) = annotation.plan(
        [task(n, text) for n, text in enumerate(prompts)], model, None
    ).prompts
    assert model.counted < 400
    assert t_obj.tokens_in_from == f"counted by the model on {model.counted} of them"
    assert t_obj.tokens_in == pytest.approx(sum(len(text) // 2 for text in prompts), rel=0.01)


def test_nothing_to_plan():
    plan = annotation.plan([], Script(), None)
    assert (plan.calls, plan.cost(1, 1)) == (0, 0)
    assert len(plan.lines(1, 1)) == 1


def test_recorded_replies_are_given_back_by_item_and_user(tmp_path, store):
    file = tmp_path / "recorded.jsonl"
    records = [
        {"item_id": "i0", "reply": f"{GOOD}.", "finish_reason": "length"},
        {"user_id": "u", "item_id": "i0", "reply": reply_text(["c"], [])},
    ]
    file.write_text("\n".join(map(json.dumps, records)))
    model = ReplayAnnotator([file], "Claude")
    report = annotation.run([task(0), task(0, "review", "u"), task(1)], model, store)
    assert [tuple(each) for each in report.replies()] == [
        ("i0", None, f"{GOOD}.", True),
        ("i0", "u", reply_text(["c"], []), False),
    ]
    with pytest.raises(InputError, match=r"1 of 3 prompts .*item i1: no recorded reply"):
        report.check()
    assert {record.model for record in store.records()} == {"Claude"}


def test_two_recorded_replies_to_the_same_prompt_are_refused(tmp_path):
    file = tmp_path / "recorded.jsonl"
    file.write_text('{"item_id": 1, "reply": "a"}\n' * 2 + '{"item_id": "1", "reply": "b"}\n')
    with pytest.raises(
        InputError, match=r"recorded\.jsonl:3: a second reply for item 1, .*jsonl:1"
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
    report = annotation.run(tasks, ReplayAnnotator(files), store, attempts=1)
    kept = {(each.item_id, each.user_id): each.text for each in report.replies()}
    assert report.failed == 0
    assert len(kept) == report.usable >= 0.97 * len(tasks)
    assert all(
        kept.get((e["item_id"], e.get("user_id")), e["reply"]) == e["reply"] for e in recorded
    )


def test_the_model_is_asked_under_its_own_name_and_version():
    model = Script(sampling=Sampling(seed=3))
    assert annotation.asked_of(model) == replace(
        annotation.asked_of(Script()), sampling=Sampling(seed=3)
    )
