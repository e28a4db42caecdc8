"""The learning curve of a run."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from agents.evaluation import Row


def learning_curve(log: pd.DataFrame, rows: list[Row], title: str) -> Figure:
    """Like rate of the behaviour policy against steps, all seeds, with the greedy results as lines.

    Args:
        log: of `Training`.
        rows: of `evaluate`; the lines are A.Rwd of train users as a share of the largest possible.
        title: of the figure.
    """
    figure = Figure(figsize=(7.5, 4.5), layout="constrained")
    axes = figure.add_subplot()
    seeds = log.pivot(index="steps", columns="seed", values="like_rate")
    low, high = seeds.min(axis=1), seeds.max(axis=1)
    axes.fill_between(seeds.index, low, high, color="C0", alpha=0.25, linewidth=0)
    axes.plot(seeds.index, seeds.mean(axis=1), color="C0", label="while training, all seeds")
    train = [row for row in rows if row.users == "train"]
    longest = max((row.a_rwd for row in train if row.policy == "oracle"), default=np.nan)
    shown = [
        r for r in train if r.policy in ("random", "popular", "like_rate", "static_best") or r.steps
    ]
    for color, row in enumerate(sorted(shown, key=lambda r: -r.a_rwd), start=1):
        rate = row.a_rwd / longest
        name = f"{row.policy}, greedy" if row.steps else row.policy
        axes.axhline(
            rate, color=f"C{color}", linewidth=1, linestyle="--", label=f"{name}: {rate:.3f}"
        )
    axes.set(
        xlabel="environment steps of a seed",
        ylabel="likes per recommendation (oracle = 1)",
        title=title,
    )
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right", fontsize="small")
    return figure
