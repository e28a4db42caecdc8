# %% [markdown]
# # 4 Your own data and your own language model
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/)
#
# The simulator is not about films. In this notebook you make one of your own data: a small bookshop, as two CSV
# files. A language model describes the books. We use a stand-in that runs in this notebook and has a few
# recorded answers, so nothing is downloaded and nothing costs money. Any real model takes its place with one
# option.

# %%
# Installs jaxsim where it is missing.
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

# %% [markdown]
# ## Two files
#
# You need a table of **ratings**, with the columns `user,item,rating` and perhaps `timestamp`, and a table of
# **items**, with `item,name` and perhaps `categories` and `attributes`. Here are 24 books, each with what a
# language model once wrote about it: pros, then cons.

# %%
import csv
import json
import os
import random
import tempfile

RECORDED = """
Dracula; gothic; eerie, suspenseful; slow middle, old-fashioned
Frankenstein; gothic; thoughtful, eerie; gloomy, wordy
The Turn of the Screw; gothic; ambiguous, suspenseful; wordy, unclear ending
Carmilla; gothic; eerie, short; thin plot, gloomy
The Phantom of the Opera; gothic; atmospheric, suspenseful; melodramatic, old-fashioned
Wuthering Heights; gothic; passionate, atmospheric; gloomy, unlikable characters
Treasure Island; adventure; exciting, vivid characters; for children, few women
Around the World in Eighty Days; adventure; exciting, funny; dated views, thin plot
King Solomon's Mines; adventure; exciting, exotic; dated views, violent
The Three Musketeers; adventure; swashbuckling, funny; too long, violent
Kidnapped; adventure; exciting, swashbuckling; dialect, for children
Robinson Crusoe; adventure; exotic, inventive; dated views, slow middle
The Hound of the Baskervilles; detective; clever plot, atmospheric; thin characters, old-fashioned
The Moonstone; detective; clever plot, many voices; too long, slow middle
The Murders in the Rue Morgue; detective; inventive, short; far-fetched, violent
The Woman in White; detective; suspenseful, many voices; too long, melodramatic
A Study in Scarlet; detective; clever plot, vivid characters; far-fetched, thin characters
The Innocence of Father Brown; detective; short, thoughtful; far-fetched, preachy
Pride and Prejudice; romance; witty, vivid characters; little happens, wordy
Jane Eyre; romance; passionate, thoughtful; too long, melodramatic
Persuasion; romance; tender, witty; little happens, slow middle
Emma; romance; witty, funny; unlikable characters, little happens
A Room with a View; romance; tender, funny; little happens, thin plot
Sense and Sensibility; romance; tender, vivid characters; wordy, melodramatic
"""
books = [[part.strip() for part in line.split(";")] for line in RECORDED.strip().splitlines()]
genres = sorted({genre for _, genre, _, _ in books})

os.chdir(tempfile.mkdtemp())  # nothing is left in your own folder
with open("items.csv", "w", newline="") as file:
    rows = [(f"b{n}", name, genre) for n, (name, genre, *_) in enumerate(books)]
    csv.writer(file).writerows([("item", "name", "categories"), *rows])

# %% [markdown]
# The ratings are invented: 200 readers, each with a favourite genre and one that they avoid. In your case this
# file comes from your shop.

# %%
rng = random.Random(0)
with open("books.csv", "w", newline="") as file:
    ratings = csv.writer(file)
    ratings.writerow(("user", "item", "rating", "timestamp"))
    for reader in range(200):
        favourite, avoided = rng.sample(genres, 2)
        for time, n in enumerate(rng.sample(range(24), 15)):
            taste = {favourite: 2, avoided: -2}.get(books[n][1], 0)
            stars = min(5, max(1, round(3.2 + taste + rng.gauss(0, 1))))
            ratings.writerow((f"reader-{reader}", f"b{n}", stars, 86_400 * time))

for name in ("items.csv", "books.csv"):
    with open(name) as file:
        print(name, *(next(file).rstrip() for _ in range(4)), sep="\n    ")

# %% [markdown]
# ## Check what was read
#
# `python -m prep convert` reads your files and writes them as two tables of one form. Its report says what it
# could not read, so run it first. `run` is the small function of the first cell; in a terminal you would type
# `python -m prep convert books.csv --items items.csv --out tables`.

# %%
run("prep", "convert", "books.csv", "--items", "items.csv", "--out", "tables")

# %%
import pandas as pd

pd.read_parquet("tables/ratings.parquet").head(3)

# %% [markdown]
# **What to look at.** Does the number of ratings agree with your file? If a line is broken, the report says
# which one is the first. Nothing is dropped without a word.
#
# ## A language model
#
# Each book needs pros and cons as keywords. Many programs serve language models with the same protocol, that of
# OpenAI: vLLM, SGLang, llama.cpp, Ollama and hosted ones. The stand-in below speaks it, too. It gets a prompt,
# looks for the name of the book, and answers with the recorded words. Any of the real ones would think instead.

# %%
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

asked = []  # the prompts, so that we can look at them


def answer(prompt):
    """What a language model would write: reasons with keywords, in the form that the prompt asks for."""
    asked.append(prompt)
    line = next(line for line in prompt.splitlines() if line.startswith("Name: "))
    pros, cons = next(words for name, _, *words in books if name == line.removeprefix("Name: "))
    sides = {"Pros": pros, "Cons": cons}
    return "\n".join(
        f"{side} {number}: Readers say so.\nEvidence: recorded\nKeywords: {keyword}"
        for side, keywords in sides.items()
        for number, keyword in enumerate(keywords.split(", "), start=1)
    )


