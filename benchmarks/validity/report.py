"""The measurement as text for a terminal, and its summary for docs/results.md."""

from collections.abc import Mapping
from typing import Any

from benchmarks.fidelity.report import interval, number, with_interval
from benchmarks.validity.classifier import CLASSIFIERS
from benchmarks.validity.judgement import REFERENCE
from benchmarks.validity.mixed import POPULARITY
from benchmarks.validity.sequences import DISTANCES
from jaxsim.tables import format_table

REAL = "real"
_SUMMARISED = ("model", "baseline")  # kinds of simulators; margins and votes are parts of models
# The columns that say how simulated values agree with others: key, title and format.
AGREEMENT = {
    "tau": ("Kendall's tau", ".3f"),
    "tau_difference": (f"over {REFERENCE}", "+.3f"),
    "tau_of_others": ("without its own policies", ".3f"),
    "spearman": ("Spearman", ".3f"),
    "value_error": ("error of values", ".3f"),
}
MIXED = {
    "accuracy": "accuracy",
    "precision": "precision",
    "recall": "recall",
    "f1": "F1",
    "auc": "AUC within users",
}
SEQUENCES = {
    "like_rate": "like rate",
    **dict(zip(DISTANCES, ("KS of like rates", "KS of run lengths"), strict=True)),
    **dict(zip(CLASSIFIERS, ("linear", "trees"), strict=True)),
}


def by_tau(judged: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The simulators, the highest tau first and those without one last."""

    def key(name: str) -> tuple[bool, float]:
        value = judged[name]["tau"]["value"]
        return value is None, -(value or 0.0)

    return sorted(judged, key=key)


def by_value(result: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The policies, the best one in reality first."""
    return sorted(result["policies"], key=lambda row: -(row["real"]["value"] or 0.0))


def format_report(result: Mapping[str, Any]) -> str:
    """Everything that was measured."""
    sections = [
        _title(result),
        _agreement(result["simulators"]),
        format_halves(result),
        _own_policies(result["simulators"]),
        _policies(result),
        _truth(result),
        *(_mixture(row) for row in result["mixed_items"]),
        _sequences(result["sequences"]),
        "\n".join(f"note: {line}" for line in result["notes"]),
    ]
    return "\n\n".join(section for section in sections if section)


def format_summary(result: Mapping[str, Any]) -> str:
    """The most important figures, for docs/results.md."""
    judged = result["simulators"]
    header = (
        "simulator",
        "Kendall's tau",
        f"over {REFERENCE}",
        "error of values",
        "its greedy policy: believed",
        "real",
    )
    rows = [
        (
            name,
            with_interval(judged[name]["tau"]),
            interval(judged[name].get("tau_difference"), "+.3f"),
            number(judged[name]["value_error"]),
            number(judged[name]["own_simulated"]),
            number(judged[name]["own_real"]),
        )
        for name in by_tau(judged)
        if result["predictors"][name]["kind"] in _SUMMARISED
    ]
    return "\n\n".join([_title(result), format_table(header, rows), format_halves(result)])


def _title(result: Mapping[str, Any]) -> str:
    return (
        f"{result['dataset']}: {len(result['policies'])} policies pick {result['picks']} of the test items of "
        f"each of {result['users']:,} users ({result['candidates']:,} in all)\n"
        f"95 % intervals: {result['resamples']:,} resamples of the users"
    )


def format_halves(result: Mapping[str, Any]) -> str:
    """How well reality agrees with itself."""
    return (
        f"tau between real values of two halves of the users: {with_interval(result['split_half'])}\n"
        f"what a simulator that knew every true value would reach: {with_interval(result['ceiling'])}"
    )


def _agreement(judged: Mapping[str, Mapping[str, Any]]) -> str:
    rows = [
        (
            name,
            *(with_interval(judged[name].get(key), form) for key, (_, form) in AGREEMENT.items()),
        )
        for name in by_tau(judged)
    ]
    return format_table(("simulator", *(title for title, _ in AGREEMENT.values())), rows)


def _own_policies(judged: Mapping[str, Mapping[str, Any]]) -> str:
    rows = [
        (
            name,
            entry["own"],
            number(entry["own_simulated"]),
            number(entry["own_real"]),
            with_interval(entry["optimism"], "+.3f"),
            entry["best"],
            with_interval(entry["optimism_of_best"], "+.3f"),
            with_interval(entry["regret"]),
        )
        for name, entry in ((name, judged[name]) for name in by_tau(judged))
    ]
    header = ("simulator", "greedy on it", "believed", "real", "optimism")
    text = "the policy that is greedy on a simulator, and the one that it finds best"
    more = ("finds best", "optimism", "regret")
    return f"{text}\n\n{format_table((*header, *more), rows, left=(0, 1, 5))}"


def _policies(result: Mapping[str, Any]) -> str:
    names = by_tau(result["simulators"])
    rows = [
        (
            row["policy"],
            with_interval(row["real"]),
            *(number(row["simulated"][name]) for name in names),
        )
        for row in by_value(result)
    ]
    text = format_table(("like rate of the picks", REAL, *names), rows)
    same = [
        f"{row['policy']} picks the same as {', '.join(row['same_as'])}"
        for row in result["policies"]
        if row["same_as"]
    ]
    return "\n\n".join([text, *same])


def _truth(result: Mapping[str, Any]) -> str:
    truth = result.get("truth")
    if not truth:
        return ""
    text = "against the true probabilities of the synthetic users"
    return f"{text}\n\n{_agreement(truth)}"


def _mixture(row: Mapping[str, Any]) -> str:
    rows = [
        (name, *(with_interval(row[key].get(name)) for key in MIXED))
        for name in (*row["accuracy"], POPULARITY)
    ]
    text = (
        f"{row['items']} items among unrated ones, 1:{row['ratio']} ({row['pairs']:,} pairs of user and item); "
        "a like counts as the answer that the item was rated"
    )
    return f"{text}\n\n{format_table(('simulator', *MIXED.values()), rows)}"


def _sequences(result: Mapping[str, Any]) -> str:
    rows = [
        (name, *(with_interval(entry.get(key)) for key in SEQUENCES))
        for name, entry in (("people", result["people"]), *result["simulators"].items())
    ]
    text = (
        "simulated test sequences: distance to those of people (people: between two halves of them), and ROC-AUC "
        "of classifiers that tell them apart"
    )
    return f"{text}\n\n{format_table(('simulator', *SEQUENCES.values()), rows)}"
