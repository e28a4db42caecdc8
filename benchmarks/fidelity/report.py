"""The measurement as text for a terminal, and its summary for docs/results.md."""

from collections.abc import Mapping
from typing import Any

from benchmarks.fidelity.bootstrap import Estimate
from benchmarks.fidelity.controls import EXCHANGED, OWN, PERMUTED, SHUFFLED
from benchmarks.fidelity.exposure_report import format_propensity
from benchmarks.fidelity.registry import BEST_MODELS
from benchmarks.fidelity.texts import interval, number, with_interval
from jaxsim.tables import format_table

_PEOPLE = "people"
CONTROL_COLUMNS = {
    OWN: "own history",
    EXCHANGED: "another's",
    SHUFFLED: "labels shuffled",
    PERMUTED: "keywords permuted",
}


def ranked(estimates: dict[str, Estimate]) -> list[str]:
    """The names of estimates, the highest value first and those without a value last."""

    def key(name: str) -> tuple[bool, float]:
        value = estimates[name]["value"]
        return value is None, -(value or 0.0)

    return sorted(estimates, key=key)


def format_report(result: Mapping[str, Any]) -> str:
    """Everything that was measured."""
    sections = [
        _title(result),
        _main_table(result),
        format_like_rates(result),
        format_propensity(result.get("propensity")),
        _groups(result),
        _histories(result),
        _controls(result),
        _cold_items(result),
        format_signals(result),
        _notes(result),
    ]
    return "\n\n".join(section for section in sections if section)


def format_summary(result: Mapping[str, Any]) -> str:
    """The most important figures, for docs/results.md."""
    reference = result["reference"]
    rows = [
        (
            name,
            with_interval(result["auc"][name]),
            interval(result["difference"].get(name), "+.3f"),
            number(result["log_loss"].get(name)),
            number(result["ece"].get(name)),
        )
        for name in ranked(result["auc"])
    ]
    header = ("predictor", "ROC-AUC", f"over {reference}", "log-loss", "ECE")
    parts = [
        _title(result),
        format_table(header, rows),
        format_like_rates(result),
        _brief_controls(result),
        _cold_items(result),
    ]
    return "\n\n".join(part for part in parts if part)


def _brief_controls(result: Mapping[str, Any]) -> str:
    """The controls of exchanged histories and of permuted keywords, a line each."""
    rows = dict(control_rows(result))
    best = next((name for name in BEST_MODELS if name in rows), None)
    lines = []
    if best is not None and rows[best][EXCHANGED]:
        own, other = (number(rows[best][suffix]) for suffix in (OWN, EXCHANGED))
        lines.append(
            f"ROC-AUC of {best} within items: {own}; with another person's history: {other}"
        )
    permuted = {name: row[PERMUTED] for name, row in rows.items() if row[PERMUTED]}
    if permuted:
        values = ", ".join(f"{name} {number(estimate)}" for name, estimate in permuted.items())
        lines.append(f"ROC-AUC with keywords permuted between items: {values}")
    return "\n".join(lines)


def _title(result: Mapping[str, Any]) -> str:
    line = (
        f"{result['dataset']}, {result['split']} split: {result['labels']:,} labels of {result['users']:,} users, "
        f"each predicted from at most {result['context']} earlier ratings"
    )
    return f"{line}\n95 % intervals: {result['resamples']:,} resamples of the users"


def _main_table(result: Mapping[str, Any]) -> str:
    rows = [
        (
            name,
            result["predictors"][name]["kind"],
            with_interval(result["auc"][name], ".4f"),
            with_interval(result["difference"].get(name), "+.4f"),
            with_interval(result["dislike_precision"][name]),
            number(result["log_loss"].get(name), ".4f"),
            number(result["brier"].get(name), ".4f"),
            with_interval(result["ece"].get(name)),
            with_interval(result["like_rate_error"].get(name), "+.3f"),
        )
        for name in ranked(result["auc"])
    ]
    over = f"over {result['reference']}" if result["reference"] else "over the best baseline"
    header = ("predictor", "kind", "ROC-AUC", over, "AP of dislikes", "log-loss", "Brier", "ECE")
    return format_table((*header, "like rate error"), rows, left=(0, 1))


def format_like_rates(result: Mapping[str, Any]) -> str:
    """Like rates on rated and on unrated items."""
    rated, unrated = result["like_rate"], result["unrated_like_rate"]
    parts, columns = [rated], ["rated items"]
    if unrated:
        parts, columns = [rated, unrated], ["rated items", "unrated items"]
    rows = [
        (_PEOPLE if name == "real" else name, *(number(part.get(name)) for part in parts))
        for name in rated
        if name != "catalogue"
    ]
    return format_table(("like rate", *columns), rows)


