# %% [markdown]
# # 1 First steps
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/)
#
# A recommender that learns by trial and error needs many users who put up with bad recommendations. `jaxsim`
# gives it simulated users. In this notebook you recommend films to one of them by hand, and then to a thousand
# at once.
#
# You need to know some Python and NumPy. You need not know JAX or reinforcement learning.

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
# ## Load a dataset
#
# MovieLens 100K has 100,000 ratings of films, from 1 to 5 stars. Here a rating of 4 or 5 is a **like**, and a
# lower one a **dislike**. `jaxsim.make` turns the dataset into an *environment*, which is the word of
# reinforcement learning for the world that an agent acts in. It has two parts: `env` holds settings, and
# `params` holds all arrays.

# %%
env, params = jaxsim.make(dataset)
print(f"{dataset.num_users:,} users, {dataset.num_items:,} films")
print(env)

# %% [markdown]
# A language model has written down, once for each film, why people may like it (*pros*) and why they may not
# (*cons*). The simulated users decide with these keywords. Look at one film:

# %%
star_wars = int(dataset.items.index[dataset.items.name == "Star Wars"][0])


def keywords(item, side):
    """The pros ("pos") or cons ("neg") of an item, in words."""
    return [dataset.keywords[k] for k in dataset.arrays[f"item_{side}_keywords"][item] if k >= 0]


print(dataset.item_name(star_wars), "- item", star_wars)
print("pros:", ", ".join(keywords(star_wars, "pos")))
print("cons:", ", ".join(keywords(star_wars, "neg")))

# %% [markdown]
# ## One user
#
# A *session* is one visit of one user. `env.reset_user` begins a session of user 0, and `env.reset` would draw
# a user. You get an *observation*, which a recommender may look at, and a *state*, which only the simulator
# knows. Randomness in JAX comes from keys that you pass on: the same key gives the same result.

# %%
import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

obs, state = env.reset_user(0, params)


def watched(obs):
    """The films in an observation, the latest last."""
    length = int(obs.length)
    names = [dataset.item_name(int(item)) for item in obs.items[:length]]
    return pd.DataFrame({"film": names, "response": np.array(obs.responses[:length])})


print(f"user 0 starts with {int(obs.length)} films that they rated in the data; the last five:")
watched(obs).tail()

# %% [markdown]
# A response of 1 is a like, and -1 a dislike. Now recommend a film: that is one *step*.

# %%
obs, state, reward, terminated, truncated, info = env.step(
    jax.random.key(1), state, star_wars, params
)
print("reward:", float(reward))
print("votes of f_mat, f_sim and f_sta:", info["votes"])
print("did the user leave?", bool(terminated))

# %% [markdown]
# **What to look at.** Three models vote on whether the user likes the film: one counts shared keywords (f_mat),
# one compares their meaning (f_sim), and one is trained on the ratings (f_sta). Two votes decide. A like gives
# a reward of 1, a dislike gives 0. After each step the user leaves with probability 0.025. The next notebook
# explains the votes.
#
# A recommender is a rule that chooses the next film. Here is a simple one: the most popular film that this user
# has not had. `env.action_mask` says which films are allowed.

# %%
training = dataset.arrays["interaction_split"] == 0  # 0 are training ratings
popularity = jnp.asarray(
    np.bincount(dataset.arrays["interaction_item"][training], minlength=dataset.num_items),
    jnp.float32,
)


def popular(key, allowed):
    """The most popular allowed film; the key is not used."""
    return jnp.argmax(jnp.where(allowed, popularity, -1))


obs, state = env.reset_user(0, params)
films = []
for step in range(8):
    film = popular(None, env.action_mask(obs, params))
    obs, state, reward, terminated, truncated, info = env.step(
        jax.random.key(step), state, film, params
    )
    films.append((dataset.item_name(int(film)), int(reward), bool(terminated)))
pd.DataFrame(films, columns=["film", "reward", "user left"])

