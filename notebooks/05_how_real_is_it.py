# %% [markdown]
# # 5 How real is it?
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/)
#
# A simulator always gives numbers. Whether they say anything about people is another question, and you should
# ask it before you trust a recommender that was trained there. In this notebook you ask it twice. *Fidelity*:
# do the simulated users answer as people do? *Validity*: does a recommender that is better for them also please
# people better?
#
# This notebook uses the package `benchmarks`, so it needs a clone of the repository and not only the installed
# package.

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

# %%
if importlib.util.find_spec("benchmarks") is None:
    sys.path.insert(0, "..")  # the clone that this notebook is in

# %% [markdown]
# ## Ratings that nobody has seen
#
# The last tenth of every person's ratings was put aside, and no model was fitted to it. So we can ask a model:
# this person rated these 50 films before; would they like that one? And then we look at what they really said.

# %%
import numpy as np
import pandas as pd

from benchmarks.fidelity.accuracy import best_baseline, reliability
from benchmarks.fidelity.registry import PREDICTORS
from benchmarks.fidelity.study import Settings, Study, predictions
from benchmarks.validity.simulators import ITEM_RATE

study = Study.of(dataset, Settings(resamples=200), (*PREDICTORS, ITEM_RATE))
fitted = study.fit(study.data)
scores = predictions(fitted, study.events)
people = study.events.label
print(
    f"{len(people):,} ratings of {study.bootstrap.num_users} people; {people.mean():.0%} are likes"
)

# %% [markdown]
# Some of the predictors:
#
# | predictor | what it knows |
# |---|---|
# | item_rate | how often the film is liked; nothing about the person |
# | bias_residual | also how much more or less than others the person likes; no film beside the rates |
# | f_mat, f_sim, f_sta | one of the three votes each, as a number |
# | paper | the default simulator: two of three votes |
# | taste | the taste model, which `semantics="calibrated"` plays |
#
# ### Who tells likes from dislikes?
#
# Take a film that a person liked and one that they did not. How often does a predictor give the liked one the
# higher score? That share is the **AUC**. 0.5 is a coin, and 1 is perfect.

# %%
import matplotlib.pyplot as plt

reference = best_baseline(study, fitted)
compared = study.compare(scores, reference)
auc = pd.DataFrame(compared["auc"]).T
names = ["taste", "bias_residual", "f_sta", "item_rate", "f_mat", "paper", "f_sim"]
shown = auc.loc[names].astype(float).sort_values("value")
figure, axes = plt.subplots(figsize=(5, 2.8))
error = [shown.value - shown.low, shown.high - shown.value]
axes.errorbar(shown.value, shown.index, xerr=error, fmt="o")
axes.axvline(0.5, color="grey", linestyle=":")
axes.set(xlabel="AUC, with 95 % interval", title="0.5 is a coin")
axes.grid(alpha=0.3)
shown.iloc[::-1].round(3)

# %% [markdown]
# **What to look at.**
#
# - *item_rate* knows nobody, and does quite well. So most of what can be predicted is which films are good.
#   Whatever a simulator adds must be compared with that, and not with 0.5.
# - *bias_residual* is a **baseline**: very simple, and hard to beat. `taste` beats it by a little.
# - *paper*, the default simulator, is worse than its own part f_sta, and worse than item_rate. The majority of
#   three votes throws away how sure each vote is.
#
# Is the little that `taste` is better more than chance? Both predictors met the same people, so look at the
# difference:

# %%
gain = compared["difference"]["taste"]
print(f"taste minus {reference}: {gain['value']:+.3f} ({gain['low']:+.3f} to {gain['high']:+.3f})")

# %% [markdown]
# The interval is above 0, so it is not chance.
#
# ### If it says 70 %, are 70 % liked?
#
# A model can be good at *ordering* and still be wrong in its *numbers*. So we put together all ratings for
# which a model says about 70 %, and count how many are likes. If the numbers mean what they say, the points lie
# on the line.

# %%
bins = reliability(study, scores)
figure, axes = plt.subplots(figsize=(3.6, 3.6))
axes.plot([0, 1], [0, 1], color="grey", linestyle=":")
for name in ("taste", "paper"):
    predicted = [group["predicted"] for group in bins[name]]
    observed = [group["observed"]["value"] for group in bins[name]]
    axes.plot(predicted, observed, "o-", label=name, markersize=4)
