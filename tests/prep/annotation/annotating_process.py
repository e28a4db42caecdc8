"""A process that annotates, for tests that kill it; forked from one that has imported everything."""

import multiprocessing
from multiprocessing.process import BaseProcess
from pathlib import Path

import openai

from prep.annotation.annotators.base import Sampling
from prep.annotation.annotators.openai_server import OpenAIAnnotator
from prep.annotation.run import AnnotationReport, run
from prep.annotation.store import ReplyStore
from prep.annotation.tasks import Task

CONCURRENCY = 4

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["pytest", __name__])
# The client imports most of itself when it is first used: once here, in place of once a process.
_ = openai.AsyncOpenAI(api_key="none").chat.completions.with_raw_response


def make_tasks(count: int) -> list[Task]:
    """T_obj and, every fifth, T_sub; of ten prompts the ninth and the tenth are the same."""
    tasks = []
    for number in range(count):
        prompt = f"prompt {number - (number % 10 == 9)}\nand more"
        if number % 5:
            tasks.append(Task("T_obj", f"i{number}", None, prompt, ("pos", "neg")))
        else:
            tasks.append(Task("T_sub", f"i{number}", f"u{number}", prompt, ("neg",)))
    return tasks


def annotate(url: str, store: Path, count: int) -> AnnotationReport:
    """Ask the server about `count` tasks."""
    annotator = OpenAIAnnotator(
        "m", url, sampling=Sampling(max_tokens=99), concurrency=CONCURRENCY, timeout=60.0
    )
    with ReplyStore(store) as opened:
        return run(make_tasks(count), annotator, opened)


def start(url: str, store: Path, count: int) -> BaseProcess:
    """Do the same in a process of its own."""
    process = _context.Process(target=annotate, args=(url, store, count), daemon=True)
    process.start()
    return process
