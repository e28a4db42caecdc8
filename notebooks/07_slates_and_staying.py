# %% [markdown]
# # 7 Slates and staying
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/)
#
# So far users got one film at a time, and left at random. Real ones see several items side by side, leave when
# they had enough, and come back on another day, or never. Three options of `jaxsim.make` add that:
# `slate_size`, `departure` and `visits`.

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
# ## Several films at once
#
# With `slate_size=5` an action is a *slate* of five films, and the user chooses one or none. Slates need users
# who like with a probability, so `semantics="calibrated"`. `env.best_slate` makes the best slate from scores of
# all films.

# %%
import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

env, params = jaxsim.make(dataset, semantics="calibrated", slate_size=5)
obs, state = env.reset_user(0, params)
slate = env.best_slate(env.scores(state, params), obs)
obs, state, reward, terminated, truncated, info = env.step(jax.random.key(0), state, slate, params)
names = [dataset.item_name(int(film)) for film in slate]
shown = pd.DataFrame({"film": [*names, "(none of them)"]}, index=[1, 2, 3, 4, 5, "-"])
shown["liked alone"] = [*np.array(jax.nn.sigmoid(info["scores"])).round(2), ""]
shown["chosen from the slate"] = np.array(info["probabilities"]).round(2)
shown

# %%
print(env.describe(dataset, jax.device_get(info)))

# %% [markdown]
# **What to look at.** Alone, each of these films would be liked with a high probability. In the slate they
# compete, and the probabilities of the last column add up to 1. Later places are seen less: the odds of place k
# are divided by k. That is an assumption, taken from studies of search engines, and `position_effect=` changes
# it.
#
# How much does the place matter? We show the same films in reverse order.

# %%
import matplotlib.pyplot as plt

history = params.histories.items[0], params.histories.likes[0]
chances = [
    env.respond(jax.random.key(0), *history, films, params, user=0).probabilities
    for films in (slate, slate[::-1])
]
figure, axes = plt.subplots(figsize=(6, 2.8))
place = np.arange(5)
axes.barh(place - 0.2, chances[0][:5], height=0.4, label="best film first")
axes.barh(place + 0.2, chances[1][:5][::-1], height=0.4, label="best film last")
axes.set_yticks(place, [name[:28] for name in names])
axes.invert_yaxis()
axes.set(xlabel="probability of being chosen")
axes.legend(frameon=False)
axes.grid(alpha=0.3)

# %% [markdown]
# **What to look at.** The same film has very different chances at the first and at the last place. So clicks in
# a log of slates say as much about places as about films.
#
# Do better recommendations still pay? We let simple rules play: films at random, the most popular ones, and the
# *oracle*, which sees the simulator's own scores. All of them meet the same sessions of held-out users.

# %%
from agents import fixed_sessions, run_sessions
from agents.evaluation.baselines import FixedRanking, RandomPolicy, training_counts
from agents.evaluation.oracle import Oracle

popularity = jnp.asarray(training_counts(dataset)[0], jnp.float32)
rules = {"random": RandomPolicy(), "popular": FixedRanking(popularity), "oracle": Oracle()}


def outcomes(policies=rules, **options):
    """What policies earn from users with some options of `jaxsim.make`."""
    env, params = jaxsim.make(dataset, semantics="calibrated", users="held_out", **options)
    sessions = fixed_sessions(jax.random.key(1), env, params, repeats=2)
    return {name: run_sessions(env, params, policy, sessions) for name, policy in policies.items()}


by_size = {size: outcomes(slate_size=size) for size in (1, 5)}
likes = pd.DataFrame(
    {
        f"slates of {size}": {k: x.returns.mean() for k, x in o.items()}
        for size, o in by_size.items()
    }
)
likes.astype(float).round(1)

# %% [markdown]
# **What to look at.** The numbers are likes in a session (with slates: slates from which a film was chosen).
# With five films at once even random ones do well, because something pleasant is often among them. So there is
# less to gain by recommending well. If your product shows ten items at a time, do not expect miracles from a
# better recommender.
#
# ## Users who leave
#
# By default a user leaves after each step with probability 0.025, whatever you recommend. `departure="fitted"`
# takes the probability from the sessions in the data. It depends on how long the session has gone on, and on
# how *obscure* the last five films are: how few people rated them.

# %%
env, params = jaxsim.make(dataset, semantics="calibrated", departure="fitted")
step_env = jax.jit(env.step_env)  # a step without the automatic reset


def chance_of_leaving(films):
    """After each of some films that user 0 gets."""
    _, state = env.reset_user(0, params)
    chances = []
    for number, film in enumerate(films):
        _, state, _, _, info = step_env(jax.random.key(number), state, jnp.int32(film), params)
        chances.append(float(info["departure_probability"]))
    return chances


