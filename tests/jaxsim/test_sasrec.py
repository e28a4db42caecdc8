"""The statistic model: the plain forward pass, causality, padding, the cache, and what enters after it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from jaxsim import InputError
from jaxsim.sasrec import KeyValues, SASRec, _widen, restore
from tests import reference
from tests.factory import sasrec_weights

ITEMS, USERS, WINDOW, WIDTH, BLOCKS = 7, 3, 9, 8, 2


def architecture(num_heads: int = 1) -> dict:
    """As in a manifest. That with two heads has running means of residuals, and that with one head is older."""
    decays = {"decays": list(reference.DECAYS)} if num_heads == 2 else {}
    return {
        "num_items": ITEMS, "num_users": USERS, "window": WINDOW, "width": WIDTH,
        "num_blocks": BLOCKS, "num_heads": num_heads, "dropout": 0.2, **decays,
    }  # fmt: skip


@pytest.fixture(scope="module", params=[1, 2], ids=["one head", "two heads and residuals"])
def heads(request) -> int:
    return request.param


@pytest.fixture(scope="module")
def weights(heads) -> dict[str, np.ndarray]:
    return sasrec_weights(architecture(heads), seed=1)


@pytest.fixture(scope="module")
def encode(heads, weights):
    model, variables = restore({"architecture": architecture(heads)}, weights)
    return jax.jit(lambda items, likes: model.apply(variables, items, likes, method="encode"))


@pytest.fixture(scope="module")
def encode_token(heads, weights):
    model, variables = restore({"architecture": architecture(heads)}, weights)
    return jax.jit(lambda *args: model.apply(variables, *args, method="encode_token"))


def apply(weights, *args, method, num_heads=1):
    model, variables = restore({"architecture": architecture(num_heads)}, weights)
    return jax.jit(lambda v, *rest: model.apply(v, *rest, method=method))(variables, *args)


def random_history(seed: int, length: int = WINDOW) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    items = rng.integers(0, ITEMS, length).astype(np.int32)
    return items, rng.integers(0, 2, length).astype(np.int8)


def test_encoder_is_the_reference(encode, weights, heads):
    items, likes = random_history(0)
    hidden, _ = encode(items, likes)
    history = list(zip(items.tolist(), likes.tolist(), strict=True))
    np.testing.assert_allclose(hidden, reference.encode(weights, history, BLOCKS, heads), atol=2e-5)


@pytest.mark.parametrize("user", [-1, 0, 2])
def test_logit_is_the_reference(encode, weights, heads, user):
    items, likes = random_history(1)
    hidden, _ = encode(items, likes)
    history = list(zip(items.tolist(), likes.tolist(), strict=True))
    args = hidden[-1], jnp.int32(user)
    actual = apply(weights, *args, method="all_logits", num_heads=heads)
    expected = [reference.sta_logit(weights, history, c, user, BLOCKS, heads) for c in range(ITEMS)]
    np.testing.assert_allclose(actual, expected, atol=1e-4)
    one = apply(weights, hidden[-1], jnp.int32(3), jnp.int32(user), method="logit", num_heads=heads)
    np.testing.assert_allclose(one, actual[3], rtol=1e-5)


def test_a_token_changes_nothing_before_it(encode):
    items, likes = random_history(2)
    before, cache = encode(items, likes)
    for position in range(WINDOW):
        changed = items.copy()
        changed[position] = (changed[position] + 1) % ITEMS
        flipped = likes.copy()
        flipped[position] = 1 - flipped[position]
        for after, new_cache in (encode(changed, likes), encode(items, flipped)):
            np.testing.assert_array_equal(after[:position], before[:position])
            for new, old in zip(new_cache.keys, cache.keys, strict=True):
                np.testing.assert_array_equal(new[:position], old[:position])
            assert np.abs(after[position:] - before[position:]).max(axis=1).min() > 1e-6


def test_running_means_of_residuals_by_hand():
    """Likes 1, 0, 1 of items with the rates 0.5, 0.25, 0.5 leave the residuals 0.5, -0.25, 0.5."""
    names = ("item_rate", "residual_projection")
    weights = {
        name: 0 * w if name not in names else w
        for name, w in sasrec_weights(architecture(2)).items()
    }
    weights["item_rate"] = np.array([9, 0.5, 0.25, 0, 0, 0, 0, 0], np.float32)
    weights["residual_projection"] = np.eye(2, WIDTH, dtype=np.float32)
    items, likes = jnp.array([0, 1, 0, -1], jnp.int32), jnp.array([1, 0, 1, 0], jnp.int8)
    hidden, cache = apply(weights, items, likes, method="encode", num_heads=2)
    # Decay 3/4: 0.5, 3/4 0.5 - 0.25, 3/4 0.125 + 0.5, over 5 + 1, 5 + 1.75, 5 + 2.3125. Decay 1: over 6, 7, 8.
    sums = np.array([[0.5, 0.5], [0.125, 0.25], [0.59375, 0.75]])
    np.testing.assert_allclose(cache.residuals[:3], sums, atol=1e-6)
    expected = sums / np.array([[6, 6], [6.75, 7], [7.3125, 8]])
    np.testing.assert_allclose(hidden[:3, :2], expected, atol=1e-6)
    assert not hidden[:3, 2:].any()


def test_an_older_model_has_no_running_means():
    model, variables = restore({"architecture": architecture()}, sasrec_weights(architecture()))
    assert model.decays == ()
    assert "decays" not in model.architecture
    assert not {"item_rate", "residual_projection"} & variables["params"].keys()
    newer = SASRec(**architecture(2))
    assert newer.architecture == architecture(2)
    assert {newer: "usable as a static argument"}[SASRec(**architecture(2))]


@pytest.mark.parametrize("length", [1, 4, 8])
def test_padding_changes_nothing(encode, length):
    items, likes = random_history(3)
    short, _ = encode(items[:length], likes[:length])
    pad = np.arange(WINDOW) >= length
    for rest in (0, 1):
        padded, _ = encode(np.where(pad, -1, items), np.where(pad, rest, likes).astype(np.int8))
        np.testing.assert_allclose(padded[:length], short, atol=1e-6)
        assert np.isfinite(padded).all()


@pytest.mark.parametrize("split", range(WINDOW))
def test_token_by_token_is_the_whole_window(encode, encode_token, split):
    """The first `split` tokens cached as the initial history, the others appended one by one."""
    items, likes = random_history(4)
    whole, expected = encode(items, likes)
    used = np.arange(WINDOW)[:, None] < split
    rubbish = 1e3  # what lies beyond a cache's length must not be read
    cache = jax.tree.map(lambda x: jnp.where(used, x, rubbish), expected)
    for position in range(split, WINDOW):
        hidden, cache = encode_token(items[position], likes[position], cache, position)
        np.testing.assert_allclose(hidden, whole[position], atol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), cache, expected)


def test_sixteen_bits_are_those_of_bfloat16():
    rng = np.random.default_rng(0)
    numbers = np.concatenate([rng.normal(size=100), [0.0, -0.0, 1.0, 1 + 2**-8, 1 + 3 * 2**-8]])
    cache = KeyValues((jnp.float32(numbers),), (jnp.float32(-numbers),), jnp.float32([3.3]))
    stored = cache.stored_as("bfloat16")
    assert stored.keys[0].dtype == stored.values[0].dtype == jnp.uint16
    assert stored.residuals is cache.residuals
    rounded = jnp.float32(numbers).astype(jnp.bfloat16).astype(jnp.float32)
    np.testing.assert_array_equal(_widen(stored.keys[0]), rounded)
    np.testing.assert_array_equal(_widen(stored.values[0]), -rounded)
    # By hand: between 1 and 2 they are multiples of 2**-7, and halves go to the even one.
    np.testing.assert_array_equal(_widen(stored.keys[0])[-3:], [1, 1, 1 + 2 * 2**-7])
    for again in (stored.stored_as("bfloat16"), cache.stored_as("float32").stored_as("bfloat16")):
        np.testing.assert_array_equal(again.keys[0], stored.keys[0])


def test_a_cache_of_sixteen_bits_is_one_of_rounded_numbers(encode, encode_token):
    """The products are those of float32: only what is stored is rounded."""
    items, likes = random_history(4)
    split = WINDOW // 2
    used = np.arange(WINDOW)[:, None] < split
    _, cache = encode(items, likes)
    cache = jax.tree.map(lambda x: jnp.where(used, x, 0), cache)
    narrow, exact = cache.stored_as("bfloat16"), cache
    for position in range(split, WINDOW):
        rounded = KeyValues(*(tuple(map(_widen, x)) for x in (narrow.keys, narrow.values)),
                            narrow.residuals)  # fmt: skip
        wide, _ = encode_token(items[position], likes[position], rounded, position)
        hidden, narrow = encode_token(items[position], likes[position], narrow, position)
        plain, exact = encode_token(items[position], likes[position], exact, position)
        # `wide` differs in the token's own key and value, which the narrow cache rounds.
        np.testing.assert_allclose(hidden, wide, atol=0.03)
        np.testing.assert_allclose(hidden, plain, atol=0.05)
        assert narrow.keys[0].dtype == jnp.uint16
    for new, old in zip(narrow.keys, exact.keys, strict=True):
        np.testing.assert_allclose(_widen(new), old, rtol=0.05, atol=0.05)


def test_a_token_past_the_window_changes_no_cache(encode, encode_token):
    items, likes = random_history(4)
    _, cache = encode(items, likes)
    for length in (WINDOW, WINDOW + 1, 2**31 - 1):
        hidden, after = encode_token(items[0], likes[0], cache, length)
        jax.tree.map(np.testing.assert_array_equal, after, cache)
        assert np.isfinite(hidden).all()


def test_unknown_user_has_the_mean_effect(weights, heads):
    effects = weights["user_effect"]
    zero = jnp.zeros(WIDTH)
    logits = {
        user: float(apply(weights, zero, 2, user, method="logit", num_heads=heads))
        for user in (-1, 0, 1, 2)
    }
    for user in range(USERS):
        difference = logits[user] - logits[-1]
        np.testing.assert_allclose(difference, effects[user] - effects.mean(), atol=1e-5)


def test_effects_and_candidates_enter_after_the_encoder(weights, heads):
    late = (
        "candidate_embedding/embedding",
        "common_candidate",
        "item_effect",
        "user_effect",
        "offset",
    )
    changed = {name: w + 1 if name in late else w for name, w in weights.items()}
    assert set(late) <= set(weights)
    results = [
        apply(w, *random_history(5), method="encode", num_heads=heads) for w in (weights, changed)
    ]
    jax.tree.map(np.testing.assert_array_equal, *results)
    hidden = results[0][0][-1]
    logits = [apply(w, hidden, 0, 0, method="logit", num_heads=heads) for w in (weights, changed)]
    assert abs(logits[1] - logits[0]) > 1


def test_next_logits_judge_each_token_on_those_before(encode, weights, heads):
    items, likes = random_history(6)
    actual = apply(weights, items, likes, 1, method="next_logits", num_heads=heads)
    history = list(zip(items.tolist(), likes.tolist(), strict=True))
    expected = [
        reference.sta_logit(weights, history[:t], int(items[t]), 1, BLOCKS, heads)
        for t in range(WINDOW)
    ]
    np.testing.assert_allclose(actual, expected, atol=1e-4)


def test_restored_weights_are_those_given(weights, heads):
    _, variables = restore({"architecture": architecture(heads)}, weights)
    actual = flatten_dict(variables["params"], sep="/")
    assert actual.keys() == weights.keys()
    jax.tree.map(np.testing.assert_array_equal, actual, dict(weights))


@pytest.mark.parametrize(
    "spoil",
    [
        lambda w: w.pop("item_effect"),
        lambda w: w.update(extra=np.zeros(1, np.float32)),
        lambda w: w.update(item_effect=w["item_effect"][:-1]),
        lambda w: w.pop("blocks_1/output/kernel"),
        lambda w: w["item_effect"].__setitem__(3, np.nan),
    ],
    ids=["missing", "extra", "too short", "missing in a block", "not finite"],
)
def test_weights_that_do_not_fit_are_refused(spoil):
    weights = sasrec_weights(architecture())
    spoil(weights)
    with pytest.raises(InputError, match=r"sasrec\.safetensors") as caught:
        restore({"architecture": architecture()}, weights)
    assert "\n" not in str(caught.value)


def test_every_matrix_product_is_at_full_precision(weights, heads):
    """Otherwise a GPU multiplies with 10 bits of mantissa, and some of its votes differ from a CPU's."""
    model, variables = restore({"architecture": architecture(heads)}, weights)

    def read(items, likes):
        _, cache = model.apply(variables, items, likes, method="encode")
        return model.apply(variables, items[0], likes[0], cache, 1, method="encode_token")

    text = str(jax.make_jaxpr(read)(*random_history(0)))
    products = text.count("= dot_general[")
    assert products >= 2 * BLOCKS * 6  # four layers and two products of attention, in both methods
    assert text.count("precision=(Precision.HIGHEST, Precision.HIGHEST)") == products


@pytest.mark.slow
def test_weights_and_results_are_float32_also_in_64_bit_mode():
    with jax.enable_x64(True):
        model = SASRec(**architecture())
        items, likes = (jnp.asarray(x) for x in random_history(0))
        variables = model.init(jax.random.key(0), items, likes, jnp.int32(0), method="next_logits")
        logits = model.apply(variables, items, likes, jnp.int32(0), method="next_logits")
        assert jnp.arange(1.0).dtype == jnp.float64  # the mode is on
    types = {leaf.dtype for leaf in jax.tree.leaves((variables, logits))}
    assert types == {np.dtype(np.float32)}
