"""The KuaiSim-style model: what it reads, how it is trained, and that it plays."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks.fidelity.events import events_of
from benchmarks.fidelity.predictor import CannotFitError, TrainingData
from benchmarks.fidelity.simulator import Simulator
from benchmarks.rivals.kuaisim import KuaiSim, KuaiSimUser
from benchmarks.rivals.kuaisim_training import (
    KUAISIM,
    KuaiSimTraining,
    _params,
    probabilities,
    slates_of,
    train_kuaisim,
)
from jaxsim import InputError
from prep.statistic_model import training_sequences
from tests.conftest import never_leaves, simulator_of
from tests.factory import make_dataset, random_dataset

CONFIG = KuaiSimTraining(window=6, slate=3, batch_size=8, epochs=2)
HISTORY = (jnp.array([4, 2, 7, -1], jnp.int32), jnp.array([1, 0, 1, 0], jnp.int8), jnp.int32(3))


@pytest.fixture(scope="module")
def model(dataset):
    """A network with random weights that are large enough to matter."""
    network = KuaiSim(dataset.num_items, dataset.num_users, len(dataset.categories), window=6)
    categories = jnp.asarray(dataset.arrays["item_categories"])
    arguments = jnp.full(6, -1, jnp.int32), jnp.zeros(6, jnp.int8), jnp.int32(0), jnp.int32(0)
    key = jax.random.key(0)
    weights = network.init(
        key, categories, *arguments, jnp.zeros(3, jnp.int32), method="slate_logits"
    )["params"]
    weights = jax.tree.map(lambda x: 3 * x + 0.1, weights)
    return KuaiSimUser(network), _params(network, categories, weights)


@pytest.mark.slow
def test_every_token_sees_every_other_and_padding_is_seen_by_none(model):
    user, params = model
    items, likes, length = HISTORY
    probability = jax.jit(
        lambda user_id, *history: user.probabilities(
            params, user.init(params, user_id, *history), 40
        )
    )
    base = probability(jnp.int32(1), items, likes, length)
    assert base.shape == (40,)
    # Padding of any length and with any content changes nothing.
    padded = jnp.pad(items, (0, 2), constant_values=9), jnp.pad(likes, (0, 2), constant_values=1)
    np.testing.assert_allclose(probability(jnp.int32(1), *padded, length), base, atol=1e-6)
    # The response to the oldest item, another order, and another user change the answer.
    for changed in (
        (jnp.int32(1), items, likes.at[0].set(0), length),
        (jnp.int32(1), items[jnp.array([1, 0, 2, 3])], likes[jnp.array([1, 0, 2, 3])], length),
        (jnp.int32(2), items, likes, length),
        (jnp.int32(-1), items, likes, length),
        (jnp.int32(1), items, likes, jnp.int32(0)),
    ):
        assert np.abs(probability(*changed) - base).max() > 1e-4


@pytest.mark.slow
def test_a_session_is_the_history_with_what_was_appended(dataset, model):
    user, params = model
    env, env_params = simulator_of(dataset, user_model=user, user_params=params)[1:]
    env_params = never_leaves(env_params)
    obs, state = env.reset_user(0, env_params)
    step = jax.jit(lambda *a: env.step(*a))
    for t in range(8):  # more than the window
        action = jnp.int32(np.flatnonzero(env.action_mask(obs))[t])
        obs, state, *_ = step(jax.random.key(t), state, action, env_params)
        answer = env.respond(
            jax.random.key(0), obs.items, obs.responses, jnp.int32(3), env_params, user=0
        )
        np.testing.assert_allclose(
            env.expected_response(state, env_params)[3], answer.probability, atol=1e-5
        )
    assert state.user_state.window.length == 6


def test_slates_cover_every_training_interaction_once_with_the_history_before_it():
    items = list(range(11))
    labels = [1, 0, 1, 1, 0, 0, 1, 0, 1, 1, 0]
    words = [[0]] * 11
    dataset = make_dataset(
        words, words, words, [(items, labels), ([3, 4], [1, 0]), (items[::-1], labels)]
    )
    sequences = training_sequences(dataset.arrays)
    config = replace(CONFIG, batch_size=1)
    for seed in range(4):
        seen = []
        for slates in slates_of(sequences, config, np.random.default_rng(seed)):
            user = int(slates.user[0])
            whole = items if user == 0 else items[::-1] if user == 2 else [3, 4]
            slate = slates.slate[0][slates.slate[0] >= 0]
            first = whole.index(slate[0])
            assert list(slate) == whole[first : first + len(slate)]
            length = int(slates.length[0])
            assert length == min(first, config.window)
            assert list(slates.items[0, :length]) == whole[first - length : first]
            assert (slates.items[0, length:] == -1).all()
            seen += [(user, item) for item in slate]
        assert len(seen) == len(set(seen)) == len(sequences.items)


@pytest.mark.slow
def test_it_learns_what_decides_and_never_reads_a_test_label():
    """Two kinds of users who like opposite halves of the catalogue: only the history tells them apart."""
    rng = np.random.default_rng(0)
    sequences = []
    for user in range(60):
        items = rng.permutation(20)
        sequences.append((items.tolist(), ((items < 10) == (user % 2 == 0)).astype(int).tolist()))
    words = [[0]] * 20
    dataset = make_dataset(words, words, words, sequences)
    config = KuaiSimTraining(window=16, slate=2, batch_size=16, epochs=8, learning_rate=5e-3)
    aucs = [
        max(train_kuaisim(dataset, replace(config, seed=seed)).about["validation_auc"])
        for seed in (0, 1)
    ]
    assert min(aucs) > 0.9, aucs
    flipped = dict(dataset.arrays)
    test = flipped["interaction_split"] == 2
    flipped["interaction_label"] = np.where(
        test, 1 - flipped["interaction_label"], flipped["interaction_label"]
    )
    short = replace(config, epochs=1)
    first, second = (train_kuaisim(d, short) for d in (dataset, replace(dataset, arrays=flipped)))
    jax.tree.map(np.testing.assert_array_equal, first.params, second.params)
    events = events_of(dataset, "test", 16)
    scores = probabilities(first.model, first.params, events)
    assert scores.shape == (len(events),)
    assert ((scores > 0) & (scores < 1)).all()


def test_data_and_settings_that_do_not_serve_are_refused():
    with pytest.raises(InputError, match=r"--kuaisim\.slate is 0"):
        train_kuaisim(random_dataset(0), replace(CONFIG, slate=0))
    all_liked = make_dataset([[0]] * 6, [[0]] * 6, [[0]] * 6, [(list(range(6)), [1] * 6)])
    with pytest.raises(InputError, match="likes and dislikes among the validation labels"):
        train_kuaisim(all_liked, CONFIG)
    # Where models are compared, it is left out with this reason.
    with pytest.raises(CannotFitError, match="needs training interactions, and likes and dislikes"):
        KUAISIM.fit(TrainingData(all_liked, Simulator.of(all_liked), context=6))


@pytest.mark.slow
def test_where_policies_are_compared_it_is_the_model_of_table_6():
    dataset = random_dataset(2)
    fitted = KUAISIM.fit(TrainingData(dataset, Simulator.of(dataset), context=6))
    trained = train_kuaisim(dataset, KuaiSimTraining(window=6))
    events = events_of(dataset, "test", 6)
    expected = probabilities(trained.model, trained.params, events)
    np.testing.assert_array_equal(fitted.predict(events), expected)
