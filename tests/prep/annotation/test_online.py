"""The prompt that asks online, what is read from an answer, and that nothing is asked twice."""

import importlib.util
import threading

import numpy as np
import pytest

from jaxsim import InputError
from prep.annotation.annotators.base import Completion, Sampling
from prep.annotation.annotators.openai_server import OpenAIAnnotator
from prep.annotation.online import OnlineScorer, Rating, RecordedScores, score_of, t_online
from prep.annotation.prompts import ItemFacts
from tests.factory import random_dataset
from tests.prep.annotation.openai_protocol_server import Answer, ProtocolServer, chat_completion
from tests.prep.annotation.test_prompts import ATTACKS, FILM, data_of

OLD = ItemFacts("Old", ("War",), {"year": "1950"})


class Model:
    """Answers with the number of liked lines of the prompt, or with `text`."""

    model, revision, sampling = "model", "1", Sampling()

    def __init__(self, text=None):
        self.text, self.prompts = text, []

    def complete(self, requests):
        for request in requests:
            self.prompts.append(request.prompt)
            liked = sum(line.startswith("liked: ") for line in request.prompt.splitlines())
            yield Completion(request.key, self.text or f"{liked}")


@pytest.fixture(scope="module")
def films():
    dataset = random_dataset(2, num_users=4, num_items=6)
    dataset.items["name"] = [f"Film {n}" for n in range(6)]
    dataset.items["categories"] = [["Drama"]] * 5 + [None]
    dataset.items["attributes"] = ['{"year": "1999"}'] * 5 + [None]
    return dataset


def batch(*histories):
    """User 0 with each history of (item, like), asked about item 5."""
    size = 3
    items, likes = np.full((len(histories), size), -1), np.zeros((len(histories), size), np.int8)
    for row, history in enumerate(histories):
        for place, (item, like) in enumerate(history):
            items[row, place], likes[row, place] = item, like
    count = len(histories)
    return np.zeros(count, int), items, likes, np.full(count, 5)


def test_the_prompt_tells_the_history_in_order_and_then_the_item():
    prompt = t_online(FILM, [Rating(OLD, False), Rating(FILM, True)], "movie")
    data, instructions = data_of(prompt)
    assert data.splitlines() == [
        "What the person thought before, the oldest first:",
        "did not like: Old | 1950 | War",
        "liked: Harbour Lights | 1991; A. Nother | Drama; Romance",
        "What they are offered now:",
        "Name: Harbour Lights",
        "Attributes: year: 1991; director: A. Nother",
        "Categories: Drama; Romance",
    ]
    assert "like this movie" in instructions
    assert "from 0 (surely not) to 99 (surely)" in instructions.splitlines()[-1]
    assert "nothing is known" in t_online(FILM, [], "movie")


@pytest.mark.parametrize("attack", ATTACKS)
def test_what_strangers_wrote_stays_in_the_block_of_data(attack):
    item = ItemFacts(attack, (attack,), {"note": attack})
    usual = data_of(t_online(OLD, [Rating(OLD, True)], "movie"))[1]
    data, instructions = data_of(t_online(item, [Rating(item, True)], "movie"))
    assert instructions == usual
    assert len(data.splitlines()) == 6


@pytest.mark.parametrize(
    ("reply", "score"),
    [
        ("82", 82), (" 7\n", 7), ("Score: 82", 82), ("82/99", 82), ("I would say 40.", 40), ("0", 0), ("99", 99),
        ("<think>maybe 10, or 1990</think>\n35", 35), ("a film of 1994: 61", 61), ("-5", None), ("100", None),
        ("8.5", None), ("no idea", None), ("", None),
    ],
)  # fmt: skip
def test_the_score_is_the_first_whole_number_from_0_to_99(reply, score):
    assert score_of(reply) == score


def test_a_score_is_a_probability_and_nothing_is_asked_twice(films, tmp_path):
    model, store = Model(), tmp_path / "answers.sqlite"
    scorer = OnlineScorer(films, model, store)
    liked, disliked = [(1, 1), (2, 1)], [(1, 0)]
    answers = scorer.probabilities(*batch(liked, disliked, liked))
    np.testing.assert_allclose(answers, [0.025, 0.005, 0.025])
    assert answers.dtype == np.float32
    assert (scorer.calls, len(model.prompts)) == (2, 2)
    assert "Name: Film 5" in model.prompts[0]
    assert "Categories: none" in model.prompts[0]
    scorer.probabilities(*batch(disliked))
    again = OnlineScorer(films, model, store)
    thread = threading.Thread(target=again.probabilities, args=batch(liked, disliked))
    thread.start()  # as JAX calls back from threads of its own
    thread.join()
    assert (scorer.calls, again.calls, len(model.prompts)) == (2, 0, 2)
    again.probabilities(*batch([]))
    assert again.calls == 1


def test_an_answer_without_a_number_and_no_answer_are_one_line(films, tmp_path):
    with pytest.raises(
        InputError, match="about item 5 for user 0 has no number from 0 to 99: 'who knows'"
    ):
        OnlineScorer(films, Model("who\nknows")).probabilities(*batch([]))
    path = tmp_path / "r.csv"
    path.write_text("user_id,item_id,score_0_99\n0,4,50\n")
    with pytest.raises(InputError, match="no answer about item 5 for user 0: no recorded answer"):
        OnlineScorer(films, RecordedScores(path)).probabilities(*batch([]))


def test_recorded_scores_depend_on_user_and_item_alone(films, tmp_path):
    path = tmp_path / "r.csv"
    path.write_text("user_id,item_id,score_0_99\n0,5,50\n1,5,3\n")
    scorer = OnlineScorer(films, RecordedScores(path))
    _, items, likes, candidate = batch([], [(1, 1)], [])
    answers = scorer.probabilities(np.array([0, 0, 1]), items, likes, candidate)
    np.testing.assert_allclose(answers, [0.505, 0.505, 0.035])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("user_id,item_id\n1,2\n", "has no column score_0_99"),
        ("user_id,item_id,score_0_99\n1,2,100\n", "values that are not from 0 to 99"),
        ("user_id,item_id,score_0_99\n1,2,x\n", "values that are not from 0 to 99"),
        (None, "cannot be read as CSV"),
    ],
)
def test_a_file_of_scores_that_cannot_be_used_is_refused(tmp_path, content, message):
    path = tmp_path / "r.csv"
    if content is not None:
        path.write_text(content)
    with pytest.raises(InputError, match=message):
        RecordedScores(path)


@pytest.mark.skipif(importlib.util.find_spec("openai") is None, reason="openai is not installed")
def test_a_server_is_asked_side_by_side(films, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)

    def script(number, request):
        liked = request["messages"][0]["content"].count("\nliked: ")
        return Answer(chat_completion(f"{40 + liked}"), stall=0.0)

    with ProtocolServer(script) as server:
        scorer = OnlineScorer(films, OpenAIAnnotator("m", server.url, concurrency=4))
        answers = scorer.probabilities(*batch([], [(1, 1)], [(2, 1), (3, 1)]))
    np.testing.assert_allclose(answers, [0.405, 0.415, 0.425])
    assert scorer.calls == len(server.requests) == 3
