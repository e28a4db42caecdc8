"""`python -m benchmarks table6`: the simulator beside its rivals, in one environment and on the same labels."""

import json as json_module
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import jax
from annotated_types import Ge

from agents.algorithms.algorithm import AlgorithmConfig
from agents.evaluation.sessions import SESSIONS_PER_USER
from agents.runs.config import dataset_digest
from benchmarks.fidelity.registry import PREDICTORS
from benchmarks.fidelity.study import Settings, Study
from benchmarks.hardware import device_name
from benchmarks.output import check_json, write_json
from benchmarks.rivals.kuaisim_training import KuaiSimTraining
from benchmarks.table2 import configs_of
from benchmarks.table6.measurement import (
    AGENT,
    accuracy,
    accuracy_on_pairs,
    ask_and_time,
    rewards,
    speed,
)
from benchmarks.table6.report import format_report
from benchmarks.table6.simulators import (
    ABOUT,
    OURS,
    PAPER,
    SUBER,
    Pairs,
    Simulated,
    ask,
    check_names,
    make_simulated,
    recorded_pairs,
    recorded_scorer,
    sampled_pairs,
    why_not_recorded,
)
from jaxsim import Dataset, InputError, load_dataset
from jaxsim.settings import check_settings
from prep.annotation.annotate import make_annotator
from prep.annotation.online import OnlineScorer
from prep.config import AnnotationConfig, LanguageModelConfig


@dataclass(frozen=True)
class Suber:
    """Who is asked in the manner of SUBER."""

    annotate: Literal["recorded", "openai", "huggingface", "ray"] = "recorded"
    """Answers that come with the package, or a language model."""
    pairs: Annotated[int, Ge(1)] = 200
    """Held-out labels that a model is asked about, where the package has no recorded answers."""
    noun: str = "item"
    """What a prompt calls an item, such as movie."""
    llm: LanguageModelConfig = field(default_factory=lambda: LanguageModelConfig(max_tokens=16))
    """The model, as in `python -m prep annotate`."""


@dataclass(frozen=True)
class Plan:
    """What is measured, and how."""

    seeds: Annotated[int, Ge(1)]
    seed: Annotated[int, Ge(0)]
    sessions_per_user: Annotated[int, Ge(1)]
    evaluation_seed: Annotated[int, Ge(0)]
    resamples: Annotated[int, Ge(1)]
    batch: Annotated[int, Ge(1)]
    repeats: Annotated[int, Ge(1)]


def run_table6(
    dataset: str = "ml-100k",
    simulators: tuple[str, ...] = (),
    seeds: int = 3,
    seed: int = 0,
    total_steps: int | None = None,
    sessions_per_user: int = SESSIONS_PER_USER,
    evaluation_seed: int = 1_000_000,
    resamples: int = 1000,
    batch: int = 256,
    repeats: int = 5,
    kuaisim: KuaiSimTraining = KuaiSimTraining(),  # noqa: B008 (frozen)
    suber: Suber = Suber(),
    validity: Path | None = None,
    json: Path | None = None,
) -> None:
    """Compare our simulator with models in the manner of KuaiSim and SUBER: rewards of DQN, accuracy and speed.

    Example:
        --simulators paper calibrated

    Args:
        dataset: name that `python -m prep build` has built, or path of a packed folder.
        simulators: those to measure, of paper, soft, calibrated, kuaisim and suber; without this option all.
        seeds: training seeds of DQN in each simulator, trained at once.
        seed: the first of them.
        total_steps: environment steps of a seed; without it, DQN's own setting, as in table2.
        sessions_per_user: fixed sessions of each training user in which DQN is evaluated.
        evaluation_seed: seed of these sessions.
        resamples: resamples of the users, for the intervals of AUC and ECE.
        batch: sessions that are stepped at once to measure responses per second.
        repeats: timed runs of that.
        kuaisim: how the KuaiSim-style model is trained.
        suber: who is asked in the manner of SUBER.
        validity: result of `python -m benchmarks validity --json`, whose Kendall's tau fills a column.
        json: also write the result here.
    """
    check_json(json)
    names = check_names(simulators)
    (config,) = configs_of((AGENT,), total_steps).values()
    plan = Plan(seeds, seed, sessions_per_user, evaluation_seed, resamples, batch, repeats)
    for settings, prefix in ((plan, "--"), (kuaisim, "--kuaisim."), (suber, "--suber.")):
        check_settings(settings, prefix)
    taus = read_validity(validity, load_dataset(dataset).name)
    scorer = make_scorer(load_dataset(dataset), suber)
    result = measure(load_dataset(dataset), names, plan, config, kuaisim, suber, scorer, taus)
    print(f"\n{format_report(result)}")
    write_json(json, result)


