"""A language model that is asked at every step, in the environment."""

import importlib.util
import re
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks.rivals.suber import SuberUser
from jaxsim import InputError
from prep.annotation.annotators.openai_server import OpenAIAnnotator
from prep.annotation.online import OnlineScorer
from tests.conftest import allowed, simulator_of
from tests.prep.annotation.openai_protocol_server import Answer, ProtocolServer, chat_completion

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        importlib.util.find_spec("openai") is None, reason="openai is not installed"
    ),
]


def script(number, request):
    """Likes an item the more, the more of the history was liked."""
    lines = request["messages"][0]["content"].splitlines()
    liked, disliked = (sum(x.startswith(y) for x in lines) for y in ("liked: ", "did not like: "))
    return Answer(chat_completion(f"{(99 * liked) // max(1, liked + disliked)}"))


@pytest.fixture
def server(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with ProtocolServer(script) as running:
        yield running


def test_sessions_are_played_with_the_answers_of_a_server(dataset, server):
    names = [f"Item {n}" for n in range(dataset.num_items)]  # equal prompts would share an answer
    dataset = replace(dataset, items=dataset.items.assign(name=names))
    scorer = OnlineScorer(dataset, OpenAIAnnotator("m", server.url, concurrency=8))
    env, params = simulator_of(dataset, user_model=SuberUser(scorer, window=5))[1:]
    obs, state = jax.vmap(env.reset, (0, None))(jax.random.split(jax.random.key(0), 3), params)
    rows = [jax.tree.map(lambda x, i=i: x[i], obs) for i in range(3)]
    actions = jnp.stack([allowed(env, row, params, 0) for row in rows])
    before = scorer.calls
    step = jax.jit(jax.vmap(env.step, (0, 0, 0, None)))
    info = step(jax.random.split(jax.random.key(1), 3), state, actions, params)[-1]
    assert scorer.calls - before <= 3
    for row, probability in zip(rows, info["probability"], strict=True):
        likes = np.asarray(row.responses[: int(row.length)][-5:] > 0)
        score = (99 * likes.sum()) // max(1, len(likes))
        np.testing.assert_allclose(probability, (score + 0.5) / 100, rtol=1e-6)
    prompt = server.requests[-1]["messages"][0]["content"]
    assert len(re.findall(r"^(?:liked|did not like): ", prompt, re.M)) <= 5
    everything = env.expected_response(jax.tree.map(lambda x: x[0], state), params)
    assert everything.shape == (env.num_items,)
    assert scorer.calls - before >= env.num_items - 3


def test_a_server_that_gives_no_number_is_refused_by_make(dataset, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with ProtocolServer(lambda *_: Answer(chat_completion("as you like"))) as server:
        scorer = OnlineScorer(dataset, OpenAIAnnotator("m", server.url))
        with pytest.raises(InputError, match=r"user_model\.probability cannot be run") as caught:
            simulator_of(dataset, user_model=SuberUser(scorer))
    assert "has no number from 0 to 99" in str(caught.value)
    assert "\n" not in str(caught.value)
