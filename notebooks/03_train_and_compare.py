# %% [markdown]
# # 3 Train and compare four agents
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/)
#
# PPO, TRPO, A2C and DQN are four well-known algorithms of reinforcement learning. In this notebook you train
# all four as recommenders, look at how they learn, and find out which of them is better, and how sure you can
# be.

# %%
# Installs jaxsim where it is missing, and builds MovieLens 100K where it is missing, in about two minutes.
import importlib.util
import subprocess
import sys
from pathlib import Path


def run(*words):
    """Run `python -m WORDS`, and show what it prints."""
    done = subprocess.run([sys.executable, "-m", *words], capture_output=True, text=True)
    print((done.stdout + done.stderr).replace(f"{Path.cwd()}/", ""), end="")
    done.check_returncode()


if importlib.util.find_spec("jaxsim") is None:
    clone = [".."] if Path("../pyproject.toml").is_file() else []
    wheels = [str(path) for path in Path().glob("jaxsim_recsys-*.whl")]
    run("pip", "install", "--quiet", *(clone or wheels or ["jaxsim-recsys"]))

import jaxsim
from jaxsim.compilation_cache import use_compilation_cache

programs = use_compilation_cache()  # they are kept there, so that the next start is faster
try:
    dataset = jaxsim.load_dataset("ml-100k")
except jaxsim.InputError:
    print("downloading and building MovieLens 100K ...")
    run("prep", "build", "ml-100k")
    dataset = jaxsim.load_dataset("ml-100k")

# %% [markdown]
# ## Train
#
# An *agent* recommends films, sees what is liked, and changes its rule so that more is liked. An agent of
# reinforcement learning starts with random numbers. If you start twice, with two *seeds*, you get two different
# recommenders. So one training says little. We train two seeds of each; for a paper you would train five or
# more.
#
# 40,000 steps of each seed are a fifth of the default, so that this cell takes about a minute. One step is one
# recommendation.

# %%
import jax
import numpy as np
import pandas as pd

import agents

env, params = jaxsim.make(dataset)
algorithms, trainings = {}, {}
for name, (config, algorithm) in agents.ALGORITHMS.items():
    algorithms[name] = algorithm(env, config(total_steps=40_000))
    print(name)
    trainings[name] = agents.train_seeds(algorithms[name], params, seed=0, num_seeds=2)

# %% [markdown]
# ## How they learn
#
# Each training has a log with the like rate of the recommendations while it learned.

# %%
import matplotlib.pyplot as plt

figure, axes = plt.subplots(figsize=(6, 3.2))
for name, training in trainings.items():
    curve = training.log.groupby("steps")["like_rate"].mean()
    axes.plot(curve.index, curve, label=name)
axes.set(xlabel="steps of a seed", ylabel="like rate while learning", title="Mean of two seeds")
axes.legend(frameon=False)
axes.grid(alpha=0.3)

# %% [markdown]
# **What to look at.** All begin where random recommendations are, near 0.7. Then the lines rise. A curve that
# still rises at its end belongs to an agent that has not learned all it can. While it learns, an agent also
# tries films of which it knows little, so the curve is lower than what the finished recommender earns.
#
# ## Judge them
#
# Never compare agents by their learning curves alone. We let all finished recommenders meet the **same
# sessions**: the same users, with the same random numbers. Beside them we put simple rules, the *baselines*:
#
# | baseline | what it recommends |
# |---|---|
# | random | any film |
# | popular | the film that most people rated |
# | like_rate | the film with the highest share of likes |
# | static_best | one list for everyone, made with the simulator itself |
# | oracle | looks into the simulated user's head; no real recommender can |

# %%
learned = {
    name: [
        algorithms[name].policy_of(jax.tree.map(lambda x, seed=seed: x[seed], training.variables))
        for seed in range(2)
    ]
    for name, training in trainings.items()
}
result = agents.evaluate(dataset, env, params, learned, jax.random.key(7))

# %%
rows = pd.DataFrame([vars(row) for row in result.rows])
shown = rows[rows.users == "held_out"].sort_values("a_rwd", ascending=False)
shown = shown[
    ["policy", "seeds", "a_rwd", "a_rwd_low", "a_rwd_high", "share_of_oracle", "coverage"]
]
shown.round(2).reset_index(drop=True)

# %% [markdown]
# **What to look at.** These are users whose sessions no agent trained on (*held out*).
#
# - `a_rwd` is the mean number of likes in a session. Sessions have 36.8 recommendations on average.
# - `a_rwd_low` and `a_rwd_high` are a 95 % interval. For an agent it says how much another *training* may
#   differ, and with two seeds that is hardly known: so the intervals are wide. For a baseline, which has no
#   seeds, it says how much other *users* may differ.
# - `share_of_oracle` is 0 for random and 1 for the oracle.
# - `coverage` is the share of all films that are ever recommended. Small numbers mean that everyone gets the
#   same.
#
# ## Which one is better?
#
# Two intervals that overlap do not say that two agents are equal. Both met the same sessions, so look at the
# *differences* in each session. Some users like much and some little, and that cancels out in a difference.

# %%
returns = {
    policy: result.returns[f"{policy}/{'greedy' if policy in learned else 'baseline'}/held_out"]
    for policy in shown.policy
}
users = result.sessions["sessions/users/held_out"]


def difference(a, b):
    """Likes a session of a minus those of b: the mean and its 95 % interval over users."""
    by_session = returns[a].mean(axis=0) - returns[b].mean(axis=0)  # mean over seeds
    by_user = pd.Series(by_session).groupby(users).mean()
    mean, error = by_user.mean(), by_user.std() / np.sqrt(len(by_user))
    return mean, mean - 1.96 * error, mean + 1.96 * error


for other in ("random", "popular", "like_rate", "static_best", "oracle"):
    for agent in learned:
        mean, low, high = difference(agent, other)
        print(f"{agent:5} minus {other:12} {mean:+6.2f} ({low:+.2f} to {high:+.2f})")
    print()

# %% [markdown]
# **What to look at.** If an interval contains 0, no difference is shown. If all of it is above 0, the agent
# earns more than the baseline with these users.
#
# - Every agent earns far more than `random`, and clearly more than `popular`. That is the least that one should
#   ask for.
# - Compare with `static_best`. It does not know the user at all. An agent that does not earn more has learned
#   which films are good for *everyone*, and hardly anything about the single user. That is what happens here,
#   and it is common. Only a comparison with such a baseline shows it.
#
# `python -m agents train`, `evaluate` and `compare` do the same from a terminal, with more seeds, and keep
# everything in a folder. docs/training.md has agents that do adapt to each user.
#
# ## Exercise
#
# Train `ppo` with `total_steps=120_000` and two seeds. Does it come nearer to `static_best`? Use `difference`
# to say how sure you are.
#
# Next: [4 Your own data and your own language model](04_your_own_data.ipynb)
