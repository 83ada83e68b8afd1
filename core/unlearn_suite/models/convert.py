"""A GGUF file -> an ordinary Hugging Face folder in float32 safetensors."""

from __future__ import annotations

from contextlib import redirect_stderr
from io import StringIO
from pathlib import Path

from .load import check_complete
from .quiet import quiet_transformers


def convert_gguf(gguf: Path, folder: Path) -> None:
    """Write model, tokenizer (with its chat template) and generation settings into `folder`.

    Quantised tensors are expanded exactly to the float32 values that they stand for.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    given = {"gguf_file": gguf.name, "local_files_only": True}
    # Some of its progress bars ignore the switch that quiet_transformers turns.
    with quiet_transformers(), redirect_stderr(StringIO()):
        quantised, info = AutoModelForCausalLM.from_pretrained(
            gguf.parent, dtype=torch.float32, output_loading_info=True, **given
        )
        check_complete(gguf, info)
        config = quantised.config
        if hasattr(config, "quantization_config"):
            del config.quantization_config
        # A model that came from a GGUF refuses to be saved, so its tensors move into a fresh one.
        with torch.device("meta"):
            plain = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        plain.load_state_dict(quantised.state_dict(), assign=True)
        plain.tie_weights()
        plain.save_pretrained(folder)
        AutoTokenizer.from_pretrained(gguf.parent, **given).save_pretrained(folder)
