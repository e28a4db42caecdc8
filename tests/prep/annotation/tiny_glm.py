"""A GLM of two layers with random weights and a tokenizer of a few hundred words, made in a second."""

import json
from pathlib import Path

import pytest

CONTEXT = 96
TEXT = [
    "a slow film about a long journey, with a stylish score and thin characters",
    "Pros: fast-paced, funny; Cons: predictable, shallow. Evidence: reviewers say so.",
    "Which three reasons would make a viewer like the movie, and which dislike it?",
]
CHAT_TEMPLATE = (
    "[gMASK]{% for message in messages %}<|{{ message['role'] }}|>\n{{ message['content'] }}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
END = "<|endoftext|>"
SPECIAL = (END, "[gMASK]", "<|user|>", "<|assistant|>")

REMOTE_CODE = """
import os
import signal
from pathlib import Path
from transformers import GlmConfig, GlmForCausalLM

Path(__file__).parent.joinpath({marker!r}).touch()

class OwnConfig(GlmConfig):
    model_type = "own_glm"

class OwnModel(GlmForCausalLM):
    config_class = OwnConfig
"""
DIES_ONCE = """
    def generate(self, *arguments, **options):
        died = Path({marker!r} + "-died")
        if not died.exists():
            died.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().generate(*arguments, **options)
"""
DIES_OF_LONG_PROMPTS = """
    def generate(self, input_ids, **options):
        if input_ids.shape[1] > 30:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().generate(input_ids=input_ids, **options)
"""


def write_tokenizer(folder: Path, chat: bool, padded: bool = False) -> None:
    tokenizers = pytest.importorskip("tokenizers")
    transformers = pytest.importorskip("transformers")
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=list(SPECIAL),
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXT, trainer)
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=END)
    if padded:
        fast.pad_token = "[gMASK]"
    if chat:
        fast.chat_template = CHAT_TEMPLATE
    fast.save_pretrained(folder)


def write_model(folder: Path, chat: bool = True, seed: int = 0, context: int = CONTEXT) -> Path:
    """Save a model and its tokenizer, with generation defaults that must not show in replies."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    config = transformers.GlmConfig(
        vocab_size=320,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        max_position_embeddings=context,
        pad_token_id=None,
        eos_token_id=None,
        # Wide enough for replies that differ between prompts.
        initializer_range=0.6,
    )
    torch.manual_seed(seed)
    model = transformers.GlmForCausalLM(config).float()
    model.generation_config = transformers.GenerationConfig(
        do_sample=True, temperature=0.2, top_k=3, repetition_penalty=1.7, max_length=20
    )
    model.save_pretrained(folder)
    write_tokenizer(folder, chat)
    return folder


def write_remote_code_model(folder: Path, methods: str = "") -> tuple[Path, Path]:
    """Save the model with a class of its own; the second path appears when its code runs."""
    write_model(folder)
    marker = folder.parent / f"{folder.name}-code-ran"
    code = (REMOTE_CODE + methods).format(marker=str(marker))
    (folder / "own_glm.py").write_text(code, "utf-8")
    path = folder / "config.json"
    config = json.loads(path.read_text("utf-8"))
    config["model_type"] = "own_glm"
    config["architectures"] = ["OwnModel"]
    config["auto_map"] = {
        "AutoConfig": "own_glm.OwnConfig",
        "AutoModelForCausalLM": "own_glm.OwnModel",
    }
    path.write_text(json.dumps(config), "utf-8")
    return folder, marker
