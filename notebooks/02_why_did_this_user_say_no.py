# %% [markdown]
# # 2 Why did this user say no?
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/)
#
# A simulated user of this package can explain each decision: which keywords and which films decided, and what
# would have to change for the opposite decision. In this notebook you read such an explanation line by line,
# check it, and rebuild Tables 3 and 4 of the paper for MovieLens.
#
# You need notebook 1, or at least its words: session, history, like, reward.

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
# ## A user who says no
#
# User 0 liked *Star Trek* films. Would they like *Star Wars*? We ask with their history, the latest 50 films
# that they rated. The key decides the coins that fall where a vote is a tie.

# %%
import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

pd.set_option("display.max_colwidth", None)
env, params = jaxsim.make(dataset)
user = 0
candidate = int(dataset.items.index[dataset.items.name == "Star Wars"][0])
items, likes = params.histories.items[user], params.histories.likes[user]
key = jax.random.key(1)
why = jaxsim.explain(dataset, env, params, items, likes, candidate, user, key=key)
print("like" if why.like else "dislike")

# %% [markdown]
# They say no. `print(why)` shows the whole explanation, and so does `why` as the last line of a cell. We go
# through its parts instead. First the three votes:

# %%
pd.DataFrame(
    [
        ("f_mat", f"{why.alpha_pos} pros shared with liked films", f"{why.alpha_neg} cons shared"),
        ("f_sim", f"{why.beta_pos:.3f} to liked films", f"{why.beta_neg:.3f} to disliked films"),
        ("f_sta", f"{why.sta_probability:.3f} probability of a like", ""),
    ],
    columns=["model", "for a like", "against"],
).assign(vote=[vote.vote for vote in why.votes])

# %% [markdown]
# **What to look at.** Compare the two columns in the middle.
#
# - **f_mat** counts. How many pros does *Star Wars* share with films that the user liked? How many cons does it
#   share with films that they disliked? There are more cons, so the vote is 0.
# - **f_sim** compares meanings, as vectors of a language model. It looks only at the most similar liked film
#   and the most similar disliked one. The disliked one is nearer, so the vote is 0.
# - **f_sta** is a neural network that was trained on the ratings alone. It finds a like more probable, so it
#   votes 1.
#
# Two votes of three decide. Which keywords were counted?

# %%
pd.DataFrame(
    [(k.keyword, k.polarity, ", ".join(k.names)) for k in why.matched],
    columns=["keyword", "side", "shared with"],
)

# %%
print("nearest liked film:   ", why.most_similar_liked.name)
print("nearest disliked film:", why.most_similar_disliked.name)

# %% [markdown]
# One keyword can count twice: *cheesy* is a con of two films that the user disliked.
#
# ## What would flip the decision?
#
# The explanation also tries changes. Each line below is enough on its own for the opposite decision.

# %%
kinds = {
    "leave_out": "the user had not seen a film",
    "reverse": "the user had felt otherwise about a film",
    "remove_keyword": "the candidate lost a keyword",
    "add_keyword": "the candidate gained a keyword",
}
for kind, meaning in kinds.items():
    flips = [flip.changes[0] for flip in why.flips if flip.changes[0].kind == kind]
    print(f"If {meaning}, for example ({len(flips)} in all):")
    for change in flips[:3]:
        print("   ", change)

# %% [markdown]
# Do not believe an explanation that you cannot check. We leave *Dirty Dancing* out of the history, and ask the
# simulator again. A place with -1 in the history is empty.

# %%
first = why.flips[0].changes[0]
changed = items.at[first.position].set(-1)
before = env.respond(key, items, likes, candidate, params, user=user)
after = env.respond(key, changed, likes, candidate, params, user=user)
print("before:", before.votes, "like" if before.response.like else "dislike")
print(f"{first}:", after.votes, "like" if after.response.like else "dislike")

# %% [markdown]
# **What to look at.** The answer flips, as the explanation said. Without this film, other disliked films share
# fewer cons with *Star Wars*, and the nearest disliked film is further away.
#
# Such a small change should also make you think. One film of fifty decides! People are hardly like that.
# Notebook 5 asks how real these users are.
#
# ## Tables 3 and 4 of the paper
#
# The paper shows what a trained recommender (DQN) suggests to one user, and how the simulator decides. We do
# the same. First we train DQN, for a short time. Notebook 3 is about training, so take this cell as it is.

# %%
import agents

algorithm = agents.DQN(env, agents.DQNConfig(total_steps=40_000))
training = agents.train_seeds(algorithm, params, seed=0, num_seeds=1)
policy = algorithm.policy_of(jax.tree.map(lambda x: x[0], training.variables))

# %% [markdown]
# Now it recommends three films in a row to a user that it never trained on. Each answer enters the history
# before the next recommendation. `jaxsim.explain` gives the answer together with its reasons.


# %%
def recommend(user, steps=3):
    """The explanations of the first recommendations to a user."""
    session = np.full(steps, -1, np.int32), np.zeros(steps, np.int8)  # films, and 1 for a like
    explanations = []
    for step in range(steps):
        obs = env.window_of(jnp.int32(user), *map(jnp.array, session), jnp.int32(step), params)
        film = int(policy(jax.random.key(step), obs, params))
        history = obs.items, obs.responses
        why = jaxsim.explain(dataset, env, params, *history, film, user, key=jax.random.key(step))
        session[0][step], session[1][step] = film, why.like
        explanations.append(why)
    return explanations


