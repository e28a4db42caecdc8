"""A language model asked online how a user would judge an item, as in SUBER (Corecco et al. 2024).

The paper's simulator asks a language model about items, once. SUBER asks one about each recommendation: it
describes the user, here by their latest ratings in words, and the item, and asks for a rating, here a number from
0 to 99 for how probable it is that the user likes the item. The prompt is in our own words. Any annotator can be
asked; each answer is stored, so that nothing is asked twice. `RecordedScores` answers from a file without any
model.
"""

import hashlib
import json
import re
import threading
from collections.abc import Generator, Iterable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from jaxsim import Dataset, InputError
from prep.annotation.annotators.base import Annotator, Completion, Request, Sampling
from prep.annotation.prompts import ItemFacts, clean, clipped, fenced, introduction, item_lines
from prep.annotation.store import ModelSettings, ReplyStore
from prep.annotation.tasks import Task

PROMPT_NAME, PROMPT_VERSION = "T_online", "online-1"
MAX_SCORE = 99
_RATING_TOKENS = 48  # of one rating in the description of the user
_THOUGHT = re.compile(r"<think>.*?</think>", re.DOTALL | re.IGNORECASE)
_NUMBER = re.compile(r"(?<![\d.,-])\d{1,2}(?![\d]|[.,]\d)")


class Rating(NamedTuple):
    """An item that the user has judged before, and whether they liked it."""

    item: ItemFacts
    liked: bool


def t_online(item: ItemFacts, ratings: Sequence[Rating], noun: str) -> str:
    """Ask how probable it is that a user likes an item.

    Args:
        item: the item.
        ratings: what the user has judged before, the oldest first.
        noun: what the domain calls an item, such as "movie".
    """
    noun = clean(noun)
    history = [
        f"{'liked' if rating.liked else 'did not like'}: {_in_brief(rating.item)}"
        for rating in ratings
    ]
    return "\n\n".join(
        (
            f"You put yourself in the place of one person and say whether they will like a {noun}.",
            introduction(
                f"lists what the person thought of others before, and describes the {noun}"
            ),
            fenced(
                "DATA",
                [
                    "What the person thought before, the oldest first:",
                    *(history or ["nothing is known"]),
                    "What they are offered now:",
                    *item_lines(item),
                ],
            ),
            f"Judge from what this person liked and did not like how probable it is that they like this {noun}. "
            f"Answer with one whole number from 0 (surely not) to {MAX_SCORE} (surely) and with nothing else.",
        )
    )


def _in_brief(item: ItemFacts) -> str:
    attributes = "; ".join(item.attributes.values())
    parts = (item.name or "unknown", attributes, "; ".join(item.categories))
    return clipped(" | ".join(part for part in parts if part), _RATING_TOKENS)


def score_of(reply: str) -> int | None:
    """The first whole number from 0 to 99 in a reply, thoughts left out; None if there is none."""
    found = _NUMBER.search(_THOUGHT.sub(" ", reply))
    return int(found[0]) if found else None


class RecordedScores:
    """Answers from a CSV file with columns user_id, item_id and score_0_99, behind the interface of an annotator.

    Attributes:
        table: the file's rows; ids are strings.
    """

    by_subject = True

    def __init__(self, path: Path, model: str = "recorded") -> None:
        """Read the file.

        Raises:
            InputError: it cannot be read, lacks a column, or has a score outside 0 to 99.
        """
        try:
            content = path.read_bytes()
            self.table = pd.read_csv(path, dtype={"user_id": str, "item_id": str})
        except (OSError, ValueError) as error:
            raise InputError(f"{path}: cannot be read as CSV ({error})") from None
        missing = {"user_id", "item_id", "score_0_99"} - set(self.table.columns)
        if missing:
            raise InputError(f"{path}: has no column {', '.join(sorted(missing))}")
        scores = pd.to_numeric(self.table["score_0_99"], errors="coerce")
        if not scores.between(0, MAX_SCORE).all():
            raise InputError(
                f"{path}: column score_0_99 has values that are not from 0 to {MAX_SCORE}"
            )
        pairs = zip(self.table["user_id"], self.table["item_id"], strict=True)
        self._scores = dict(zip(pairs, scores.astype(int), strict=True))
        self.model, self.sampling = model, Sampling()
        self.revision = f"sha256:{hashlib.sha256(content).hexdigest()}"

    def count_tokens(self, prompt: str) -> int | None:
        """None: no model reads the prompt."""
        return None

    def complete(self, requests: Iterable[Request]) -> Generator[Completion, None, None]:
        """Answer each request with what was recorded for its user and item."""
        for request in requests:
            score = self._scores.get((request.user_id or "", request.item_id))
            if score is None:
                yield Completion(request.key, None, "no recorded answer")
            else:
                yield Completion(request.key, str(score))


