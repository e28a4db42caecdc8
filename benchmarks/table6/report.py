"""Table 6 as text for a terminal and for the pages."""

from collections.abc import Mapping
from typing import Any

from benchmarks.fidelity.report import number, with_interval
from jaxsim.tables import format_table

_NOTHING = "-"
NOT_COMPARABLE = (
    "Rewards in different simulators cannot be compared with each other: one whose users like everything pays the",
    "most. Compare AUC and ECE, which judge by what people did. The paper's figures are of Yelp, of another",
    "language model and of other hardware.",
)


def format_report(result: Mapping[str, Any]) -> str:
    """The table with its title, notes and caveat."""
    steps = next((row["train_steps"] for row in result["rows"] if "train_steps" in row), None)
    trained = "" if steps is None else f", {result['seeds']} seeds of {steps:,} steps"
    lines = [
        f"{result['dataset']}: {result['agent']}{trained}, {result['labels']:,} test labels, "
        f"{result['device']}, jax {result['jax']}",
        "95 % intervals: A.Rwd over training seeds (with one seed over users), AUC and ECE over users",
        "",
        format_rows(result),
        "",
        *(f"note: {line}" for line in result["notes"]),
        *NOT_COMPARABLE,
    ]
    return "\n".join(lines)


def format_rows(result: Mapping[str, Any], markdown: bool = False) -> str:
    """A row for each simulator."""
    has_tau = any(row.get("tau") is not None for row in result["rows"])
    header = [
        "simulator", "A.Rwd (95 %)", "random", "T.Rwd", "AUC (95 %)", "ECE (95 %)",
        f"AUC on {result['pairs']} pairs", f"on {result['clean_pairs']} clean", "s each", "per s",
        *(["tau (95 %)"] if has_tau else []), "the paper's (Yelp)",
    ]  # fmt: skip
    rows = [_cells(row, has_tau) for row in result["rows"]]
    return format_table(header, rows, markdown=markdown, left=(0, len(header) - 1))


def _cells(row: Mapping[str, Any], has_tau: bool) -> list[str]:
    tau = {"value": row.get("tau"), "low": row.get("tau_low"), "high": row.get("tau_high")}
    rewards = {"value": row["a_rwd"], "low": row["a_rwd_low"], "high": row["a_rwd_high"]}
    return [
        row["simulator"],
        with_interval(rewards, ".2f"),  # type: ignore[arg-type]
        _plain(row["random_a_rwd"], ".2f"),
        _plain(row["t_rwd"], ".1f"),
        with_interval(row["auc"]),
        with_interval(row["ece"]),
        with_interval(row.get("auc_pairs")),
        number(row.get("auc_clean_pairs")),
        _plain(row["seconds_one"], ".2g"),
        _plain(
            row["responses_per_second"],
            ",.3g" if (row["responses_per_second"] or 0) < 100 else ",.0f",
        ),
        *([with_interval(tau)] if has_tau else []),  # type: ignore[arg-type]
        _of_paper(row["paper"]),
    ]


def _plain(value: float | None, form: str) -> str:
    return _NOTHING if value is None else format(value, form)


def _of_paper(figures: Mapping[str, float] | None) -> str:
    """The paper's A.Rwd, T.Rwd, AUC and seconds for one inference."""
    if figures is None:
        return _NOTHING
    rewards = f"{figures['a_rwd']:.2f} / {figures['t_rwd']:.2f}"
    return f"{rewards} / AUC {figures['auc']:.3f} / {figures['seconds_one']:.2f} s"