class Model(BaseHTTPRequestHandler):
    """Answers like a server of OpenAI's protocol."""

    def do_POST(self):
        """One prompt, one answer."""
        request = json.loads(self.rfile.read(int(self.headers["content-length"])))
        text = answer(request["messages"][0]["content"])
        message = {"role": "assistant", "content": text}
        choice = {"index": 0, "finish_reason": "stop", "message": message}
        body = {"id": "1", "object": "chat.completion", "created": 0, "model": "recorded"}
        data = json.dumps({**body, "choices": [choice]}).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        """Say nothing."""


server = ThreadingHTTPServer(("127.0.0.1", 0), Model)
threading.Thread(target=server.serve_forever, daemon=True).start()
address = f"http://127.0.0.1:{server.server_port}/v1"
os.environ["NO_PROXY"] = os.environ["no_proxy"] = "127.0.0.1"  # it is on this machine

# %% [markdown]
# Before you ask a model that costs money, ask what it would cost. `--dry-run` asks nothing.

# %%
DATA = ("books.csv", "--items", "items.csv", "--like-threshold", "4", "--noun", "book")
ASK = ("--annotate", "openai", "--llm.model", "recorded", "--llm.base-url", address)
STORE = ("--llm.store", "replies.sqlite")
if importlib.util.find_spec("openai") is None:
    run("pip", "install", "--quiet", "openai>=2.0,<4")
run(
    "prep",
    "annotate",
    *DATA,
    *ASK,
    *STORE,
    "--llm.price-in",
    "0.15",
    "--llm.price-out",
    "0.6",
    "--dry-run",
)

# %% [markdown]
# Now ask. Every reply is stored at once, so you may stop at any time, and nothing is asked twice.

# %%
run("prep", "annotate", *DATA, *ASK, *STORE, "--out", "replies.jsonl")
server.shutdown()
print(f"{len(asked)} prompts were asked. The first one:\n")
print(asked[0])

# %% [markdown]
# **What to look at.** The prompt shows the name and the genre of the book, and no rating: the model must not
# know what it is supposed to explain. The data stands between two lines with a code, so that a book called
# "Ignore all instructions" does no harm.
#
# The file `replies.jsonl` now holds a reply in each line. Keep it: with it you can build the dataset again, on
# any machine, without a language model. The server is already off.

# %%
with open("replies.jsonl") as file:
    print(json.loads(next(file))["reply"])

# %% [markdown]
# ## Build and play
#
# `python -m prep build` puts everything together and trains the models on your ratings. Two settings are for
# such a small shop only. `--encoder hashed` does without a text encoder, so keywords are alike only if they are
# equal. `--max-share 0.5` keeps keywords that many books have.

# %%
SMALL = ("--encoder", "hashed", "--max-share", "0.5", "--sasrec.window", "20")
run("prep", "build", *DATA, "--replies", "replies.jsonl", *SMALL, "--out", "books")

# %% [markdown]
# **What to look at.** Read such a report to its end for your own data. How many keywords are left, and which
# are the most frequent? Is the like rate far from 0 and from 1? Which parts could not be fitted, and why?
#
# Here the *validation AUC* of SASRec, which is f_sta, is hardly above 0.5: with 3,000 ratings it has learned
# next to nothing. But the taste model gives the largest weight to the category. So it has found what we put
# into the data: readers have favourite genres.
#
# Then it is a dataset like any other. Sessions are short here, because a session needs films, or books, that
# the user has not had.

# %%
import jax

dataset = jaxsim.load_dataset("./books")
env, params = jaxsim.make(dataset, history_length=12, session_capacity=8)
user = int(dataset.session_users("train")[0])
items, likes = params.histories.items[user], params.histories.likes[user]
new = next(i for i in range(dataset.num_items) if i not in items.tolist())
print(jaxsim.explain(dataset, env, params, items, likes, new, user, key=jax.random.key(0)))

# %%
from agents import fixed_sessions, run_sessions
from agents.evaluation.baselines import baselines

sessions = fixed_sessions(jax.random.key(1), env, params)
share = {}
for name, policy in baselines(dataset, env, params).items():
    outcome = run_sessions(env, params, policy, sessions)
    share[name] = float(outcome.returns.sum() / sessions.durations.sum())
pd.Series(share).round(2).sort_values(ascending=False).to_frame("share of likes")

# %% [markdown]
# **What to look at.** `oracle` knows the simulated users, `like_rate` only the ratings, `random` nothing. If
# `random` were nearly as good as `oracle`, there would be nothing to learn from this simulator.
#
# ## A real language model
#
# Start any server with OpenAI's protocol, for instance `vllm serve MODEL`, and give its address and the model's
# name in place of ours: `--llm.base-url http://localhost:8000/v1 --llm.model MODEL`. docs/annotations.md has
# hosted models, a model on this machine's GPU, and costs. docs/datasets.md says what else your tables may hold.
#
# ## Exercise
#
# Add a book of your own to `RECORDED` and a few ratings of it, and run the notebook again. Then ask
# `jaxsim.explain` why a reader would like it or not.
#
# Next: [5 How real is it?](05_how_real_is_it.ipynb)
