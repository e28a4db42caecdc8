"""The simulators of the table: ours under three semantics, and those in the manner of KuaiSim and of SUBER."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.fidelity.events import Events, events_at
from benchmarks.fidelity.predictor import Fitted, TrainingData
from benchmarks.fidelity.registry import PREDICTORS
from benchmarks.fidelity.study import Study
from benchmarks.rivals.kuaisim_training import KUAISIM as KUAISIM_PREDICTOR
from benchmarks.rivals.kuaisim_training import KuaiSimTraining, probabilities, train_kuaisim
from benchmarks.rivals.suber import RECORDED
from jaxsim import Dataset, EnvParams, InputError, UserSimulator, make
from jaxsim.dataset import TEST
from jaxsim.factory import Semantics
from prep.annotation.online import OnlineScorer, RecordedScores

OURS: dict[Semantics, str] = {"paper": "paper", "soft": "taste", "calibrated": "taste"}
"""Our semantics, and the predictor of `benchmarks.fidelity` that states the probability of a like under each."""
KUAISIM, SUBER = KUAISIM_PREDICTOR.name, "suber"
NAMES = (*OURS, KUAISIM, SUBER)
ABOUT = {
    "paper": "ours, by majority of the three votes",
    "soft": "ours, a recommendation earns the probability of the taste model",
    "calibrated": "ours, likes drawn with the probability of the taste model",
    KUAISIM: KUAISIM_PREDICTOR.about,
    SUBER: "in the manner of SUBER: a language model is asked at every step",
}
PAPER: dict[str, dict[str, float]] = {
    "paper": {"a_rwd": 27.56, "t_rwd": 330.98, "auc": 0.674, "seconds_one": 0.76},
    KUAISIM: {"a_rwd": 25.35, "t_rwd": 316.46, "auc": 0.658, "seconds_one": 0.53},
    SUBER: {"a_rwd": 23.74, "t_rwd": 297.48, "auc": 0.643, "seconds_one": 2.42},
}
"""The paper's Table 6: DQN on Yelp."""


@dataclass(frozen=True, eq=False)
class Simulated:
    """A simulator of the table that plays sessions on the device.

    Attributes:
        name: as in the table.
        predictor: its name where predictors are compared, as in `benchmarks.fidelity` and `--validity`.
        env, params: of `jaxsim.make`.
        predict: `Events` to probabilities of a like, float64[E].
        about: what its training was; empty if there was none beside the build of the dataset.
    """

    name: str
    predictor: str
    env: UserSimulator
    params: EnvParams
    predict: Callable[[Events], np.ndarray]
    about: dict[str, Any]


def check_names(names: Sequence[str]) -> tuple[str, ...]:
    """The simulators to measure, in the table's order; all of them if none is named.

    Raises:
        InputError: a name is unknown.
    """
    for name in names:
        if name not in NAMES:
            raise InputError(f"--simulators {name}: unknown; choose from {', '.join(NAMES)}")
    return tuple(name for name in NAMES if name in names or not names)


def make_simulated(
    name: str, dataset: Dataset, study: Study, kuaisim: KuaiSimTraining, settings: dict[str, Any]
) -> Simulated:
    """Make a simulator of the table, SUBER's excepted.

    Args:
        name: one of `NAMES`.
        dataset: of `jaxsim.load_dataset`.
        study: of this dataset.
        kuaisim: how the KuaiSim-style model is trained, if it is asked for.
        settings: further arguments of `jaxsim.make`.

    Raises:
        InputError: the dataset lacks what it needs.
    """
    if name == KUAISIM:
        trained = train_kuaisim(dataset, kuaisim)
        env, params = make(
            dataset, user_model=trained.model, user_params=trained.params, **settings
        )

        def predict(events: Events) -> np.ndarray:
            return probabilities(trained.model, trained.params, events)

        return Simulated(name, name, env, params, predict, trained.about)
    semantics = next(s for s in OURS if s == name)
    env, params = make(dataset, semantics=semantics, **settings)
    fitted = fit_predictor(OURS[semantics], study.data)
    return Simulated(name, OURS[semantics], env, params, fitted.predict, {})


