# %% [markdown]
# # 6 Your own user model and your own agent
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/)
#
# Two parts of this package are meant to be replaced by your ideas: the model of the users, and the agent that
# recommends to them. In this notebook you write both: a user who has favourite genres, in 25 lines, and PPO, in
# 80 lines of plain JAX.
#
# You should know `jit`, `vmap` and `scan` of JAX; notebook 1 uses them.

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
# ## A model of users
#
# Our hypothesis: a user likes a film as other people do, plus or minus what they think of its genres. What they
# think of a genre we learn from their answers so far. For each film that they had, take the *residual*: 1 for a
# like or 0 for a dislike, minus the like rate of the film. A user whose residuals of horror films are positive
# likes horror more than others do.
#
# A `jaxsim.UserModel` says three things:
#
# - `init`: what it remembers after the initial history;
# - `probability`: how probable a like of a film is;
# - `update`: what it remembers after one more answer.
#
# All three are for *one* user. The package vmaps them.

# %%
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd


@dataclass(frozen=True)
class GenreFan(jaxsim.UserModel):
    strength: float = 1.0  # how much the genres count
    doubt: float = 5.0  # how many films of a genre it takes to be half convinced

    def init(self, params, user, items, likes, length):
        genres = params["genres"][items] * (items >= 0)[:, None]  # -1 is no film
        residuals = likes - params["rates"][items]
        return {"films": genres.sum(axis=0), "residuals": residuals @ genres}

    def probability(self, params, state, item):
        opinion = state["residuals"] / (state["films"] + self.doubt)  # of each genre
        genres = params["genres"][item]
        personal = genres @ opinion / jnp.maximum(genres.sum(), 1.0)
        return jnp.clip(params["rates"][item] + self.strength * personal, 0.01, 0.99)

    def update(self, params, state, item, like):
        genres = params["genres"][item]
        residual = like - params["rates"][item]
        return {
            "films": state["films"] + genres,
            "residuals": state["residuals"] + residual * genres,
        }


# %% [markdown]
# The class holds settings only. Arrays go into `user_params`: the smoothed like rate of each film in the
# training data, and a table of films and genres with 1 where a film has a genre.

# %%
training = dataset.arrays["interaction_split"] == 0
film, label = (dataset.arrays[f"interaction_{name}"][training] for name in ("item", "label"))
counts = np.bincount(film, minlength=dataset.num_items)
rates = (np.bincount(film, label, dataset.num_items) + 2.5) / (counts + 5)

categories = dataset.arrays["item_categories"]  # genre numbers, -1 where there is no more
genres = np.zeros((dataset.num_items, len(dataset.categories)), np.float32)
rows, places = np.nonzero(categories >= 0)
genres[rows, categories[rows, places]] = 1

user_params = {"rates": jnp.asarray(rates, jnp.float32), "genres": jnp.asarray(genres)}
env, params = jaxsim.make(dataset, user_model=GenreFan(), user_params=user_params)
print(env)

# %% [markdown]
# `make` has tried the model on a few users and films, and would have told you in one line what is wrong with
# it. What does the model believe about user 0?

# %%
obs, state = env.reset_user(0, params)
opinion = state.user_state["residuals"] / (state.user_state["films"] + GenreFan().doubt)
believed = pd.Series(np.array(opinion), dataset.categories).sort_values()
print("likes less than others do:", ", ".join(believed.index[:3]))
print("likes more than others do:", ", ".join(believed.index[-3:]))
expected = np.array(env.expected_response(state, params))  # the probability for each film
allowed = np.array(env.action_mask(obs, params))
best = np.argsort(np.where(allowed, expected, -1))[::-1][:5]
pd.DataFrame({"film": [dataset.item_name(i) for i in best], "probability": expected[best].round(2)})

# %% [markdown]
# ## Is it true?
#
# A model of users is a claim about people, so test it. Each person has ratings that no model was fitted to:
# their first one after the training ratings. We ask each model for the probability of a like, and compute the
# **AUC**: take a film that was liked and one that was not, and ask how often the liked one has the higher
# probability. 0.5 is chance, and 1 is perfect.

# %%
from sklearn.metrics import roc_auc_score

