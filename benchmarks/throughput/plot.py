"""The figure of `python -m benchmarks throughput`."""

from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

_MARKERS = ("o", "^", "s", "D")


def plot_throughput(result: dict[str, Any]) -> Figure:
    """Steps per second against batch size, with the bound; and the cost of each vote if it was measured."""
    votes = result.get("votes")
    figure = Figure(figsize=(13 if votes else 6, 4.5), layout="constrained")
    panels = figure.subplots(1, 2 if votes else 1, squeeze=False)[0]
    _plot_speed(panels[0], result)
    if votes:
        _plot_votes(panels[1], votes)
    return figure


def _plot_speed(axes: Axes, result: dict[str, Any]) -> None:
    rows = result["rows"]
    batches = [row["batch"] for row in rows]
    speeds = [row["steps_per_second"] for row in rows]
    low, high = ([row[f"{end}_quartile"] for row in rows] for end in ("low", "high"))
    axes.fill_between(batches, low, high, color="C0", alpha=0.25, linewidth=0)
    axes.plot(batches, speeds, "o-", color="C0", label="median and quartiles")
    axes.axhline(
        result["bound_steps_per_second"], color="C1", linestyle="--", label="bound of the device"
    )
    axes.set_xscale("log")
    axes.set_xticks(batches, [f"{batch:,}" for batch in batches])
    axes.minorticks_off()
    axes.set_ylim(0, 1.15 * max(*high, result["bound_steps_per_second"]))
    axes.set(
        xlabel="sessions at once",
        ylabel="environment steps per second",
        title=f"{result['dataset']}, {result['device']}",
    )
    axes.title.set_fontsize("medium")
    axes.yaxis.set_major_formatter("{x:,.0f}")
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")


def _plot_votes(axes: Axes, rows: list[dict[str, Any]]) -> None:
    """One colour per vote, one marker per catalogue size; solid with pair tables, dashed with item features."""
    sizes = sorted({row["items"] for row in rows})
    votes = sorted({row["vote"] for row in rows})
    for vote, catalogue, items in sorted(
        {(row["vote"], row["catalogue"] or "", row["items"]) for row in rows}
    ):
        if vote == "f_sta" and items != sizes[-1]:
            continue  # nearly the same for every catalogue size
        line = [
            (row["history"], row["microseconds"])
            for row in rows
            if (row["vote"], row["catalogue"] or "", row["items"]) == (vote, catalogue, items)
        ]
        axes.plot(
            *zip(*line, strict=True),
            color=f"C{votes.index(vote)}",
            linestyle="--" if catalogue == "features" else "-",
            marker=_MARKERS[sizes.index(items) % len(_MARKERS)],
            markersize=4,
            linewidth=1,
            label=" ".join(filter(None, (vote, catalogue, f"{items:,}"))),
        )
    axes.set(
        xscale="log",
        yscale="log",
        xlabel="history length",
        ylabel="microseconds per decision",
        title="each vote alone",
    )
    histories = sorted({row["history"] for row in rows})
    axes.set_xticks(histories, [str(history) for history in histories])
    axes.minorticks_off()
    axes.title.set_fontsize("medium")
    axes.grid(alpha=0.3)
    axes.legend(fontsize="x-small", loc="center left", bbox_to_anchor=(1.0, 0.5))