axes.set(xlabel="the model says", ylabel="people liked", xlim=(0, 1), ylim=(0, 1))
axes.legend(frameon=False)
axes.grid(alpha=0.3)

# %%
rates = {name: float(scores[name].mean()) for name in ("taste", "paper")}
pd.Series({"people": float(people.mean()), **rates}).round(3).to_frame("share of likes")

# %% [markdown]
# **What to look at.** `taste` lies near the line. `paper` says 0, 1 or something between only where coins fall,
# and its users like too much. So do not read "90 % of my recommendations are liked" in the default simulator as
# a promise.
#
# ### A control
#
# Does the history of a person matter at all? We give every rating the history of *another* person. If a model
# is about persons, it must get worse.

# %%
from benchmarks.fidelity.events import exchanged

strangers = exchanged(study.events, seed=0)
control = {
    name: {
        "own history": study.auc_value(scores[name]),
        "a stranger's history": study.auc_value(fitted[name].predict(strangers)),
    }
    for name in ("taste", "bias_residual", "f_mat", "item_rate")
}
pd.DataFrame(control).T.round(3)

# %% [markdown]
# **What to look at.** `item_rate` does not change, because it does not look at the history. `taste` falls,
# below `item_rate` even: a wrong history is worse than none. So what it has learned is really about the person.
#
# ## Would the better recommender win with people, too?
#
# This is what matters in the end. We cannot show new films to the people of 1998. But each of them rated some
# films in the last tenth, and recommenders can *pick* among these: then we know what the person said. Simple
# recommenders, good and bad ones, pick five films for each person, and each simulator predicts how many of the
# picks are liked.

# %%
from benchmarks.validity.judgement import judge_all
from benchmarks.validity.policies import policies
from benchmarks.validity.replay import Replay
from benchmarks.validity.settings import Settings as ReplaySettings
from benchmarks.validity.simulators import probabilities, simulators

replay = Replay.of(dataset, ReplaySettings(resamples=200))
believed = probabilities(simulators(study), replay.candidates)
recommenders = policies(study, replay, believed)
picked = np.stack([recommender.picked for recommender in recommenders])
real = replay.value(picked, replay.label)
simulated = {name: replay.value(picked, probability) for name, probability in believed.items()}
print(f"{len(recommenders)} recommenders pick for {replay.bootstrap.num_users} people")

# %%
figure, both = plt.subplots(1, 2, figsize=(6.5, 3.4), sharex=True, sharey=True)
for axes, name in zip(both, ("taste", "paper"), strict=True):
    axes.plot([0.2, 1], [0.2, 1], color="grey", linestyle=":")
    axes.scatter(real[0], simulated[name][0], s=14)
    axes.set(xlabel="people liked", title=name)
    axes.grid(alpha=0.3)
both[0].set_ylabel("the simulator believes")
figure.tight_layout()

# %% [markdown]
# **What to look at.** A point is a recommender. To the right are those that people like, and above are those
# that the simulator likes. On the line both agree. If the points rise from left to right, the simulator *ranks*
# recommenders as people do. Kendall's tau puts that into a number: 1 is the same order, 0 is no relation.

# %%
judged = judge_all(recommenders, simulated, real)
rows = {
    name: {
        "tau": judged[name]["tau"]["value"],
        "its own best: believed": judged[name]["own_simulated"]["value"],
        "its own best: real": judged[name]["own_real"]["value"],
    }
    for name in ("taste", "bias_residual", "item_rate", "paper")
}
pd.DataFrame(rows).T.round(3)

# %% [markdown]
# **What to look at.** The last two columns are about the recommender that picks what the simulator likes best.
# That is where a reinforcement-learning agent ends if you let it train for long.
#
# - With `taste`, it believes a little too much, and people do like its picks.
# - With `paper`, it believes that nearly all its picks are liked, and people like about half of them, hardly
#   more than of random films. It has learned to please the simulator.
#
# So use `semantics="calibrated"` where you want to say something about people, and `"paper"` where you want to
# repeat the paper. And do not forget what even the best of these figures do not say: people *chose* the films
# that they rated, and nobody knows how they would have liked the others.
#
# `python -m benchmarks fidelity` and `validity` do all of this with more resamples and more tests.
#
# ## Exercise
#
# Which recommender does `paper` overrate most, and what does it pick? `simulated["paper"][0] - real[0]` has the
# differences, and `recommenders[i].about` says what each one does.
#
# Next: [6 Your own user model and your own agent](06_your_own_user_and_agent.ipynb)