def make_scorer(dataset: Dataset, suber: Suber) -> OnlineScorer | None:
    """The language model that is to be asked; None for recorded answers.

    Raises:
        InputError: a package, a name or a key that it needs is missing.
    """
    if suber.annotate == "recorded":
        return None
    config = AnnotationConfig(annotate=suber.annotate, llm=suber.llm)
    config.check()
    return OnlineScorer(dataset, make_annotator(config), suber.llm.store, suber.noun)


def read_validity(path: Path | None, dataset: str) -> dict[str, dict[str, float]]:
    """Kendall's tau of each predictor, from the result of `python -m benchmarks validity`; empty without a path.

    Raises:
        InputError: the file cannot be read, has no such rows, or is of a dataset with another name.
    """
    if path is None:
        return {}
    try:
        result = json_module.loads(path.read_text("utf-8"))
        names = ("tau", "tau_low", "tau_high")
        taus = {row["simulator"]: {x: row.get(x) for x in names} for row in result["rows"]}
    except OSError as error:
        raise InputError(f"--validity {path}: cannot be read ({error.strerror})") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise InputError(
            f"--validity {path}: has no rows with a simulator and its tau; give what "
            "`python -m benchmarks validity --json` wrote"
        ) from None
    if result.get("dataset", dataset) != dataset:
        raise InputError(
            f"--validity {path}: is of the dataset {result['dataset']}; give a result of {dataset}"
        )
    return taus


def measure(
    dataset: Dataset,
    names: tuple[str, ...],
    plan: Plan,
    config: AlgorithmConfig,
    kuaisim: KuaiSimTraining,
    suber: Suber,
    scorer: OnlineScorer | None,
    taus: dict[str, dict[str, float]],
    **settings: Any,
) -> dict[str, Any]:
    """The content of `--json`.

    Args:
        dataset: of `jaxsim.load_dataset`.
        names: the simulators.
        plan, config, kuaisim, suber: what is measured, and how.
        scorer: the language model; None for recorded answers.
        taus: of `read_validity`.
        settings: further arguments of `jaxsim.make`.

    Raises:
        InputError: the dataset lacks what a simulator needs, or a training diverged.
    """
    begin = time.perf_counter()
    of_study = Settings(resamples=plan.resamples, seed=plan.seed, cold_items=False)
    judged = tuple(p for p in PREDICTORS if p.name in OURS.values())
    study = Study.of(dataset, of_study, judged)
    recorded = recorded_scorer(dataset)
    pairs = _pairs(study, recorded, suber, scorer)
    rows = []
    for name in names:
        if name == SUBER:
            row = _suber_row(study, plan, pairs, recorded[0] if recorded else None, scorer)
        else:
            print(f"{name}: preparing {ABOUT[name]} ...", flush=True)
            simulated = make_simulated(name, dataset, study, kuaisim, settings)
            row = _row(simulated, study, plan, config, pairs)
        rows.append({**row, "paper": PAPER.get(name), **taus.get(row["predictor"], {})})
    result: dict[str, Any] = {
        "device": device_name(),
        "jax": jax.__version__,
        "dataset": dataset.name,
        "dataset_digest": dataset_digest(dataset) if dataset.path.is_dir() else None,
        "agent": AGENT,
        "labels": len(study.events),
        "pairs": 0 if pairs is None else len(pairs.clean),
        "clean_pairs": 0 if pairs is None else int(pairs.clean.sum()),
        "seeds": plan.seeds,
        "seed": plan.seed,
        "sessions_per_user": plan.sessions_per_user,
        "evaluation_seed": plan.evaluation_seed,
        "batch": plan.batch,
        "rows": rows,
    }
    result["notes"] = _notes(result, pairs, scorer, why_not_recorded(dataset))
    return {**result, "seconds": round(time.perf_counter() - begin, 1)}


