"""A model without its weights: built from its configuration on the meta device, with its tokenizer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..errors import PrerequisiteError
from ..plugins.registry import WheelAsset
from .refs import Ref, source_of


def outline(ref: Ref) -> tuple[Any, Any]:
    """(the causal LM on the meta device, its tokenizer). No weights are read or downloaded.

    Of a hub model that is not here only configuration and tokenizer are fetched. Raises `PrerequisiteError` when
    they cannot be had.
    """
    folder = _folder(ref)
    trust = bool(ref.get("trust_remote_code", False))
    import torch

    from .load import explaining, read_tokenizer

    with explaining(folder, torch.device("cpu"), trust):
        from transformers import AutoConfig

        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=trust)
        return on_meta(config, trust), read_tokenizer(folder, trust)


def on_meta(config: Any, trust: bool = False) -> Any:
    """The model of a configuration, on the meta device, with the attention that `load` chooses."""
    import torch
    from transformers import AutoModelForCausalLM

    from .load import with_attention

    with torch.device("meta"):
        model = with_attention(
            config,
            lambda kind: AutoModelForCausalLM.from_config(config, attn_implementation=kind, trust_remote_code=trust),
        )
    return model.eval()


def _folder(ref: Ref) -> Path:
    source = source_of(ref)
    if isinstance(source, Path):
        return source
    if isinstance(source, WheelAsset):
        from .assets import asset_folder

        folder = asset_folder(str(ref["asset"]), source)
        if (folder / "config.json").is_file():
            return folder
        message = f"the model asset {ref['asset']!r} is not prepared yet, so its configuration is not known"
        raise PrerequisiteError(message, code="not-here", hint=f"unlearn-suite models fetch {ref['asset']}")
    from .hub import small_files

    return small_files(source.hf, source.revision)
