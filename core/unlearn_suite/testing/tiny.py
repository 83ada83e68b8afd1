"""Random transformers models of a few thousand parameters, and a tokenizer for them, made in memory.

They are for tests of exactness and of plumbing: every tensor is drawn away from its neutral value, so a
norm, a bias or a window that is left out by mistake changes the numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

CHARACTERS = "\n" + "".join(map(chr, range(32, 127)))
SPECIALS = ("<pad>", "<bos>", "<eos>", "<unk>")
VOCAB_SIZE = len(SPECIALS) + len(CHARACTERS)

_SIZES = {"num_hidden_layers": 4, "hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 4}
_GROUPED = {"num_key_value_heads": 2}
_WINDOW = {"sliding_window": 8, "layer_types": ["sliding_attention", "full_attention"] * 2, "head_dim": 8}

ARCHITECTURES: Mapping[str, Mapping[str, Any]] = {
    "llama": {**_SIZES, **_GROUPED},
    "qwen2": {**_SIZES, **_GROUPED},
    "qwen3": {**_SIZES, **_GROUPED, "head_dim": 8},
    "gemma2": {**_SIZES, **_GROUPED, **_WINDOW, "query_pre_attn_scalar": 8},
    "gemma3": {**_SIZES, **_GROUPED, **_WINDOW, "query_pre_attn_scalar": 8},
    "gpt2": {"n_layer": 4, "n_embd": 32, "n_head": 4, "n_inner": 48, "n_positions": 256},
    "gpt_neox": {**_SIZES},
    "olmo2": {**_SIZES, **_GROUPED},
    "mistral": {**_SIZES, **_GROUPED, "sliding_window": 8},
    "phi": {**_SIZES},
}
_MODEL_TYPES = {"gemma3": "gemma3_text"}


def tiny_model(arch: str = "llama", seed: int = 0, **overrides: Any) -> Any:
    """A random float32 causal LM in eval mode: 4 blocks, width 32, the vocabulary of `tiny_tokenizer`.

    `arch` is a key of `ARCHITECTURES`; `overrides` go to the configuration. Equal arguments give equal
    weights. Dropout is 0. Raises KeyError for an unknown `arch`.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    settings = {
        "vocab_size": VOCAB_SIZE,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
        **ARCHITECTURES[arch],
        **overrides,
    }
    if "max_position_embeddings" not in settings and arch != "gpt2":
        settings["max_position_embeddings"] = 256
    config = AutoConfig.for_model(_MODEL_TYPES.get(arch, arch), **settings)
    for name in ("attention_dropout", "hidden_dropout", "resid_pdrop", "embd_pdrop", "attn_pdrop"):
        if hasattr(config, name):
            setattr(config, name, 0.0)
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager" if arch == "gemma2" else "sdpa")
    randomise(model, seed)
    return model.float().eval()


def randomise(model: Any, seed: int) -> None:
    """Redraw every parameter in place: matrices N(0, 0.2), vectors (norms, biases) neutral + N(0, 0.2)."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for _, parameter in sorted(model.named_parameters()):
            noise = 0.2 * torch.randn(parameter.shape, generator=generator)
            if parameter.ndim == 1:
                parameter.add_(noise)
            else:
                parameter.copy_(noise)


def tiny_tokenizer(add_bos: bool = False) -> Any:
    """A `PreTrainedTokenizerFast`, one token per character of printable ASCII and newline.

    Texts of these characters are decoded back exactly. Ids: pad 0, bos 1, eos 2, unknown 3. With
    `add_bos` a text that is encoded with special tokens begins with bos, as on Llama and Gemma.
    """
    from tokenizers import Tokenizer, decoders, models, processors
    from transformers import PreTrainedTokenizerFast

    vocab = {token: index for index, token in enumerate((*SPECIALS, *CHARACTERS))}
    inner = Tokenizer(models.BPE(vocab=vocab, merges=[], unk_token="<unk>"))
    inner.decoder = decoders.Fuse()
    if add_bos:
        inner.post_processor = processors.TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=inner,
        pad_token="<pad>",
        bos_token="<bos>",
        eos_token="<eos>",
        unk_token="<unk>",
        padding_side="right",
        clean_up_tokenization_spaces=False,
    )


def save_tiny(folder: Path, arch: str = "llama", seed: int = 0, **overrides: Any) -> Path:
    """Write a tiny model and its tokenizer as an ordinary Hugging Face folder, and return the folder.

    On "qwen2" `AutoTokenizer` (transformers 5) builds its own word splitting and loses the spaces; every
    other architecture gives the same tokenizer back.
    """
    tiny_model(arch, seed, **overrides).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder
