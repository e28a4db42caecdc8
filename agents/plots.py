"""The learning curve of a run."""

import pandas as pd
from matplotlib.figure import Figure

from agents.evaluation import Row


def learning_curve(log: pd.DataFrame, rows: list[Row], title: str) -> Figure:
    """Likes per recommendation against steps: of all seeds while training, and of the evaluated policies.

    Args:
        log: of `Training`.
        rows: of `evaluate`; those of train users are shown as lines.
        title: of the figure.
    """
    figure = Figure(figsize=(7.5, 4.5), layout="constrained")
    axes = figure.add_subplot()
    seeds = log.pivot(index="steps", columns="seed", values="like_rate")
    low, high = seeds.min(axis=1), seeds.max(axis=1)
    axes.fill_between(seeds.index, low, high, color="C0", alpha=0.25, linewidth=0)
    axes.plot(
        seeds.index,
        seeds.mean(axis=1),
        color="C0",
        label="while training, exploring: mean and range of seeds",
    )
    train = [row for row in rows if row.users == "train"]
    for color, row in enumerate(sorted(train, key=lambda r: -r.like_rate), start=1):
        name = f"{row.policy}, greedy, after training" if row.steps else row.policy
        label = f"{name}: {row.like_rate:.3f}"
        axes.axhline(row.like_rate, color=f"C{color}", linewidth=1, linestyle="--", label=label)
    axes.set(
        xlabel="environment steps of a seed",
        ylabel="likes per recommendation",
        title=title,
    )
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right", fontsize="small")
    return figure