held = np.flatnonzero(dataset.arrays["interaction_split"] == 1)
owner = dataset.interaction_user()[held]
users, first = np.unique(owner, return_index=True)
rows = held[first]
films = dataset.arrays["interaction_item"][rows]
labels = dataset.arrays["interaction_label"][rows]


def auc(env, params):
    """How well the users of an environment agree with people."""

    def ask(user, film, params):
        histories = params.histories
        history = histories.items[user], histories.likes[user]
        return env.respond(jax.random.key(0), *history, film, params, user=user).probability

    ask_all = jax.jit(jax.vmap(ask, (0, 0, None)))
    probability = ask_all(jnp.asarray(users), jnp.asarray(films), params)
    return roc_auc_score(labels, probability)


models = {"GenreFan": (env, params)}
without = GenreFan(strength=0.0)
models["like rate of the film alone"] = jaxsim.make(
    dataset, user_model=without, user_params=user_params
)
models["paper: three votes"] = jaxsim.make(dataset)
models["calibrated: the taste model"] = jaxsim.make(dataset, semantics="calibrated")
scores = {name: auc(*model) for name, model in models.items()}
print(f"AUC on {len(labels)} ratings")
pd.Series(scores).round(3).sort_values().to_frame("AUC")

# %% [markdown]
# **What to look at.** The line "like rate of the film alone" is the model without the idea. What `GenreFan` has
# above it is what the genres add. The paper's three votes stand below both, which notebook 5 looks into. With
# so few ratings, differences of 0.02 may be chance. `python -m benchmarks fidelity` judges models on ten times
# as many ratings, with intervals: docs/fidelity.md says how to add yours.
#
# ## An agent of your own: PPO
#
# PPO is used everywhere, and it fits on two screens. It has a *network* that gives every film a score, from
# which a softmax makes probabilities, and that gives every situation a *value*: what it expects to earn from
# there on.
#
# It repeats three things. It **collects** some steps with the present network. It computes the **advantage** of
# each step: did the film earn more than the value had promised? And it **learns**: films with a positive
# advantage become more probable, but in small changes, which is what the *clip* in the loss is for.

# %%
import optax

WIDTH, SESSIONS, STEPS, BATCHES = 32, 128, 8, 8
GAMMA, LAMBDA, CLIP, ENTROPY = 0.4, 0.2, 0.2, 0.001


def new_network(key, num_items):
    """Random weights; a user is the mean of liked films beside the mean of disliked ones."""
    key_items, key_hidden, key_actor = jax.random.split(key, 3)
    return {
        "items": jax.random.normal(key_items, (num_items, WIDTH)),
        "hidden": jax.random.normal(key_hidden, (2 * WIDTH, WIDTH)) / jnp.sqrt(2 * WIDTH),
        "actor": 0.01 * jax.random.normal(key_actor, (WIDTH, num_items)),
        "bias": jnp.zeros(num_items),
        "critic": jnp.zeros(WIDTH),
        "level": jnp.float32(0.5 / (1 - GAMMA)),
    }


def scores_and_value(network, obs):
    """Scores of all films float32[N], and the value float32[], for one observation."""
    vectors = network["items"][obs.items]

    def mean(chosen):
        return chosen @ vectors / jnp.maximum(chosen.sum(), 1)

    liked, disliked = (jnp.float32(obs.responses == response) for response in (1, -1))
    hidden = jnp.tanh(jnp.concatenate([mean(liked), mean(disliked)]) @ network["hidden"])
    scores = hidden @ network["actor"] + network["bias"]
    return scores, hidden @ network["critic"] + network["level"]


def log_policy(env, network, obs, params):
    """Log-probabilities of all films, of which only allowed ones can be drawn, and the value."""
    scores, value = scores_and_value(network, obs)
    return jax.nn.log_softmax(jnp.where(env.action_mask(obs, params), scores, -1e9)), value


def collect(env, params, network, obs, state, key):
    """STEPS steps of all sessions: the sessions after them, and what happened, [STEPS, SESSIONS]."""

    def one(key, obs, state):
        key_film, key_step = jax.random.split(key)
        log_probabilities, value = log_policy(env, network, obs, params)
        film = jax.random.categorical(key_film, log_probabilities)
        next_obs, state, reward, left, cut, info = env.step(key_step, state, film, params)
        # The step after an end belongs to another user. What this one had left to give is the value of the
        # last observation, and nothing if they left.
        _, last_value = scores_and_value(network, info["final_observation"])
        done, following = left | cut, jnp.where(left, 0.0, last_value)
        return next_obs, state, (obs, film, log_probabilities[film], value, reward, following, done)

    def step(sessions, key):
        keys = jax.random.split(key, SESSIONS)
        obs, state, happened = jax.vmap(one)(keys, *sessions)
        return (obs, state), happened

    return jax.lax.scan(step, (obs, state), jax.random.split(key, STEPS))