def fit_predictor(name: str, data: TrainingData) -> Fitted:
    """The fitted predictor of the fidelity report with this name."""
    return next(p for p in PREDICTORS if p.name == name).fit(data)


# ---- pairs that a language model was asked about -----------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Pairs:
    """Held-out labels that a language model was, or is to be, asked about.

    Attributes:
        events: P of them.
        clean: bool[P], whether nothing else in the recorded conversation gave the answer away.
        left_out: how many recorded pairs are no test labels of this dataset.
    """

    events: Events
    clean: np.ndarray
    left_out: int = 0


def recorded_scorer(dataset: Dataset) -> tuple[OnlineScorer, RecordedScores] | None:
    """The recorded answers of a dataset as a scorer and as a table; None if there are none that fit it."""
    recording = RECORDED.get(dataset.name)
    if recording is None or recording.other_than(dataset.manifest):
        return None
    recorded = RecordedScores(recording.path)
    return OnlineScorer(dataset, recorded), recorded


def why_not_recorded(dataset: Dataset) -> str:
    """Why `recorded_scorer` gives none, or why its pairs are none of this dataset."""
    recording = RECORDED.get(dataset.name)
    reasons = () if recording is None else recording.other_than(dataset.manifest)
    if not reasons:
        return f"no recorded answers for {dataset.name}"
    return f"the recorded answers for {dataset.name} do not fit this build ({'; '.join(reasons)})"


def recorded_pairs(dataset: Dataset, recorded: RecordedScores, context: int) -> Pairs:
    """The recorded pairs that are labels of the test split, each with at most `context` interactions before it."""
    users, items = (
        {str(raw): index for index, raw in enumerate(column)}
        for column in (dataset.users["user_id"], dataset.items["item_id"])
    )
    table = recorded.table
    known = table["user_id"].isin(users) & table["item_id"].isin(items)
    table = table[known]
    wanted = _pair_keys(
        dataset, table["user_id"].map(users).to_numpy(), table["item_id"].map(items).to_numpy()
    )
    arrays = dataset.arrays
    test = np.flatnonzero(arrays["interaction_split"] == TEST)
    keys = _pair_keys(dataset, dataset.interaction_user()[test], arrays["interaction_item"][test])
    order = np.argsort(keys)
    place = np.minimum(np.searchsorted(keys[order], wanted), max(0, len(keys) - 1))
    found = keys[order][place] == wanted if len(keys) else np.zeros(len(wanted), bool)
    rows = test[order][place[found]] if len(keys) else test
    clean = np.asarray(table["clean"] if "clean" in table else np.ones(len(table)))[found] > 0
    return Pairs(events_at(dataset, rows, context), clean, int(len(recorded.table) - found.sum()))


def sampled_pairs(study: Study, count: int) -> Pairs:
    """At most `count` labels of the test split, drawn with the study's seed."""
    rng = np.random.default_rng(study.settings.seed)
    test = np.flatnonzero(study.dataset.arrays["interaction_split"] == TEST)
    rows = np.sort(rng.choice(test, min(count, len(test)), replace=False))
    events = events_at(study.dataset, rows, study.settings.context)
    return Pairs(events, np.ones(len(rows), bool))


def _pair_keys(dataset: Dataset, user: np.ndarray, item: np.ndarray) -> np.ndarray:
    return user.astype(np.int64) * dataset.num_items + item


def ask(scorer: OnlineScorer, events: Events) -> np.ndarray:
    """A language model's probability of a like of events, float64[E]."""
    return scorer.probabilities(
        events.user, events.history_items, events.history_labels, events.item
    ).astype(np.float64)