obs, _ = env.reset_user(0, params)
allowed = np.flatnonzero(env.action_mask(obs, params))
ranked = allowed[np.argsort(-np.array(popularity)[allowed], kind="stable")]
figure, axes = plt.subplots(figsize=(5, 3))
for label, films in (("popular films", ranked[:40]), ("obscure films", ranked[::-1][:40])):
    chances = chance_of_leaving(films)
    print(f"{label}: {chances[4]:.3f} after five of them")
    axes.plot(np.arange(1, 41), chances, label=label)
axes.axhline(0.025, color="grey", linestyle=":", label="the default")
axes.set(xlabel="step of the session", ylabel="probability of leaving", ylim=(0, None))
axes.legend(frameon=False)
axes.grid(alpha=0.3)

# %% [markdown]
# **What to look at.** Compare the lines at the same step. Obscure films make an end more probable, and that
# adds up over a session. `env.departure_of(state, params)` says how much each part contributes.
#
# So a recommender can now *keep* its users. The oracle above only looks at the next like. `oracle_planning`
# also thinks of what the user will still give if they stay.

# %%
from agents.evaluation.planning import plan

staying = outcomes({**rules, "oracle_planning": plan(env, params)}, departure="fitted")
pd.DataFrame(
    {
        "likes a session": {name: outcome.returns.mean() for name, outcome in staying.items()},
        "steps a session": {name: outcome.steps.mean() for name, outcome in staying.items()},
    }
).astype(float).round(1)

# %% [markdown]
# **What to look at.** Which rule has the longest sessions, and which the most likes? The one-step oracle finds
# what pleases next, but some of it is obscure, and users go. Planning gives up a little now and gets more in
# the end. The discount `gamma` of an agent says how far it looks ahead; here a large one pays
# (docs/departure.md).
#
# ## Users who come back
#
# With `visits=True` an episode is a user's *life* of several sessions. After each one the user returns some
# days later, or not at all, as in the data. Here are forty users over 30 days, who always get the most popular
# films.

# %%
options = {"departure": "fitted", "visits": True, "horizon_days": 30.0, "session_capacity": 200}
env, params = jaxsim.make(dataset, semantics="calibrated", **options)


@jax.jit
def life(user, key, params):
    """The steps of a life: session, day, like, and whether the life still goes on; [200] each."""

    def step(carry, key):
        obs, state, over = carry
        film = jnp.argmax(jnp.where(env.action_mask(obs, params), popularity, -1))
        obs, state, reward, gone, info = env.step_env(key, state, film, params)
        happened = {"session": info["session"], "day": info["day"], "like": reward, "counts": ~over}
        return (obs, state, over | gone), happened

    obs, state = env.reset_user(user, params)
    start = obs, state, jnp.bool_(False)
    return jax.lax.scan(step, start, jax.random.split(key, 200))[1]


users = dataset.session_users("held_out")[:40]
keys = jax.random.split(jax.random.key(3), len(users))
lives = jax.vmap(life, (0, 0, None))(jnp.asarray(users), keys, params)
columns = {name: np.array(values).ravel() for name, values in lives.items()}
steps = pd.DataFrame({"user": np.repeat(users, 200), **columns})
sessions = (
    steps[steps.counts]
    .groupby(["user", "session"])
    .agg(day=("day", "first"), recommendations=("like", "size"), likes=("like", "sum"))
    .reset_index()
)
sessions[sessions.user == sessions.user[sessions.session.idxmax()]].round(1)

# %%
figure, axes = plt.subplots(figsize=(6, 3.6))
row = sessions.user.rank(method="dense")
axes.scatter(sessions.day, row, s=sessions.recommendations, alpha=0.6)
axes.set(xlabel="day", ylabel="user", title="A dot is a session, and its size the recommendations")
axes.grid(alpha=0.3)

# %% [markdown]
# **What to look at.** The table shows the user with the most sessions. In the picture each line is a user: many
# come once and are never seen again, and a few come often. That is what MovieLens is like. Your own data may be
# different.
#
# What does a recommender have to do with it?

# %%
from agents.evaluation.visits import visit_statistics

lived = outcomes(**options)
statistics = {name: visit_statistics([outcome.visits]) for name, outcome in lived.items()}
table = pd.DataFrame(statistics).T[["sessions_per_life", "retention_7", "days_active"]]
table.insert(0, "likes_of_a_life", {name: x.returns.mean() for name, x in lived.items()})
table.astype(float).round(2)

# %% [markdown]
# **What to look at.** `retention_7` is the share of sessions after which the user is back within a week. It
# hardly depends on the rule: in this dataset, people do not come back *because* they liked what they got, as
# far as the logs show. If a simulator told you otherwise, you should ask where it knows that from. (Rules with
# long sessions even have fewer of them here, because a life ends at 200 recommendations.)
#
# ## Exercise
#
# Show slates of five to users with `departure="fitted"`. Does the popular rule still keep users longer than the
# oracle does? Use `outcomes(slate_size=5, departure="fitted")`.
#
# docs/slates.md, docs/departure.md and docs/visits.md have the models behind this notebook.