def advantages(value, reward, following, done):
    """Generalised advantage estimation, from the last step back to the first."""
    surprise = reward + GAMMA * following - value

    def back(later, step):
        surprise, done = step
        now = surprise + GAMMA * LAMBDA * jnp.where(done, 0.0, later)
        return now, now

    return jax.lax.scan(back, jnp.zeros(SESSIONS), (surprise, done), reverse=True)[1]


def loss(network, env, params, batch):
    """PPO's clipped loss, with the error of the value and a small reward for trying things."""
    obs, film, old_log_probability, advantage, target = batch
    log_probabilities, value = jax.vmap(lambda obs: log_policy(env, network, obs, params))(obs)
    chosen = jnp.take_along_axis(log_probabilities, film[:, None], axis=1)[:, 0]
    ratio = jnp.exp(chosen - old_log_probability)
    advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-4)
    gain = jnp.minimum(ratio * advantage, jnp.clip(ratio, 1 - CLIP, 1 + CLIP) * advantage)
    entropy = -(jnp.exp(log_probabilities) * log_probabilities).sum(axis=1).mean()
    return -gain.mean() + 0.5 * ((value - target) ** 2).mean() - ENTROPY * entropy


def train(env, params, key, iterations=200):
    """The network after training, and the like rate of each iteration while it learned."""
    optimiser = optax.adam(optax.linear_schedule(2e-3, 2e-4, iterations * BATCHES))

    def learn(learner, batch):
        network, moments = learner
        gradient = jax.grad(loss)(network, env, params, batch)
        change, moments = optimiser.update(gradient, moments)
        return (optax.apply_updates(network, change), moments), None

    def iteration(carry, key):
        learner, sessions = carry
        key_collect, key_order = jax.random.split(key)
        sessions, happened = collect(env, params, learner[0], *sessions, key_collect)
        obs, film, log_probability, value, reward, following, done = happened
        advantage = advantages(value, reward, following, done)
        steps = obs, film, log_probability, advantage, advantage + value
        order = jax.random.permutation(key_order, STEPS * SESSIONS).reshape(BATCHES, -1)
        batches = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:])[order], steps)
        learner, _ = jax.lax.scan(learn, learner, batches)
        return (learner, sessions), reward.mean()

    key_network, key_start, key_train = jax.random.split(key, 3)
    network = new_network(key_network, env.num_items)
    start = jax.vmap(env.reset, (0, None))(jax.random.split(key_start, SESSIONS), params)
    carry = (network, optimiser.init(network)), start
    (learner, _), like_rate = jax.lax.scan(
        iteration, carry, jax.random.split(key_train, iterations)
    )
    return learner[0], like_rate


# %% [markdown]
# Two lines in `collect` are easy to get wrong, and many programs do. The environment resets by itself, so the
# next observation after an end is of *another* user: the value must come from `info["final_observation"]`. And
# a session that was *cut* at 100 steps is not a user who *left*: only a user who left has nothing more to give.
#
# The whole training is a function of a key, so we compile it as one program. `env` is a static argument,
# because it holds settings only.

# %%
compiled = jax.jit(train, static_argnames=("env", "iterations"))
network, like_rate = compiled(env, params, jax.random.key(0))
like_rate = np.array(like_rate)
print(
    f"like rate in the first iterations {like_rate[:5].mean():.2f}, in the last {like_rate[-5:].mean():.2f}"
)

# %%
import matplotlib.pyplot as plt

figure, axes = plt.subplots(figsize=(5, 3))
axes.plot(SESSIONS * STEPS * np.arange(1, len(like_rate) + 1), like_rate)
axes.set(
    xlabel="steps",
    ylabel="like rate while learning",
    title="Our PPO on users with favourite genres",
)
axes.grid(alpha=0.3)

