"""The encoders read what they should, and nothing else; all give one result alone and in batches."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from agents.algorithms.networks import (
    CRITIC_LAYERS,
    ActorCritic,
    DuelingItemScorer,
    HistoryEncoder,
    ItemStart,
    with_item_start,
)
from jaxsim import Observation

NUM_ITEMS, WIDTH, WINDOW = 9, 8, 6
KINDS = ("mean", "gru", "attention", "residual")
UNORDERED = ("mean", "residual")


def observation(items, likes, user=0) -> Observation:
    padding = WINDOW - len(items)
    responses = [1 if like else -1 for like in likes]
    return Observation(
        user=jnp.int32(user),
        items=jnp.array([*items, *[-1] * padding], jnp.int32),
        responses=jnp.array([*responses, *[0] * padding], jnp.int8),
        length=jnp.int32(len(items)),
    )


OBS = observation([3, 1, 4], [1, 0, 1])


def encoder_of(kind):
    encoder = HistoryEncoder(NUM_ITEMS, WIDTH, kind)
    variables = encoder.init(jax.random.key(0), OBS)
    return lambda obs: encoder.apply(variables, obs), variables


@pytest.mark.parametrize("kind", KINDS)
def test_encoders_read_items_and_responses_and_no_more(kind):
    encode, _ = encoder_of(kind)
    actual = encode(OBS)
    assert actual.shape == ((2 if kind == "residual" else 1) * WIDTH,)
    assert actual.dtype == jnp.float32
    for other in (
        observation([3, 1, 5], [1, 0, 1]),
        observation([3, 1, 4], [1, 0, 0]),
        observation([3, 1, 4, 2], [1, 0, 1, 1]),
    ):
        assert np.abs(encode(other) - actual).max() > 1e-5
    chex.assert_trees_all_equal(encode(OBS.replace(user=jnp.int32(5))), actual)
    # What lies behind the length is padding, whatever its number.
    junk = OBS.replace(items=OBS.items.at[4].set(7))
    chex.assert_trees_all_equal(encode(junk), actual)
    empty = encode(observation([], []))
    assert jnp.isfinite(empty).all()


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_one_observation_is_a_row_of_a_batch(kind):
    encode, _ = encoder_of(kind)
    several = [OBS, observation([], []), observation([0, 1, 2, 3, 4, 5], [1] * 6)]
    batch = jax.tree.map(lambda *x: jnp.stack(x), *several)
    both = jax.tree.map(lambda x: jnp.stack([x, x]), batch)
    expected = jnp.stack([encode(obs) for obs in several])
    chex.assert_trees_all_close(encode(batch), expected, atol=1e-6)
    chex.assert_trees_all_close(encode(both)[1], expected, atol=1e-6)
    chex.assert_trees_all_close(jax.vmap(encode)(batch), expected, atol=1e-6)


def test_mean_and_residual_ignore_the_order():
    turned = observation([4, 1, 3], [1, 0, 1])
    for kind in KINDS:
        encode, _ = encoder_of(kind)
        differs = float(np.abs(encode(turned) - encode(OBS)).max())
        assert (differs < 1e-6) == (kind in UNORDERED)


def test_the_mean_encoder_against_numpy():
    """An item twice in the window counts twice; likes and dislikes have tables of their own."""
    obs = observation([3, 1, 3, 3, 2], [1, 0, 1, 0, 0])
    encode, variables = encoder_of("mean")
    weights = jax.tree.map(np.asarray, variables["params"])
    table = weights["history_embedding"]
    liked = table[[3, 3], :WIDTH].mean(axis=0)
    disliked = table[[1, 3, 2], WIDTH:].mean(axis=0)
    x = np.concatenate([liked, disliked, [2 / 5, 5 / WINDOW]])
    for layer in ("Dense_0", "Dense_1"):
        x = np.maximum(x @ weights[layer]["kernel"] + weights[layer]["bias"], 0)
    np.testing.assert_allclose(encode(obs), x, rtol=1e-5, atol=1e-6)


def test_logits_are_inner_products_with_the_item_embeddings():
    network = ActorCritic(NUM_ITEMS, WIDTH, initial_value=7.0)
    variables = network.init(jax.random.key(0), OBS)
    logits, value = network.apply(variables, OBS, method="logits_and_value")
    assert logits.shape == (NUM_ITEMS,)
    chex.assert_trees_all_equal(network.apply(variables, OBS), logits)
    chex.assert_trees_all_equal(network.apply(variables, OBS, method="logits"), logits)
    np.testing.assert_allclose(value, 7.0, rtol=1e-6)
    chex.assert_trees_all_close(network.apply(variables, OBS, method="value"), value)
    weights = variables["params"]
    encoder = HistoryEncoder(NUM_ITEMS, WIDTH)
    state = encoder.apply({"params": weights["history"]}, OBS)
    expected = (
        np.asarray(state) @ weights["direction"]["kernel"] + weights["direction"]["bias"]
    ) @ weights["item_embedding"].T + weights["item_bias"]
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("seed", [0, 1])
def test_both_ways_to_average_a_window_agree_with_numpy(monkeypatch, seed):
    """By the window's rows, as on a CPU, and by a product with counts, as on other devices; gradients too."""
    rng = np.random.default_rng(seed)
    lengths = np.array([0, 1, 4, WINDOW])
    used = np.arange(WINDOW) < lengths[:, None]
    signs = rng.choice([-1, 1], used.shape)
    obs = Observation(
        user=jnp.zeros(4, jnp.int32),
        items=jnp.asarray(np.where(used, rng.integers(0, NUM_ITEMS, used.shape), -1), jnp.int32),
        responses=jnp.asarray(np.where(used, signs, 0), jnp.int8),
        length=jnp.asarray(lengths, jnp.int32),
    )
    table = rng.standard_normal((NUM_ITEMS, 2 * WIDTH)).astype(np.float32)
    weights = rng.standard_normal((4, 2 * WIDTH)).astype(np.float32)
    expected = np.zeros((4, 2 * WIDTH))
    slope = np.zeros_like(table)
    for n, (items, responses) in enumerate(zip(obs.items, obs.responses, strict=True)):
        for sign, half in ((1, slice(0, WIDTH)), (-1, slice(WIDTH, None))):
            chosen = np.asarray(items)[np.asarray(responses) == sign]
            if len(chosen):
                expected[n, half] = table[chosen, half].mean(axis=0)
                np.add.at(slope[:, half], chosen, weights[n, half] / len(chosen))
    encoder = HistoryEncoder(NUM_ITEMS, WIDTH)
    for backend in ("cpu", "gpu"):
        monkeypatch.setattr(jax, "default_backend", lambda name=backend: name)
        np.testing.assert_allclose(encoder._mean(table, obs), expected, atol=1e-5)
        actual = jax.grad(lambda t: (encoder._mean(t, obs) * weights).sum())(jnp.asarray(table))
        np.testing.assert_allclose(actual, slope, atol=1e-5)


