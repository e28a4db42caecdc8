"""Replies of a causal language model of Hugging Face `transformers`, run by torch on this machine.

Prompts are taken in windows, sorted by length and answered in batches that are padded on the left. Greedy replies
(temperature 0) depend only on the prompt and the weights. Random draws come from a separate stream for each
request, seeded by the sampling seed and the request's key. So a reply does not depend on the other prompts of
its batch or on
what was answered before: a run that was stopped and continued draws the same tokens. Both hold up to rounding,
    because
the shape of a batch changes logits a little: in float32 this almost never changes a token, in bfloat16 it
    sometimes does.
"""

import hashlib
import sys
from collections.abc import Generator, Iterable, Iterator
from itertools import islice
from typing import Any, NamedTuple

import numpy as np

from jaxsim import InputError
from prep.annotation.annotators.base import Completion, Request, Sampling
from prep.annotation.annotators.model_source import (
    ModelSource,
    code_refused,
    first_line,
    import_libraries,
    locate_model,
)

GREEDY = Sampling()
DEFAULT_BATCH_SIZE = 16
BATCHES_AHEAD = 16
"""Batches that are sorted by length together; requests are taken this many batches ahead of their replies."""

_CONTEXT_NAMES = (
    "max_position_embeddings",
    "n_positions",
    "max_sequence_length",
    "seq_length",
    "max_seq_len",
    "n_ctx",
)


class _Prompt(NamedTuple):
    key: str
    token_ids: list[int]


