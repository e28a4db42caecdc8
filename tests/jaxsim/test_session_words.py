"""A step of a session in words: by hand, and as `GymnasiumEnv` renders it."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsim import GymnasiumEnv, InputError
from jaxsim.session_words import Step, describe_reasons, describe_step
from tests.conftest import leaving_with, simulator_of
from tests.departure_logs import with_departure
from tests.factory import make_dataset, random_dataset
from tests.signals_factory import with_signals
from tests.slates import with_rates


@pytest.fixture(scope="module")
def titled():
    dataset = with_departure(with_signals(random_dataset(0)))
    dataset.items["name"] = [f"title {n}\n" for n in range(dataset.num_items)]
    return dataset


def step_of(info, action=7, **changes):
    response = {"like": np.int8(1), "rating": np.float32(4), "duration": np.float32(1.25)}
    values = {"user": 3, "time": 2, "reward": 1.0, "terminated": False, "truncated": False}
    info = {"response": response, "invalid_action": np.bool_(False), **info}
    return Step(action=np.array(action), info=info, **{**values, **changes})


def test_a_step_by_hand(titled):
    info = {"probability": np.float32(0.625), "departure_probability": np.float32(0.03125)}
    assert describe_step(step_of(info, terminated=True), titled).splitlines() == [
        "step 2 of the session of user 3",
        '"title 7 " (item 7): liked, rating 4, duration 1.25 hours',
        "probability of a like: 0.625",
        "earned: 1",
        "chance of leaving: 0.031",
        "the user left",
    ]


def test_votes_and_lives_by_hand():
    life = {
        "response": {"like": np.int8(0)},
        "votes": np.array([1, 0, 0], np.int8),
        "session": np.int32(1),
        "day": np.float32(13.5),
        "returned": np.bool_(True),
        "gap_days": np.float32(3.25),
    }
    lines = describe_step(step_of(life, reward=0.0), None).splitlines()
    assert lines == [
        "step 2 of user 3: session 2 of their life, day 13.5",
        "item 7: disliked",
        "votes: f_mat 1, f_sim 0, f_sta 0",
        "earned: 0",
        "the user left, and returned after 3.2 days",
    ]
    life["returned"] = np.bool_(False)
    for ends, line in (
        ({"terminated": True}, "the user left for good"),
        ({"truncated": True}, "the session was cut at its longest length"),
        ({}, "earned: 1"),
    ):
        assert describe_step(step_of(life, **ends), None).splitlines()[-1] == line


def test_slates_and_invalid_actions_by_hand(titled):
    info = {
        "slate": np.array([4, 9]),
        "place": np.int32(1),
        "probabilities": np.array([0.25, 0.5, 0.25], np.float32),
    }
    lines = describe_step(step_of(info, action=[4, 9]), titled).splitlines()
    assert [line.split() for line in lines[1:5]] == [
        ["place", "item", "probability"],
        ["1", '"title', "4", '"', "(item", "4)", "0.250"],
        ["2", '"title', "9", '"', "(item", "9)", "0.500", "chosen"],
        ["none", "0.250"],
    ]
    info["place"] = np.int32(-1)
    assert describe_step(step_of(info), None).splitlines()[4].split() == ["none", "0.250", "chosen"]
    wrong = describe_step(step_of({"invalid_action": np.bool_(True)}, action=[4, 4]), titled)
    assert "item 4, 4: invalid, so nothing was recommended" in wrong


@pytest.mark.slow
def test_an_environment_renders_its_last_step(titled):
    _, env, params = simulator_of(titled, semantics="calibrated", departure="fitted", signals="all")
    session = GymnasiumEnv(env, params, seed=0, render_mode="ansi", dataset=titled)
    assert session.metadata["render_modes"] == ["ansi"]
    with pytest.raises(InputError, match=r"call reset\(\) first"):
        session.render()
    obs, info = session.reset()
    user = int(obs["user"][0])
    assert session.render() == f"user {user} has begun a session"
    item = int(info["action_mask"].argmax())
    *_, terminated, _, info = session.step(item)
    text = session.render()
    assert text.startswith(f'step 1 of the session of user {user}\n"title {item} " (item {item}): ')
    assert f"probability of a like: {info['probability']:.3f}" in text
    assert f"chance of leaving: {info['departure_probability']:.3f}" in text
    assert text.endswith("the user left") == terminated
    session.reset()
    assert "begun" in session.render()


@pytest.mark.slow
def test_slates_are_rendered(dataset):
    _, env, params = with_rates(dataset, slate_size=2, session_capacity=4)
    session = GymnasiumEnv(env, leaving_with(params, 0.0), seed=0, render_mode="ansi")
    _, info = session.reset()
    *_, info = session.step(np.flatnonzero(info["action_mask"])[:2])
    assert f"{info['probabilities'][-1]:.3f}" in session.render()
    session.step([3, 3])
    assert "item 3, 3: invalid" in session.render()


def test_what_cannot_be_rendered_is_refused(simulator, dataset):
    _, env, params = simulator
    with pytest.raises(InputError, match=r"^render\(\) needs GymnasiumEnv\(..., render_mode="):
        GymnasiumEnv(env, params, seed=0).render()
    for options, message in (
        ({"render_mode": "human"}, "render_mode is 'human': give \"ansi\", or None"),
        ({"dataset": "ml-100k"}, "dataset is another one than env's"),
        ({"dataset": random_dataset(0, num_items=50)}, "dataset is another one than env's"),
    ):
        with pytest.raises(InputError) as error:
            GymnasiumEnv(env, params, seed=0, **options)
        assert str(error.value).startswith(message)


def test_reasons_by_hand():
    """Item 2 shares two pros with the liked item 0, and one con with the disliked item 1."""
    names = ["good", "fast", "dull"]
    pros, cons = [[0, 1], [], [0, 1], [], [], []], [[], [2], [2], [], [], []]
    sequence = list(range(6)), [1, 0, 1, 0, 1, 0]
    dataset = make_dataset([[0]] * 6, pros, cons, [sequence], window=3)
    dataset = dataclasses.replace(dataset, keywords=names)
    _, env, params = simulator_of(dataset, history_length=2, session_capacity=1)
    items, labels = jnp.array([0, 1, -1], jnp.int32), jnp.array([1, 0, 0], jnp.int8)
    key = jax.random.key(0)
    decision = env.respond(key, items, labels, jnp.int32(2), params, 0, reasons=True)
    first, second, third = describe_reasons(jax.device_get(decision), np.asarray(items), dataset)
    assert first.startswith("shared pros with liked items: 2 (good, fast); most similar: ")
    assert second.startswith("shared cons with disliked items: 1 (dull); most similar: ")
    assert third == f"probability of a like by the logs (f_sta): {decision.sta_probability:.3f}"


def test_reasons_are_shown_with_votes_and_words(dataset):
    _, env, params = simulator_of(dataset)
    session = GymnasiumEnv(env, params, seed=0, render_mode="ansi", dataset=dataset)
    obs, info = session.reset()
    item = int(info["action_mask"].argmax())
    window = obs["items"].copy(), obs["responses"].copy()
    obs["items"][:] = -1  # the caller's arrays are the caller's
    session.step(item)
    key = jax.random.key(1)
    decision = env.respond(key, *window, item, params, int(obs["user"][0]), reasons=True)
    expected = describe_reasons(jax.device_get(decision), window[0], dataset)
    assert session.render().splitlines()[-3:] == expected
    session.step(item)  # a second time, which is invalid
    assert "shared" not in session.render()
    wordless = GymnasiumEnv(env, params, seed=0, render_mode="ansi")
    wordless.reset()
    wordless.step(item)
    assert "shared" not in wordless.render()
