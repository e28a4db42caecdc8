"""The parts of `python -m benchmarks all`: which commands, with which sizes, and how long each may take."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from jaxsim import InputError

CATALOGUES = (14_684, 65_019)
"""Items of the synthetic catalogues."""
CPU_PATIENCE = 4
"""How many times as long a part may take on a CPU."""


@dataclass(frozen=True)
class Part:
    """One command, run in a process of its own.

    Attributes:
        name: of the part, and of its files.
        module: `python -m MODULE`.
        arguments: of it, without `--json`.
        limit: seconds after which it is ended.
        kind: the command whose JSON it writes; empty if it writes none.
        needs: the part that must have succeeded before; empty if there is none.
    """

    name: str
    module: str
    arguments: tuple[str, ...]
    limit: float
    kind: str = ""
    needs: str = ""


@dataclass(frozen=True)
class Plan:
    """What is run.

    Attributes:
        dataset: name or path of a packed dataset.
        quick: fewer sizes, repeats and seeds.
        accelerator: whether the default device is something else than a CPU.
        scratch: folder for the synthetic datasets.
        python: options `--python` of `python -m benchmarks rivals`.
    """

    dataset: str
    quick: bool
    accelerator: bool
    scratch: Path
    python: tuple[str, ...] = field(default=())

    def choose(self, full: str, quick: str) -> tuple[str, ...]:
        """The words of one of two texts."""
        return tuple((quick if self.quick else full).split())


def parts_of(plan: Plan) -> list[Part]:
    """All parts, those that matter most first: a run that is short of time ends before the last ones."""
    builders: tuple[Callable[[Plan], Iterable[Part]], ...] = (
        _environment,
        _learning,
        _evaluation,
        _catalogues,
        _options,
        _comparisons,
    )
    patience = 1 if plan.accelerator else CPU_PATIENCE
    parts = [part for build in builders for part in build(plan)]
    return [replace(part, limit=patience * part.limit) for part in parts]


def chosen_parts(parts: list[Part], only: tuple[str, ...], skip: tuple[str, ...]) -> list[Part]:
    """The parts that are wanted, with those that they need. A name also stands for the parts `NAME-...`.

    Raises:
        InputError: a name that no part has, or nothing is left.
    """
    for option, names in (("only", only), ("skip", skip)):
        for name in names:
            if not any(_means(name, part) for part in parts):
                known = ", ".join(part.name for part in parts)
                raise InputError(f"--{option} {name}: no such part; choose from {known}")
    wanted = {
        part.name
        for part in parts
        if (not only or any(_means(name, part) for name in only))
        and not any(_means(name, part) for name in skip)
    }
    needed = {part.needs for part in parts if part.name in wanted}
    chosen = [part for part in parts if part.name in wanted | needed]
    if not chosen:
        raise InputError("--skip leaves no part to run")
    return chosen


def _means(name: str, part: Part) -> bool:
    return part.name == name or part.name.startswith(f"{name}-")


def _measurement(
    name: str, kind: str, dataset: str, arguments: Iterable[str], limit: float, needs: str = ""
) -> Part:
    words = (kind, "--dataset", dataset, *arguments)
    return Part(name, "benchmarks", words, limit, kind, needs)


def _environment(plan: Plan) -> Iterable[Part]:
    batches = "1024 16384 262144" if plan.accelerator else "256 1024 4096"
    few = f"--no-votes --no-semantics --repeats 3 --batches {batches}"
    arguments = plan.choose("--repeats 5", few)
    yield _measurement(
        "throughput", "throughput", plan.dataset, arguments, 120 if plan.quick else 1500
    )
    if plan.accelerator:
        few = "--decisions 2048 --sessions 1024 --repeats 1"
        arguments = plan.choose("--repeats 3", few)
        yield _measurement(
            "agreement", "agreement", plan.dataset, arguments, 100 if plan.quick else 900
        )


def _learning(plan: Plan) -> Iterable[Part]:
    arguments = plan.choose("--repeats 5", "--repeats 1 --limit-seconds 20 --sessions 256")
    yield _measurement(
        "training", "training", plan.dataset, ("--no-sb3", *arguments), 300 if plan.quick else 2400
    )
    arguments = plan.choose("--seeds 5", "--seeds 3 --sessions 256 --limit-seconds 30")
    yield _measurement(
        "to-oracle", "to-oracle", plan.dataset, arguments, 150 if plan.quick else 1800
    )
    counts = "1 4 16 64" if plan.accelerator else "1 4 16"
    few = "1 16" if plan.accelerator else "1 4"
    arguments = plan.choose(f"--repeats 3 --counts {counts}", f"--repeats 1 --counts {few}")
    yield _measurement("seeds", "seeds", plan.dataset, arguments, 120 if plan.quick else 900)


def _evaluation(plan: Plan) -> Iterable[Part]:
    arguments = plan.choose("--sessions 2048", "--sessions 512")
    yield _measurement(
        "evaluation", "evaluation", plan.dataset, arguments, 90 if plan.quick else 600
    )


def _catalogues(plan: Plan) -> Iterable[Part]:
    batches = "16384" if plan.accelerator else "1024"
    speed = ("--no-votes", "--no-semantics", "--batches", batches, "--repeats")
    agents = plan.choose("--repeats 3", "--repeats 1 --agents ppo")
    sessions = plan.choose("--sessions 512", "--sessions 128")
    for items in CATALOGUES:
        folder, build = str(plan.scratch / f"items-{items}"), f"build-{items}"
        sizes = f"--synthetic.items {items} --synthetic.users 2000 --synthetic.dimension 64"
        models = "--sasrec.max-steps 30 --taste.iterations 0 --exposure.rank 0"
        words = ("build", "synthetic", *f"{sizes} {models}".split(), "--out", folder)
        yield Part(build, "prep", words, 300)
        limit = 200 if plan.quick else 1200
        for name, arguments in (
            ("throughput", (*speed, *plan.choose("5", "2"))),
            ("training", ("--no-sb3", "--limit-seconds", "0", "--iterations", "1", *agents)),
            ("evaluation", sessions),
        ):
            if (
                name == "training"
                and items == CATALOGUES[-1]
                and plan.quick
                and not plan.accelerator
            ):
                continue  # minutes for a single iteration on two cores
            yield _measurement(f"{name}-{items}", name, folder, arguments, limit, build)


def _options(plan: Plan) -> Iterable[Part]:
    sessions = "16384" if plan.accelerator else "1024"
    arguments = plan.choose(
        f"--repeats 7 --sessions {sessions}", f"--repeats 3 --sessions {sessions}"
    )
    yield _measurement("options", "options", plan.dataset, arguments, 150 if plan.quick else 900)


def _comparisons(plan: Plan) -> Iterable[Part]:
    steps = "" if plan.accelerator else " --total-steps 50000"
    arguments = plan.choose("--seeds 3", f"--seeds 2{steps}")
    yield _measurement("table2", "table2", plan.dataset, arguments, 300 if plan.quick else 2400)
    options = [word for value in plan.python for word in ("--python", value)]
    arguments = (*plan.choose("--seconds 2 --repeats 5", "--seconds 0.5 --repeats 3"), *options)
    yield _measurement("rivals", "rivals", plan.dataset, arguments, 200 if plan.quick else 600)


def shown(arguments: Iterable[str], plan: Plan) -> str:
    """Arguments as a reader can repeat them: with the place of the synthetic datasets as DIR."""
    scratch = str(plan.scratch)
    return " ".join(word.replace(scratch, "DIR") for word in arguments)


def as_json(part: Part, plan: Plan) -> dict[str, Any]:
    """What the record of a run says of a part before it has run."""
    command = f"python -m {part.module} {shown(part.arguments, plan)}"
    return {"part": part.name, "kind": part.kind, "command": command}
