"""Learning curves with the range of their seeds, beside the results of the evaluation after training."""

from collections.abc import Mapping, Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from agents.evaluation.returns import BASELINE, GREEDY, SAMPLED
from agents.evaluation.table import Row

_MARKERS = {GREEDY: "o", SAMPLED: "x"}
_BASELINE_STYLES = ("--", ":", "-.")


def learning_curve(log: pd.DataFrame, rows: Sequence[Row], title: str) -> Figure:
    """The learning curve of one run.

    Args:
        log: the log of a `Training`.
        rows: the rows of its `Evaluation`; those of train users are shown.
        title: title of the figure.
    """
    name = next((row.policy for row in rows if row.mode != BASELINE), "agent")
    figure = Figure(figsize=(8.5, 4.5), layout="constrained")
    plot_curves(figure.add_subplot(), {name: log}, rows, title)
    return figure


def plot_curves(
    axes: Axes, logs: Mapping[str, pd.DataFrame], rows: Sequence[Row], title: str
) -> None:
    """Draw likes per recommendation against steps, for one or several agents.

    A line is the mean of an agent's seeds while it trains and explores, and its band is their range. Markers at
    the end of the line are the evaluated policies. Horizontal lines are the baselines.

    Args:
        axes: where to draw; the legend stands on its right.
        logs: agent to the log of its `Training`.
        rows: the rows of an `Evaluation`; those of train users are shown.
        title: title of the axes.
    """
    train = sorted((row for row in rows if row.users == "train"), key=lambda r: -r.like_rate)
    for index, (name, log) in enumerate(logs.items()):
        color = f"C{index}"
        seeds = log.pivot(index="steps", columns="seed", values="like_rate")
        label = f"{name}, training: mean and range of {seeds.shape[1]} seeds"
        if seeds.shape[1] == 1:
            label = f"{name}, training: one seed"
        low, high = seeds.min(axis=1), seeds.max(axis=1)
        axes.fill_between(seeds.index, low, high, color=color, alpha=0.25, linewidth=0)
        axes.plot(seeds.index, seeds.mean(axis=1), color=color, label=label)
        for row in (row for row in train if row.policy == name and row.mode != BASELINE):
            text = f"{name}, {row.mode}: {row.like_rate:.3f}"
            axes.plot(seeds.index[-1], row.like_rate, _MARKERS[row.mode], color=color, label=text)
    _plot_baselines(axes, [row for row in train if row.mode == BASELINE])
    axes.set(xlabel="environment steps of one seed", ylabel="likes per recommendation", title=title)
    axes.xaxis.set_major_locator(MaxNLocator(5))  # more of these long numbers would overlap
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.grid(alpha=0.3)
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize="small")


def _plot_baselines(axes: Axes, rows: Sequence[Row]) -> None:
    """Horizontal lines in shades of grey; the best baseline is darkest."""
    for index, row in enumerate(rows):
        axes.axhline(
            row.like_rate,
            color=str(0.7 * index / len(rows)),
            linestyle=_BASELINE_STYLES[index % len(_BASELINE_STYLES)],
            linewidth=1,
            label=f"{row.policy}: {row.like_rate:.3f}",
        )
