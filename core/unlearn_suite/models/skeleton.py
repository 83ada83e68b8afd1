"""A model built from its configuration alone: parameters on the meta device, buffers computed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from .load import with_attention


def skeleton(folder: Path, dtype: torch.dtype, device: torch.device) -> Any | None:
    """The causal LM of a folder in eval mode, with its buffers (rotary tables, scales) on `device`.

    None for a model that transformers does not load tensor by tensor in one dtype: quantised ones, and those
    that keep some modules in float32.
    """
    from accelerate import init_empty_weights
    from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig

    config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    if getattr(config, "quantization_config", None) is not None:
        return None
    given: dict[str, Any] = {"dtype": dtype, "trust_remote_code": False}  # not told, transformers asks the terminal
    with init_empty_weights(include_buffers=False):
        model = with_attention(
            config, lambda kind: AutoModelForCausalLM.from_config(config, attn_implementation=kind, **given)
        )
    if dtype != torch.float32 and getattr(model, "_keep_in_fp32_modules_strict", None):
        return None
    model.tie_weights()  # the empty parameters were made one by one
    for module in model.modules():
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = buffer.to(device)
    if model.can_generate():
        has_file = (folder / "generation_config.json").is_file()
        source = {} if has_file else {"config_file_name": "config.json", "_from_model_config": True}
        model.generation_config = GenerationConfig.from_pretrained(folder, local_files_only=True, **source)
    return model.eval()
