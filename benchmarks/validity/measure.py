"""The whole measurement, as the content of `--json`."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks.fidelity import study as fidelity
from benchmarks.fidelity.bootstrap import Estimate, estimate
from benchmarks.fidelity.measure import note_gaps, provenance
from benchmarks.fidelity.study import Study, estimates
from benchmarks.validity.classifier import MIN_USERS
from benchmarks.validity.judgement import judge_all, split_half
from benchmarks.validity.mixed import mixed_items
from benchmarks.validity.policies import Policy, policies
from benchmarks.validity.replay import Replay
from benchmarks.validity.sequences import sequences
from benchmarks.validity.settings import Settings
from benchmarks.validity.simulators import JUDGED, probabilities, simulators
from jaxsim import Dataset
from prep.synthetic import true_like_probability


def validity(
    dataset: Dataset,
    settings: Settings | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Judge every simulator by how it ranks policies; docs/validity.md explains each entry of the result.

    Args:
        dataset: of `jaxsim.load_dataset`.
        settings: by default those of `Settings()`.
        say: called with a line before each part, for progress.

    Raises:
        InputError: a setting is out of its bounds, or the test split has too few interactions of each user.
    """
    start, processor = time.perf_counter(), time.process_time()
    settings = settings or Settings()
    replay = Replay.of(dataset, settings)
    shared = fidelity.Settings(
        context=settings.context, resamples=settings.resamples, seed=settings.seed
    )
    study = Study.of(dataset, shared, JUDGED)
    note_gaps(study)
    users = replay.bootstrap.num_users
    say(f"replaying {len(replay.candidates):,} test interactions of {users:,} users ...")
    models = simulators(study)
    scores = probabilities(models, replay.candidates)
    ranked = policies(study, replay, scores)
    result = {
        **_description(study, replay),
        **_replayed(replay, ranked, scores),
    }
    say("rated and unrated items ...")
    result["mixed_items"] = mixed_items(replay, models)
    say("simulating test sequences ...")
    if users < MIN_USERS:
        study.note(f"classifier: left out, because there are fewer than {MIN_USERS} users")
    result["sequences"] = sequences(replay, models, scores)
    result["notes"] = study.notes
    result["seconds"] = round(time.perf_counter() - start, 1)
    result["processor_seconds"] = round(time.process_time() - processor, 1)
    return result


def _description(study: Study, replay: Replay) -> dict[str, Any]:
    settings = replay.settings
    return {
        "dataset": study.dataset.name,
        "split": study.settings.split,
        "users": replay.bootstrap.num_users,
        "candidates": len(replay.candidates),
        "picks": settings.picks,
        "min_interactions": settings.min_interactions,
        "context": settings.context,
        "resamples": settings.resamples,
        "halves": settings.halves,
        "draws": settings.draws,
        "seed": settings.seed,
        **provenance(study),
    }


def _replayed(
    replay: Replay, ranked: Sequence[Policy], scores: Mapping[str, np.ndarray]
) -> dict[str, Any]:
    """Values of the policies, and how the simulators agree with them and with the truth if it is known."""
    picked = np.stack([policy.picked for policy in ranked])
    real = replay.value(picked, replay.label)
    simulated = {name: replay.value(picked, score) for name, score in scores.items()}
    known = true_probability(replay)
    truth = None if known is None else replay.value(picked, known)
    judged = judge_all(ranked, simulated, real)
    result = {
        "policies": [
            {
                "policy": policy.name,
                "about": policy.about,
                "same_as": list(policy.same_as),
                "real": estimate(real[:, i]),
                **({} if truth is None else {"true": estimate(truth[:, i])}),
                "simulated": estimates({name: x[:, i] for name, x in simulated.items()}),
            }
            for i, policy in enumerate(ranked)
        ],
        "rows": [_row(name, entry) for name, entry in judged.items()],
        "simulators": judged,
        **split_half(replay, picked),
    }
    if truth is None:
        return result
    against = judge_all(ranked, {**simulated, "real": real}, truth)
    return {**result, "truth": against}


def _row(name: str, judged: Mapping[str, Any]) -> dict[str, Any]:
    """A simulator in plain numbers."""
    tau: Estimate = judged["tau"]
    values = {key: judged[key]["value"] for key in ("spearman", "value_error", "optimism")}
    ends = {f"tau_{end}": tau[end] for end in ("low", "high")}
    return {"simulator": name, "tau": tau["value"], **ends, **values}


def true_probability(replay: Replay) -> np.ndarray | None:
    """The true probability of a like of each candidate, float64[E]; None unless the dataset is synthetic."""
    if "synthetic" not in replay.dataset.manifest:
        return None
    events = replay.candidates
    return true_like_probability(replay.dataset, events.user, events.item).astype(np.float64)