class HuggingFaceAnnotator:
    """A causal language model on this machine (see `prep.annotation.annotators.base.Annotator`).

    The weights are loaded when the first prompt is answered; before that, only the configuration and the
    tokenizer. They run in bfloat16 on a GPU that has it, in float16 on any other CUDA GPU, in float32 elsewhere.
    """

    def __init__(
        self,
        model: str,
        revision: str = "",
        sampling: Sampling = GREEDY,
        batch_size: int = DEFAULT_BATCH_SIZE,
        device: str | None = None,
        trust_remote_code: bool = False,
    ) -> None:
        """Find the model and load its tokenizer.

        Args:
            model: its name on the Hugging Face hub or the path of its folder, as `save_pretrained` writes it.
            revision: branch, tag or commit on the hub; empty for the latest.
            sampling: how it writes.
            batch_size: largest number of prompts that are answered together; it is halved when memory runs out.
            device: a torch device; None for the GPU if there is one and the CPU otherwise.
            trust_remote_code: run code that comes with the model if transformers has no class for it. A model on
                the hub then needs a full commit hash as `revision`.

        Raises:
            InputError: torch or transformers is not installed, there is no such model or device, the model has
                code that may not be run, its context is too short for `sampling`, or `batch_size` is not positive.
        """
        if batch_size < 1:
            raise InputError(f"the batch size must be at least 1, got {batch_size}")
        self._torch, self._transformers = import_libraries()
        self._device = _find_device(self._torch, device)
        self._sampling = sampling
        self._batch_size = batch_size
        self._max_cells = sys.maxsize
        self._source = locate_model(model, revision, trust_remote_code)
        self._config = _load(self._transformers.AutoConfig, self._source, self._source.runs_code)
        self._tokenizer = _load_tokenizer(self._transformers, self._source)
        self._special_texts = _special_texts(self._tokenizer)
        self._context = context_length(self._config)
        if self._context is not None and self._context <= sampling.max_tokens:
            raise InputError(
                f"model {model!r}: {sampling.max_tokens:,} tokens of reply leave no room for a prompt in its "
                f"context of {self._context:,}; ask for shorter replies"
            )
        self._model: Any = None
        self._stop_ids: frozenset[int] = frozenset()

    @property
    def source(self) -> ModelSource:
        """Where its files come from."""
        return self._source

    @property
    def model(self) -> str:
        """Its name, as the user gave it."""
        return self._source.model

    @property
    def revision(self) -> str:
        """The commit that was loaded from the hub or, for a folder, `model_source.folder_digest`."""
        return self._source.revision

    @property
    def sampling(self) -> Sampling:
        """How it writes."""
        return self._sampling

    def count_tokens(self, prompt: str) -> int:
        """How many tokens a prompt is, message template included."""
        return len(self._encode(prompt))

    def complete(self, requests: Iterable[Request]) -> Generator[Completion, None, None]:
        """Answer requests, longest first within each window of `BATCHES_AHEAD` batches.

        A prompt that does not fit into the model's context or, alone, into memory, fails alone.

        Raises:
            InputError: the weights cannot be loaded.
        """
        remaining = iter(requests)
        while window := list(islice(remaining, self._batch_size * BATCHES_AHEAD)):
            fitting = []
            for request in window:
                prompt = _Prompt(request.key, self._encode(request.prompt))
                if failure := self._too_long(prompt):
                    yield failure
                else:
                    fitting.append(prompt)
            # The longest first: if memory is too small, that shows at once.
            fitting.sort(key=lambda prompt: len(prompt.token_ids), reverse=True)
            while fitting:
                rows = self._rows_that_fit(fitting[0])
                yield from self._answer(fitting[:rows])
                del fitting[:rows]

    def _encode(self, prompt: str) -> list[int]:
        """Token ids of a prompt as the model gets it."""
        # JSON can hold lone surrogates, tokenizers cannot.
        text = prompt.encode("utf-8", "replace").decode("utf-8")
        # A review that contains the text of a control token must not end the message that quotes it.
        for special in self._special_texts:
            text = text.replace(special, f"{special[0]} {special[1:]}")
        if getattr(self._tokenizer, "chat_template", None) is None:
            return list(self._tokenizer(text)["input_ids"])
        message = [{"role": "user", "content": text}]
        try:
            text = self._tokenizer.apply_chat_template(
                message, tokenize=False, add_generation_prompt=True
            )
        except Exception as error:  # templates are programs and can fail in any way
            raise InputError(
                f"model {self.model!r}: its chat template does not take a single user message "
                f"({first_line(error)})"
            ) from None
        return list(self._tokenizer(text, add_special_tokens=False)["input_ids"])

    def _too_long(self, prompt: _Prompt) -> Completion | None:
        tokens, limit = len(prompt.token_ids), self._sampling.max_tokens
        if self._context is None or tokens + limit <= self._context:
            return None
        failure = (
            f"{tokens:,} tokens of prompt and {limit:,} of reply do not fit into the model's context of "
            f"{self._context:,}"
        )
        return Completion(prompt.key, None, failure, tokens_in=tokens)

    def _width(self, prompt: _Prompt) -> int:
        return len(prompt.token_ids) + self._sampling.max_tokens

    def _rows_that_fit(self, longest: _Prompt) -> int:
        """How many prompts fit into a batch: fewer, once memory has run out."""
        return max(1, min(self._batch_size, self._max_cells // self._width(longest)))

    def _answer(self, batch: list[_Prompt]) -> Iterator[Completion]:
        """Answer a batch, longest first; if memory runs out, its halves one after the other."""
        self._load_weights()
        try:
            replies = self._generate(batch)
        except self._torch.OutOfMemoryError:
            replies = None
        # Outside the handler, whose exception would keep the tensors of the failed attempt alive.
        if replies is not None:
            for prompt, tokens in zip(batch, replies, strict=True):
                yield self._completion(prompt, tokens)
            return
        if self._device.type == "cuda":
            self._torch.cuda.empty_cache()
        width = self._width(batch[0])
        if len(batch) == 1:
            tokens_in = len(batch[0].token_ids)
            failure = f"out of memory on {self._device} with {tokens_in:,} tokens of prompt"
            yield Completion(batch[0].key, None, failure, tokens_in=tokens_in)
            return
        half = len(batch) // 2
        self._max_cells = half * width
        yield from self._answer(batch[:half])
        yield from self._answer(batch[half:])

    def _generate(self, batch: list[_Prompt]) -> list[list[int]]:
        """Token ids written for each prompt, including those after a stop token."""
        inputs = self._tokenizer.pad(
            {"input_ids": [prompt.token_ids for prompt in batch]},
            padding_side="left",
            return_attention_mask=True,
            return_tensors="pt",
        ).to(self._device)
        width = inputs["input_ids"].shape[1]
        draws = None
        if self._sampling.temperature > 0:
            keys = [prompt.key for prompt in batch]
            draws = [TokenDraws(self._torch, self._sampling, keys, width, self._device)]
        with self._torch.inference_mode():
            written = self._model.generate(
                **inputs, generation_config=self._model.generation_config, logits_processor=draws
            )
        return written[:, width:].tolist()

    def _completion(self, prompt: _Prompt, written: list[int]) -> Completion:
        stops = (place for place, token in enumerate(written) if token in self._stop_ids)
        length = next(stops, len(written))
        text = self._tokenizer.decode(
            written[:length], skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return Completion(
            prompt.key,
            text.strip(),
            tokens_in=len(prompt.token_ids),
            tokens_out=min(length + 1, len(written)),  # with the stop token
            cut=length == self._sampling.max_tokens,
        )

    def _load_weights(self) -> None:
        if self._model is not None:
            return
        dtype = _dtype_on(self._torch, self._device)
        model = _load_model(self._transformers, self._source, self._config, dtype)
        try:
            model = model.to(self._device).eval()
        except self._torch.OutOfMemoryError:
            raise InputError(
                f"model {self.model!r}: its weights do not fit into the memory of {self._device}"
            ) from None
        self._stop_ids = _stop_ids(model, self._tokenizer)
        # Replaces the model's own, whose temperature, penalties or length limit would otherwise apply.
        model.generation_config = self._transformers.GenerationConfig(
            do_sample=False,
            max_new_tokens=self._sampling.max_tokens,
            eos_token_id=sorted(self._stop_ids) or None,
            pad_token_id=self._tokenizer.pad_token_id,
        )
        self._model = model


class TokenDraws:
    """Draw the next token of each row of a batch: a logits processor that leaves one possible token.

    Step t of a row inverts the distribution function of its top-p tokens, most likely first, at the t-th uniform
    number of the row's stream.
    """

    def __init__(
        self, torch: Any, sampling: Sampling, keys: list[str], width: int, device: Any
    ) -> None:
        """Make the streams.

        Args:
            torch: the module.
            sampling: its seed and a request's key seed a row's stream; its temperature must be positive.
            keys: the request of each row.
            width: tokens in a row before the first draw, padding included.
            device: where the logits are.
        """
        self._torch = torch
        self._sampling = sampling
        self._width = width
        uniforms = [_uniforms(sampling, key) for key in keys]
        self._uniforms = torch.tensor(np.stack(uniforms), dtype=torch.float32, device=device)

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        """Draw.

        Args:
            input_ids: int64[rows, tokens so far].
            scores: float32[rows, vocabulary], logits.

        Returns:
            float32[rows, vocabulary]: 0 for the token that was drawn, minus infinity for all others.
        """
        torch = self._torch
        probability = torch.softmax(scores / self._sampling.temperature, dim=-1)
        probability, order = torch.sort(probability, dim=-1, descending=True, stable=True)
        cumulative = probability.cumsum(-1)
        # The most likely token stays, however small top_p is.
        kept = (cumulative - probability < self._sampling.top_p).sum(-1, keepdim=True).clamp(min=1)
        uniform = self._uniforms[:, input_ids.shape[1] - self._width].unsqueeze(-1)
        place = torch.searchsorted(
            cumulative, uniform * cumulative.gather(-1, kept - 1), right=True
        )
        token = order.gather(-1, torch.minimum(place, kept - 1))
        return torch.full_like(scores, -torch.inf).scatter(-1, token, 0.0)


def context_length(config: Any) -> int | None:
    """How many tokens a model takes, prompt and reply together; None if its configuration does not say."""
    text_config = config.get_text_config(decoder=True)
    for name in _CONTEXT_NAMES:
        value = getattr(text_config, name, None)
        if isinstance(value, int) and value > 0:
            return value
    return None


def _uniforms(sampling: Sampling, key: str) -> np.ndarray:
    """The stream of one request: float64[max_tokens] in [0, 1)."""
    digest = hashlib.sha256(f"{sampling.seed}\0{key}".encode()).digest()
    return np.random.default_rng(int.from_bytes(digest)).random(sampling.max_tokens)


def _find_device(torch: Any, device: str | None) -> Any:
    try:
        chosen = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        torch.empty(0, device=chosen)
    except Exception as error:  # each missing backend raises its own kind of exception
        raise InputError(f"device {device!r} cannot be used ({first_line(error)})") from None
    return chosen


def _dtype_on(torch: Any, device: Any) -> Any:
    if device.type != "cuda":
        return torch.float32
    with torch.cuda.device(device):
        has_bfloat16 = torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.bfloat16 if has_bfloat16 else torch.float16


def _load(auto_class: Any, source: ModelSource, run_code: bool, **arguments: Any) -> Any:
    try:
        return auto_class.from_pretrained(
            source.where, trust_remote_code=run_code, **source.arguments(), **arguments
        )
    except (
        Exception
    ) as error:  # damaged files, missing packages and the model's code fail in many ways
        if not run_code and "trust_remote_code" in str(error):
            raise code_refused(source) from None
        raise source.unusable(error) from None


def _load_tokenizer(transformers: Any, source: ModelSource) -> Any:
    tokenizer = _load(transformers.AutoTokenizer, source, source.trusts_code)
    if tokenizer.pad_token_id is None:
        # Padding is masked out, so any token will do.
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.convert_ids_to_tokens(0)
    return tokenizer


def _special_texts(tokenizer: Any) -> list[str]:
    """The texts of control tokens, longest first."""
    tokens = tokenizer.added_tokens_decoder.values()
    texts = {token.content for token in tokens if token.special}
    texts |= set(tokenizer.all_special_tokens)
    return sorted(
        (text for text in texts if len(text.strip()) > 1), key=lambda text: (-len(text), text)
    )


def _load_model(transformers: Any, source: ModelSource, config: Any, dtype: Any) -> Any:
    auto_class = transformers.AutoModelForCausalLM
    if source.runs_code and "AutoModelForCausalLM" not in getattr(config, "auto_map", {}):
        auto_class = transformers.AutoModel  # as ChatGLM-6B needs it
    model, report = _load(
        auto_class, source, source.runs_code, config=config, dtype=dtype, output_loading_info=True
    )
    if missing := sorted(report["missing_keys"]):
        # transformers would fill them with random numbers.
        raise source.unusable(
            f"its weight files lack {len(missing):,} tensors of {type(model).__name__}, such as {missing[0]}"
        )
    if not hasattr(model, "generate"):
        raise source.unusable(
            f"{type(model).__name__} cannot write text under transformers {transformers.__version__}"
        )
    return model


def _stop_ids(model: Any, tokenizer: Any) -> frozenset[int]:
    """Every token that ends a reply, from the model's configurations and its tokenizer."""
    named = [
        model.generation_config.eos_token_id,
        # A multimodal model may name it only for its text part.
        getattr(model.config, "eos_token_id", None),
        getattr(model.config.get_text_config(decoder=True), "eos_token_id", None),
        tokenizer.eos_token_id,
    ]
    stops: set[int] = set()
    for ids in named:
        stops.update(ids if isinstance(ids, list | tuple) else [] if ids is None else [ids])
    return frozenset(stops)
