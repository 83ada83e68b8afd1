"""LoRA for every objective: adapters on the matrices it asks to train, merged into them at the end.

The adapters' `B` starts at zero, so "the original values of the trainable tensors" are an adapter that does
nothing: the reference view is the base model without a second mechanism.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn

from ..errors import PlanError, PrerequisiteError
from ..specs import Lora


class Adapters:
    """LoRA layers inside a model, in place. `names`: the parameters to train instead of the matrices.

    Raises `PlanError` for a tensor that is not the weight of a linear layer, `PrerequisiteError` without peft.
    """

    def __init__(self, model: nn.Module, weights: Iterable[str], options: Lora, seed: int) -> None:
        self._model = model
        self._paths = [_module_path(model, name) for name in weights]
        peft = _peft()
        self._config = peft.LoraConfig(
            task_type="CAUSAL_LM",
            r=options.rank,
            lora_alpha=options.alpha,
            lora_dropout=0.0,
            target_modules=list(self._paths),
            fan_in_fan_out=any(type(model.get_submodule(p)).__name__ == "Conv1D" for p in self._paths),
        )
        with torch.random.fork_rng(devices=[]):
            peft.inject_adapter_in_model(self._config, model)
        self._draw(seed)
        inside = tuple(f"{path}.lora_" for path in self._paths)
        self.names = tuple(name for name, _ in model.named_parameters() if name.startswith(inside))

    def save(self, folder: Path) -> None:
        """Write the adapters in peft's format: `PeftModel.from_pretrained(model before the stage, folder)` reads it.

        Raises `PrerequisiteError` when the disk does not take it.
        """
        parameters = dict(self._model.named_parameters())
        tensors = {
            f"base_model.model.{name.replace('.default.', '.')}": parameters[name].detach().cpu().contiguous()
            for name in self.names
        }
        try:
            self._config.save_pretrained(folder)
            save_file(tensors, folder / "adapter_model.safetensors", {"format": "pt"})
        except (OSError, SafetensorError) as error:
            message, hint = f"cannot write the adapter: {error}", "free some disk space and run again"
            raise PrerequisiteError(message, code="disk", where=str(folder), hint=hint) from error

    def merge(self) -> dict[str, Tensor]:
        """Add the adapters to their matrices and take them out; {weight name: value before}."""
        before = {}
        for path in self._paths:
            layer: Any = self._model.get_submodule(path)
            before[f"{path}.weight"] = layer.get_base_layer().weight.detach().clone()
            layer.merge()
        self.remove()
        return before

    def remove(self) -> None:
        """Take the adapters out as they are; the matrices keep their present values."""
        for path in self._paths:
            layer: Any = self._model.get_submodule(path)
            parent, _, child = path.rpartition(".")
            setattr(self._model.get_submodule(parent), child, layer.get_base_layer())
        # What peft notes on the model; left there, it warns of the next stage's adapters.
        vars(self._model).pop("peft_config", None)

    def _draw(self, seed: int) -> None:
        """A uniform within 1/sqrt(inputs), B zero (peft's own start, from a generator of ours)."""
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for path in self._paths:
                layer: Any = self._model.get_submodule(path)
                a, b = (layer.get_parameter(f"lora_{x}.default.weight") for x in "AB")
                bound = 1.0 / math.sqrt(a.shape[1])
                a.copy_(torch.empty(a.shape).uniform_(-bound, bound, generator=generator))
                b.zero_()


def _module_path(model: nn.Module, name: str) -> str:
    path, _, leaf = name.rpartition(".")
    module = model.get_submodule(path)
    if leaf != "weight" or not (isinstance(module, nn.Linear) or type(module).__name__ == "Conv1D"):
        raise PlanError(
            f"{name} is not the weight of a linear layer: it cannot have a LoRA adapter",
            code="lora-tensor",
            hint="leave `lora` out of the stage, or choose other tensors",
        )
    return path


def _peft() -> Any:
    try:
        import peft
    except ImportError as error:
        raise PrerequisiteError(
            "LoRA needs the package peft, which is not installed",
            code="extra",
            hint='pip install "unlearn-suite[lora]"',
        ) from error
    return peft
