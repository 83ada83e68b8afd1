"""Options that many baselines share. Light: no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from unlearn_suite import Config, ObjectiveSpec

Fidelity = Literal["faithful", "variant", "simplified"]


class Trains(Config):
    """Which tensors are trained."""

    tensors: str = "all"
    """`all`; `linear` (attention and MLP matrices: what LoRA can be put on), `mlp` (MLP matrices), `mlp_out`,
    `attn_out`; or a regular expression that names tensors in full"""
    blocks: tuple[int, int] | None = None
    """first and last block, 0-based, whose tensors are trained (none: all, embeddings and final norm too)"""


class Retains(Trains):
    """A forget loss and a retain loss: gamma L_forget + alpha L_retain."""

    gamma: float = Field(1.0, ge=0)
    """weight of the forget loss"""
    alpha: float = Field(1.0, ge=0)
    """weight of the retain loss (0: retain text is not read)"""
    retain: Literal["nll", "kl"] = "nll"
    """`nll`: mean next-token loss on retain responses; `kl`: mean KL(base || model) there, in nats"""
    legacy: bool = False
    """compute as OpenUnlearning's code does (d3d7cf9): `kl` is then averaged over prompts and padding too"""


def method(
    name: str, summary: str, target: str, config: type[Config], paper: str, fidelity: Fidelity, **more: Any
) -> ObjectiveSpec:
    """A spec whose `target` is "module:Class" below this plugin's `methods`; presets/NAME.yaml is found by itself."""
    presets = f"presets/{name}.yaml"
    if (Path(__file__).parents[1] / presets).is_file():
        more = {"presets": f"unlearn_suite_baselines:{presets}", **more}
    return ObjectiveSpec(
        name=name,
        summary=summary,
        load=f"unlearn_suite_baselines.methods.{target}",
        config=config,
        paper=paper,
        fidelity=fidelity,
        **more,
    )