# %% [markdown]
# ## Judge it
#
# The package's evaluation takes any policy with a method `choose`. So our agent meets the same sessions as the
# baselines of notebook 3. We judge with held-out users, whose sessions the agent has not seen.

# %%
from typing import Any

from flax import struct

from agents import fixed_sessions, run_sessions
from agents.algorithms.policy import Memoryless
from agents.evaluation.baselines import baselines


@struct.dataclass
class Ours(Memoryless):
    """Recommends the allowed film with the highest score."""

    network: Any
    name: str = struct.field(pytree_node=False, default="ours")

    def choose(self, key, env, obs, params):
        return log_policy(env, self.network, obs, params)[0].argmax().astype(jnp.int32)


def judge(env, params, network):
    """Mean likes in a session, by policy."""
    held_out = params.replace(session_users=jnp.asarray(dataset.session_users("held_out")))
    sessions = fixed_sessions(jax.random.key(1), env, held_out)
    policies = {**baselines(dataset, env, params), "our PPO": Ours(network)}
    outcomes = {
        name: run_sessions(env, held_out, policy, sessions) for name, policy in policies.items()
    }
    return {name: float(outcome.returns.mean()) for name, outcome in outcomes.items()}


likes = judge(env, params, network)
pd.Series(likes).round(2).sort_values(ascending=False).to_frame("likes a session")

# %% [markdown]
# **What to look at.** Where does our PPO stand between `random` and `oracle`? `static_best` is one list for
# everyone. The distance from there to the oracle is what a recommender could gain by learning each user's
# genres.
#
# The same agent trains on the users of the paper. Only `env` and `params` change:

# %%
paper, paper_params = models["paper: three votes"]
paper_network, _ = compiled(paper, paper_params, jax.random.key(0))
paper_likes = judge(paper, paper_params, paper_network)
pd.Series(paper_likes).round(2).sort_values(ascending=False).to_frame("likes a session")

# %% [markdown]
# ## An agent of a library
#
# Libraries such as [rejax](https://github.com/keraJLi/rejax) and purejaxrl read one vector, and their `step`
# returns five values. `jaxsim.FlatObservation` gives them that. rejax's PPO has the parts that you have just
# read; it trains on your users without a change.

# %%
if importlib.util.find_spec("rejax") is None:
    run("pip", "install", "--quiet", "rejax>=0.1.3,<0.2")

import rejax
from rejax.evaluate import evaluate

algorithm = rejax.PPO.create(
    env=jaxsim.FlatObservation(env),
    env_params=params,
    total_timesteps=204_800,
    eval_freq=51_200,
    num_envs=128,
    num_steps=8,
    num_minibatches=8,
    num_epochs=2,
    learning_rate=1e-3,
    gamma=0.4,
    gae_lambda=0.2,
    ent_coef=0.001,
    max_grad_norm=10.0,
    agent_kwargs={"hidden_layer_sizes": (64,)},
)


def play(algorithm, state, key):
    """Lengths and likes of 128 sessions. The params are arguments; as constants, XLA would copy them."""
    act = algorithm.make_act(state)
    length = params.max_steps_in_episode
    return evaluate(act, key, algorithm.env, algorithm.env_params, 128, length)


algorithm = algorithm.replace(eval_callback=play)
_, (lengths, liked) = jax.jit(rejax.PPO.train)(algorithm, jax.random.key(0))
library_rate = np.array(liked.sum(axis=1) / lengths.sum(axis=1))
pd.Series(library_rate, index=np.arange(5) * 51_200).rename_axis("steps").round(2).to_frame(
    "likes per recommendation"
)

# %% [markdown]
# rejax masks no items, and a film that a user has had earns nothing, so this agent must also learn not to
# repeat itself. Ours never can: that is what the mask is for.
#
# `examples/` has this for rejax, purejaxrl and Stable-Baselines3, with what each of them earns.
#
# ## Exercise
#
# 1. People get bored. Add to `GenreFan.state` the genres of the latest film, and let the probability fall by
#    0.2 if the next film shares one. Does PPO learn to change the genre?
# 2. What happens to the learning curve if you set `CLIP` to 10, so that nothing is clipped?
#
# docs/user_models.md and docs/training.md say more. Next: [7 Slates and staying](07_slates_and_staying.ipynb)