def _pairs(study: Study, recorded: Any, suber: Suber, scorer: OnlineScorer | None) -> Pairs | None:
    """The pairs that all simulators are compared on; None if nobody was or is to be asked about any."""
    if recorded is not None:
        pairs = recorded_pairs(study.dataset, recorded[1], study.settings.context)
        return pairs if len(pairs.clean) else None
    return None if scorer is None else sampled_pairs(study, suber.pairs)


def _row(
    simulated: Simulated, study: Study, plan: Plan, config: AlgorithmConfig, pairs: Pairs | None
) -> dict[str, Any]:
    events = study.events
    row: dict[str, Any] = {
        "simulator": simulated.name,
        "about": ABOUT[simulated.name],
        "predictor": simulated.predictor,
        **accuracy(study.bootstrap, events.label, simulated.predict(events)),
    }
    if pairs is not None:
        answers = simulated.predict(pairs.events)
        row |= accuracy_on_pairs(pairs, answers, plan.resamples, plan.seed)
    print(f"{simulated.name}: measuring its speed ...", flush=True)
    row |= speed(simulated, events, plan.batch, plan.repeats)
    print(f"{simulated.name}: training {AGENT} ...", flush=True)
    how = (plan.seeds, plan.seed, plan.sessions_per_user, plan.evaluation_seed)
    row |= rewards(simulated, config, *how)
    return row | ({"model": simulated.about} if simulated.about else {})


def _suber_row(
    study: Study,
    plan: Plan,
    pairs: Pairs | None,
    recorded: OnlineScorer | None,
    scorer: OnlineScorer | None,
) -> dict[str, Any]:
    """What can be said of a language model that is asked about the pairs only."""
    nothing = ("a_rwd", "a_rwd_low", "a_rwd_high", "t_rwd", "random_a_rwd", "auc", "ece")
    unmeasured = (*nothing, "seconds_one", "responses_per_second")
    row: dict[str, Any] = {"simulator": SUBER, "about": ABOUT[SUBER], "predictor": SUBER}
    row |= dict.fromkeys(unmeasured)
    if pairs is None:
        return row
    if scorer is None:
        assert recorded is not None
        answers = ask(recorded, pairs.events)
    else:
        print(f"{SUBER}: asking about {len(pairs.clean)} labels ...", flush=True)
        answers, timing = ask_and_time(scorer, pairs.events)
        row |= timing
    return row | accuracy_on_pairs(pairs, answers, plan.resamples, plan.seed)


def _notes(
    result: dict[str, Any], pairs: Pairs | None, scorer: OnlineScorer | None, not_recorded: str
) -> list[str]:
    """What was not measured, and what it would take."""
    notes = []
    if pairs is not None and pairs.left_out:
        notes.append(
            f"{pairs.left_out} recorded pairs are no test labels of this dataset, and left out"
        )
    if not any(row["simulator"] == SUBER for row in result["rows"]):
        return notes
    if pairs is None:
        notes.append(f"{SUBER}: {not_recorded}; name a model with --suber.annotate")
    played = next((row for row in result["rows"] if "train_steps" in row), None)
    if played is not None:
        training = result["seeds"] * played["train_steps"]
        evaluation = (result["seeds"] + 1) * played["session_steps"]
        notes.append(
            f"{SUBER}: its rewards would take {training + evaluation:,} calls of a language model "
            f"({training:,} to train {result['seeds']} seeds, {evaluation:,} to evaluate them and random), its "
            f"AUC and ECE on all test labels {result['labels']:,}"
        )
    if pairs is not None and any(row.get("tau") is not None for row in result["rows"]):
        notes.append(
            f"{SUBER}: its tau would take the answers about all test items that policies pick from; "
            f"{result['pairs']:,} pairs are too few of them"
        )
    if scorer is None and pairs is not None:
        notes.append(
            f"{SUBER}: recorded answers have no time; with --suber.annotate openai it is measured"
        )
    return notes