def test_the_value_of_an_item_is_one_of_all_values():
    scorer = DuelingItemScorer(NUM_ITEMS, WIDTH, initial_value=3.0)
    variables = jax.tree.map(lambda x: x + 0.1, scorer.init(jax.random.key(0), OBS))
    every = scorer.apply(variables, OBS)
    for item in (0, 5):
        one = scorer.apply(variables, OBS, jnp.int32(item), method="value_of")
        np.testing.assert_allclose(one, every[item], rtol=1e-5)


def gradient_sizes(network, part):
    """By layer: how much the logits (part 0) or the value (part 1) of a network depend on its parameters."""
    variables = jax.tree.map(lambda x: x + 0.1, network.init(jax.random.key(0), OBS))

    def total(variables):
        return network.apply(variables, OBS, method="logits_and_value")[part].sum()

    gradients = jax.grad(total)(variables)["params"]
    return {
        name: sum(float(jnp.abs(x).sum()) for x in jax.tree.leaves(layer))
        for name, layer in gradients.items()
    }


@pytest.mark.slow
def test_actor_and_critic_share_one_encoder_or_nothing():
    shared = ActorCritic(NUM_ITEMS, WIDTH)
    assert gradient_sizes(shared, 0)["history"] > 0
    assert gradient_sizes(shared, 1)["history"] > 0
    separate = ActorCritic(NUM_ITEMS, WIDTH, separate_critic=True)
    for part in (0, 1):
        for layer, size in gradient_sizes(separate, part).items():
            assert (size > 0) == ((layer in CRITIC_LAYERS) == (part == 1)), layer


def test_untrained_action_values_are_near_the_initial_value():
    network = DuelingItemScorer(NUM_ITEMS, WIDTH, initial_value=10.0)
    variables = network.init(jax.random.key(0), OBS)
    values = network.apply(variables, OBS)
    assert 0 < np.abs(values - 10).max() < 1
    logits, value = network.apply(variables, OBS, method="logits_and_value")
    chex.assert_trees_all_close(values, logits + value)


def test_item_embeddings_may_start_from_given_vectors():
    network = ActorCritic(NUM_ITEMS, WIDTH, separate_critic=True)
    variables = network.init(jax.random.key(0), OBS)
    vectors = np.random.default_rng(0).standard_normal((NUM_ITEMS, WIDTH)).astype(np.float32)
    actual = with_item_start(variables, ItemStart(jnp.asarray(5 * vectors)), 1.0)["params"]
    embedding = np.asarray(actual["item_embedding"])
    np.testing.assert_allclose(np.corrcoef(embedding.ravel(), vectors.ravel())[0, 1], 1, rtol=1e-5)
    np.testing.assert_allclose(embedding.std(), 0.01, rtol=0.1)
    history = np.asarray(actual["history"]["history_embedding"])
    np.testing.assert_allclose(history[:, :WIDTH], 10 * embedding, rtol=1e-4)
    np.testing.assert_array_equal(history[:, :WIDTH], history[:, WIDTH:])
    np.testing.assert_array_equal(actual["critic_history"]["history_embedding"], history)
    chex.assert_trees_all_equal(actual["direction"], variables["params"]["direction"])
    chex.assert_trees_all_equal(actual["item_bias"], variables["params"]["item_bias"])


RESIDUAL_OBS = observation([3, 1, 3, 3, 2], [1, 0, 1, 0, 0])


def residual_start(seed):
    """A network that starts from vectors and rates, and the taste that NumPy finds for RESIDUAL_OBS."""
    rng = np.random.default_rng(seed)
    start = ItemStart(
        jnp.asarray(rng.normal(0, 0.3, (NUM_ITEMS, WIDTH)), jnp.float32),
        jnp.asarray(rng.normal(0.5, 0.5, NUM_ITEMS), jnp.float32),
    )
    network = ActorCritic(NUM_ITEMS, WIDTH, "residual", separate_critic=True)
    variables = with_item_start(network.init(jax.random.key(seed), OBS), start, 3.0)
    vectors, odds = np.asarray(start.vectors, float), np.asarray(start.log_odds, float)
    rate = 1 / (1 + np.exp(-odds))
    items, likes = np.array([3, 1, 3, 3, 2]), np.array([1, 0, 1, 0, 0])
    x, y = vectors[items], likes - rate[items]
    taste = vectors @ np.linalg.solve(x.T @ x + np.eye(WIDTH), x.T @ y)
    return network, variables, odds, rate, taste


@pytest.mark.parametrize("seed", range(3))
def test_first_scores_are_log_odds_of_item_and_taste(seed):
    """Four distinct rows span the regression, so four steps of conjugate gradients solve it."""
    network, variables, odds, rate, taste = residual_start(seed)
    expected = 3 * (odds + taste / np.mean(rate * (1 - rate)))
    np.testing.assert_allclose(network.apply(variables, RESIDUAL_OBS), expected, rtol=1e-3)
    unknown = network.apply(variables, observation([], []))
    np.testing.assert_allclose(unknown, 3 * odds, rtol=1e-5)


@pytest.mark.slow
def test_features_and_rates_are_not_trained():
    network, variables, *_ = residual_start(0)

    def total(variables):
        logits, value = network.apply(variables, RESIDUAL_OBS, method="logits_and_value")
        return (logits**2).sum() + (value - 3) ** 2

    gradients = jax.grad(total)(variables)["params"]
    for history in ("history", "critic_history"):
        assert not np.any(gradients[history]["item_features"])
        assert not np.any(gradients[history]["item_rate"])
    assert np.any(gradients["history"]["feature_scale"])
    assert np.any(gradients["item_embedding"])