class OnlineScorer:
    """Asks a language model about users and items of a dataset, and remembers its answers.

    It may be called from any thread. One call is served at a time, with its questions side by side as far as the
    annotator goes.

    Attributes:
        calls: how many questions the annotator has answered.
    """

    def __init__(
        self,
        dataset: Dataset,
        annotator: Annotator,
        store: Path | None = None,
        noun: str = "item",
    ) -> None:
        """Prepare to ask.

        Args:
            dataset: whose items are described by name, attributes and categories.
            annotator: the language model, or recorded answers.
            store: file that keeps the replies (`prep.annotation.store`); None keeps them in memory only.
            noun: what the domain calls an item.
        """
        self._annotator, self._store, self._noun = annotator, store, noun
        self._items = [str(x) for x in dataset.items["item_id"]]
        self._users = [str(x) for x in dataset.users["user_id"]]
        self._facts = _facts(dataset)
        by_subject = getattr(annotator, "by_subject", False)
        self._settings = ModelSettings(
            PROMPT_VERSION, annotator.model, annotator.revision, annotator.sampling, by_subject
        )
        self._known: dict[str, int] = {}
        self._lock = threading.Lock()
        self.calls = 0

    def probabilities(
        self, user: np.ndarray, items: np.ndarray, likes: np.ndarray, candidate: np.ndarray
    ) -> np.ndarray:
        """The probability of a like that the model states, float32[B]: (score + 1/2) / 100.

        Args:
            user: int[B]; -1 for an unknown user.
            items: int[B, L], histories, the oldest first, -1 pads anywhere.
            likes: int[B, L], 1 like, any other number no like.
            candidate: int[B].

        Raises:
            InputError: the model gave no answer, or one without a number from 0 to 99.
        """
        tasks = [self._task(*row) for row in zip(user, items, likes, candidate, strict=True)]
        keys = [self._settings.key(task) for task in tasks]
        with self._lock:
            new = {k: t for k, t in zip(keys, tasks, strict=True) if k not in self._known}
            if new:
                self._ask(new)
            scores = [self._known[key] for key in keys]
        return ((np.array(scores, np.float32) + 0.5) / (MAX_SCORE + 1)).astype(np.float32)

    def _task(self, user: int, items: np.ndarray, likes: np.ndarray, candidate: int) -> Task:
        ratings = [
            Rating(self._facts[i], bool(y > 0)) for i, y in zip(items, likes, strict=True) if i >= 0
        ]
        prompt = t_online(self._facts[candidate], ratings, self._noun)
        user_id = self._users[user] if user >= 0 else None
        return Task(PROMPT_NAME, self._items[candidate], user_id, prompt, ())

    def _ask(self, tasks: dict[str, Task]) -> None:
        """Get the scores of new questions, from the store or else from the model."""
        # SQLite ties a connection to its thread, and JAX calls from threads of its own: open it for each call.
        with nullcontext() if self._store is None else ReplyStore(self._store) as store:
            if store is not None:
                store.add_prompts(self._settings, {key: [task] for key, task in tasks.items()})
                for key, replies in store.replies(tasks).items():
                    for reply in replies:
                        self._remember(reply._replace(key=key))
            waiting = {key: task for key, task in tasks.items() if key not in self._known}
            requests = (Request(k, t.prompt, t.item_id, t.user_id) for k, t in waiting.items())
            for completion in self._annotator.complete(requests) if waiting else ():
                if completion.text is not None:
                    self.calls += 1
                    if store is not None:
                        completion = store.add_reply(completion.key, completion)
                self._remember(completion)
                if completion.key not in self._known:
                    raise InputError(_no_answer(waiting[completion.key], completion))
        left_out = [task for key, task in waiting.items() if key not in self._known]
        if left_out:
            raise InputError(_no_answer(left_out[0], None))

    def _remember(self, completion: Completion) -> None:
        score = score_of(completion.text or "")
        if score is not None:
            self._known[completion.key] = score


def _no_answer(task: Task, completion: Completion | None) -> str:
    """What to say of a question without a score."""
    about = f"item {task.item_id} for user {task.user_id or 'unknown'}"
    if completion is None or completion.text is None:
        reason = "left out" if completion is None else completion.failure
        return f"the language model gave no answer about {about}: {reason}"
    shown = " ".join(completion.text.split())[:60]
    return (
        f"the language model's answer about {about} has no number from 0 to {MAX_SCORE}: {shown!r}"
    )


def _facts(dataset: Dataset) -> list[ItemFacts]:
    """What a prompt says about each item."""
    columns = dataset.items.reindex(columns=["name", "categories", "attributes"])
    facts = []
    for name, categories, attributes in columns.itertuples(index=False):
        facts.append(
            ItemFacts(
                name=name if isinstance(name, str) else "",
                categories=() if isinstance(categories, float | None) else tuple(categories),
                attributes=json.loads(attributes) if isinstance(attributes, str) else {},
            )
        )
    return facts