def _groups(result: Mapping[str, Any]) -> str:
    names = list(result["ece"])
    tables = []
    for kind in dict.fromkeys(group["kind"] for group in result["groups"]):
        rows = [
            (
                group["group"],
                f"{group['labels']:,}",
                number(group["real"]),
                *(with_interval(group["like_rate_error"][name], "+.3f") for name in names),
            )
            for group in result["groups"]
            if group["kind"] == kind
        ]
        tables.append(format_table((kind, "labels", "real", *names), rows))
    return "like rate error by group\n\n" + "\n\n".join(tables) if tables else ""


def _histories(result: Mapping[str, Any]) -> str:
    rows = result["contexts"]
    columns: dict[str, dict[str, Estimate]] = {f"{r['context']}": r["auc"] for r in rows}
    lines = "ROC-AUC by longest history"
    earlier = result["strictly_earlier"]
    if earlier is not None:
        columns["earlier times"] = earlier["auc"]
        lines += (
            f"; earlier times: at most {result['context']} ratings with a smaller time than the label's, which "
            f"changes {earlier['changed']:.0%} of the histories"
        )
    return f"{lines}\n\n{_columns(columns, 'predictor')}"


def _columns(columns: dict[str, dict[str, Estimate]], title: str) -> str:
    """A row for each predictor, a column for each circumstance; the order is that of the last column."""
    names = ranked({name: e for column in columns.values() for name, e in column.items()})
    rows = [(name, *(number(column.get(name)) for column in columns.values())) for name in names]
    return format_table((title, *columns), rows)


def control_rows(
    result: Mapping[str, Any],
) -> list[tuple[str, dict[str, Estimate | None]]]:
    """For each predictor, its controls by their suffix; None where one was not made."""
    controls = result["controls"]
    rows = [
        (name, {suffix: controls.get(f"{name}_{suffix}") for suffix in CONTROL_COLUMNS})
        for name in ranked(result["auc"])
    ]
    return [row for row in rows if any(row[1].values())]


def _controls(result: Mapping[str, Any]) -> str:
    rows = [
        (name, *(with_interval(estimate) for estimate in controls.values()))
        for name, controls in control_rows(result)
    ]
    text = "controls, ROC-AUC; own history and another's: between ratings of the same item"
    return f"{text}\n\n{format_table(('predictor', *CONTROL_COLUMNS.values()), rows)}"


def _cold_items(result: Mapping[str, Any]) -> str:
    curve = result.get("cold_curve")
    if not curve:
        return ""
    columns = {f"{row['ratings']}": row["auc"] for row in curve}
    refitted = list(curve[0]["auc"])
    columns["all"] = {name: result["auc"][name] for name in refitted}
    text = "cold items: ROC-AUC by number of training ratings that an item keeps"
    gains = [(row["ratings"], row["keyword_gain"]) for row in curve if row["keyword_gain"]]
    parts = [text, _columns(columns, "predictor")]
    if gains:
        names = list(gains[0][1])
        rows = [(f"{n}", *(with_interval(gain.get(x)) for x in names)) for n, gain in gains]
        header = ("ratings", *(f"{name}: gain by keywords" for name in names))
        parts.append(format_table(header, rows))
    return "\n\n".join(parts)


_SIGNAL_METRICS = {
    "rmse": "RMSE", "mae": "MAE", "kappa": "quadratic kappa", "log_loss": "log-loss",
    "r_squared": "R^2 of the logarithm", "log_likelihood": "log-likelihood",
}  # fmt: skip


def format_signals(result: Mapping[str, Any]) -> str:
    """A table of the ratings and one of the durations; empty for a dataset without models of them."""
    tables = []
    for signal, entry in result.get("signals", {}).items():
        metrics = [metric for metric in _SIGNAL_METRICS if metric in entry]
        names = dict.fromkeys(name for metric in metrics for name in entry[metric])
        rows = [(n, *(with_interval(entry[m].get(n)) for m in metrics)) for n in names]
        title = f"{signal}s: {entry['labels']:,}"
        header = ("predictor", *(_SIGNAL_METRICS[m] for m in metrics))
        tables.append(f"{title}\n\n{format_table(header, rows)}")
    return "\n\n".join(tables)


def _notes(result: Mapping[str, Any]) -> str:
    return "\n".join(f"note: {line}" for line in result["notes"])