# %% [markdown]
# If a user leaves, the next step belongs to a new user: the environment resets by itself. That is why you can
# go on stepping for ever, and why the table above may hold films of two users.
#
# ## A thousand users
#
# `jax.vmap` turns a function for one user into one for many. `jax.lax.scan` repeats a step, and `jax.jit`
# compiles all of it into one program. This function is the only hard piece of code in this notebook. Read it
# slowly: it does what the loop above does, for `num_users` users at the same time.

# %%
from functools import partial


def random(key, allowed):
    """Any allowed film."""
    return jnp.argmax(allowed * jax.random.uniform(key, allowed.shape))


@partial(jax.jit, static_argnames=("choose", "num_users", "num_steps"))
def play(key, params, choose, num_users=1024, num_steps=50):
    """The mean reward of each step, float32[num_steps]."""

    def step(carry, key):
        obs, state = carry
        key_choose, key_step = jax.random.split(key)
        allowed = jax.vmap(env.action_mask, (0, None))(obs, params)
        films = jax.vmap(choose)(jax.random.split(key_choose, num_users), allowed)
        keys = jax.random.split(key_step, num_users)
        obs, state, reward, *_ = jax.vmap(env.step, (0, 0, 0, None))(keys, state, films, params)
        return (obs, state), reward.mean()

    key_start, key_steps = jax.random.split(key)
    keys = jax.random.split(key_start, num_users)
    start = jax.vmap(env.reset, (0, None))(keys, params)
    return jax.lax.scan(step, start, jax.random.split(key_steps, num_steps))[1]


like_rate = {
    choose.__name__: float(play(jax.random.key(0), params, choose).mean())
    for choose in (random, popular)
}
for name, rate in like_rate.items():
    print(f"{name:8} {rate:.2f} of the recommendations are liked")

# %% [markdown]
# **What to look at.** Popular films are liked more often than random ones. But even random films are liked
# often: the users of this simulator are easy to please, easier than the people in the data. Notebook 5 looks at
# that.
#
# Note that `params` is an argument of `play`. It holds tables of many megabytes, and JAX would copy them into
# the program if the function took them from outside.
#
# ## How fast is it?
#
# The first call of a compiled function compiles, which takes seconds. So we call it once before we look at the
# clock.

# %%
import time


def steps_per_second(num_users):
    """Steps of all users together, in one second."""
    arguments = jax.random.key(0), params, random, num_users, 20
    jax.block_until_ready(play(*arguments))  # compiles
    start = time.perf_counter()
    jax.block_until_ready(play(*arguments))
    return num_users * 20 / (time.perf_counter() - start)


sizes = [1, 4, 16, 64, 256, 1024]
speeds = [steps_per_second(size) for size in sizes]

# %%
import matplotlib.pyplot as plt

figure, axes = plt.subplots(figsize=(5, 3))
axes.loglog(sizes, speeds, "o-")
axes.set(xlabel="users at once", ylabel="steps per second", title=f"on a {jax.default_backend()}")
axes.set_xticks(sizes, sizes)
axes.minorticks_off()
axes.grid(alpha=0.3)
print(
    f"with {sizes[0]} users {speeds[0]:,.0f} steps per second, with {sizes[-1]:,} {speeds[-1]:,.0f}"
)

# %% [markdown]
# **What to look at.** One user alone is slow: most of the time goes into starting the many small parts of a
# step. With more users that is shared, and the speed grows until the processor is busy. A GPU has room for a
# hundred thousand users and more. Your numbers depend on your machine, and on what else runs on it.
#
# ## Exercise
#
# Write a third rule, `best_rated`: the allowed film with the highest share of likes in the training data. Films
# with two ratings should not win, so add five likes out of ten to each film's counts.
# `dataset.arrays["interaction_label"]` holds 1 for a like. Is it better than `popular`?
#
# Next: [2 Why did this user say no?](02_why_did_this_user_say_no.ipynb)