# Most users like all three. We look for one whose answers differ, as in the paper.
for user in dataset.session_users("held_out").tolist():
    explained = recommend(user)
    if len({why.like for why in explained}) == 2:
        break
print(f"user {user}:", ["like" if why.like else "dislike" for why in explained])


# %% [markdown]
# **Table 3** shows films of the history beside the recommended ones. As in the paper, a liked film of the
# history shows its pros and a disliked one its cons, because only these count. We choose the three films of the
# history that share most keywords with the recommendations. A star marks a shared keyword.


# %%
def table_3(explained):
    """Three films of the history, and the recommended ones."""
    shared = {}  # position in the history to the film there, and its shared keywords
    for why in explained:
        for film in why.history:
            words = shared.setdefault(film.position, (film, set()))[1]
            words.update(film.matched)
    start = explained[0].history_length
    known = [pair for position, pair in shared.items() if position < start]
    chosen = sorted(known, key=lambda pair: len(pair[1]), reverse=True)[:3]
    chosen.sort(key=lambda pair: pair[0].position)
    columns = {}
    for place, (film, words) in enumerate(chosen):
        text = ", ".join(word + "*" * (word in words) for word in film.keywords)
        sides = (text, "-") if film.liked else ("-", text)
        answer = "like" if film.liked else "dislike"
        columns[f"history {place + 1}"] = (film.name, film.categories, *sides, answer)
    for place, why in enumerate(explained):
        matched = {(k.keyword, k.polarity) for k in why.matched}
        sides = (
            ", ".join(word + "*" * ((word, side) in matched) for word in words)
            for side, words in (("pro", why.candidate.pros), ("con", why.candidate.cons))
        )
        film = why.candidate
        columns[f"recommended {place + 1}"] = (film.name, film.categories, *sides, "?")
    table = pd.DataFrame(columns, index=["name", "category", "pros", "cons", "response"])
    table.loc["category"] = table.loc["category"].map(", ".join)
    return table.T


table_3(explained)

# %% [markdown]
# **Table 4** shows how the simulator decides on the recommended films.


# %%
def table_4(explained):
    """The evidence and the votes on each recommended film."""

    def cosine(value):
        return "none" if value is None else f"{value:.3f}"

    rows = []
    for why in explained:
        votes = [f"{vote.vote}{' (coin)' if vote.tied else ''}" for vote in why.votes]
        rows.append(
            (
                f"{why.alpha_pos} pros, {why.alpha_neg} cons: {votes[0]}",
                f"{cosine(why.beta_pos)} liked, {cosine(why.beta_neg)} disliked: {votes[1]}",
                f"{why.sta_probability:.3f}: {votes[2]}",
                "like" if why.like else "dislike",
            )
        )
    names = [why.candidate.name for why in explained]
    return pd.DataFrame(rows, columns=["f_mat", "f_sim", "f_sta", "response"], index=names)


table_4(explained)

# %% [markdown]
# **What to look at.** The number after each colon is the vote. Find a row in which the votes differ: there you
# see why there are three of them. f_mat and f_sim can be explained, and f_sta knows what other people rated.
# *(coin)* marks a tie, such as one pro against one con: then a coin decides. The paper's Table 4 has such a
# case, too, and calls it incidental.
#
# ## Another model of the same user
#
# `semantics="calibrated"` gives users who like a film with a *probability*. It is the sum of what everybody
# thinks of the film and of what this user likes more than others do. We ask about *Star Wars* again.

# %%
calibrated, calibrated_params = jaxsim.make(dataset, semantics="calibrated")
taste = jaxsim.explain(dataset, calibrated, calibrated_params, items, likes, candidate, 0)
print(f"probability of a like: {taste.probability:.2f}")
print(f"log-odds: {taste.item_part:+.2f} from the film, {taste.taste_part:+.2f} from the user")

# %%
import matplotlib.pyplot as plt

figure, axes = plt.subplots(figsize=(5, 2.6))
parts = sorted(taste.parts, key=lambda part: part.log_odds)
colours = ["tab:green" if part.log_odds > 0 else "tab:red" for part in parts]
axes.barh([part.part for part in parts], [part.log_odds for part in parts], color=colours)
axes.axvline(0, color="black", linewidth=0.8)
axes.set(xlabel="log-odds of a like", title="What the user's taste is made of")
axes.grid(alpha=0.3)

# %% [markdown]
# **What to look at.** Log-odds above 0 speak for a like, and below 0 against one. *constant* is how much this
# user likes in general, *mood* what they liked lately, and *pros* and *cons* are the keywords. docs/taste.md
# explains the others. The film itself counts for more than the user's taste: nearly everybody likes *Star
# Wars*.
#
# ## Exercise
#
# Find a film that user 0 *likes* by the three votes (try some with `jaxsim.explain`). How many single changes
# flip that decision? Is it more or less stable than the "no" above?
#
# Next: [3 Train and compare four agents](03_train_and_compare.ipynb)
