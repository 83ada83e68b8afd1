"""RepSelect: one forget gradient of a relearned model, its top components scaled down, applied again and again.

    G = grad -NLL(psi; x_f),   psi: the model after `inner_steps` attacking steps on forget text
    G' = both sides of G with component k divided by s_k / s_min, for the top k,   theta <- theta - r |theta| G' / |G'|

s: singular values of each matrix's G. Stops for good, one step back, when KL(base || model) on retain text passes
`budget`. Public code (filyp/open-unlearning, RepSelectSimple): a LoRA adversary with SGD 0.01 over one epoch, G
summed over the whole forget set, 512 components by a randomised SVD, SGD 0.05 on raw G'. Here: `inner_steps` of the
adversary, G of `texts` examples, an exact SVD, and a step relative to the weights; the stage's `lr` and optimizer
are not used.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from .common import Trains, method


class RepSelectConfig(Trains):
    """Options of `repselect`."""

    tensors: str = "mlp"
    """`mlp`, `linear`, `mlp_out`, `attn_out` or a regular expression; two-dimensional weights"""
    components: float = Field(0.125, ge=0, le=1)
    """share of the singular components that is scaled down (512 of 4096)"""
    texts: int = Field(32, ge=1)
    """forget examples of the gradient"""
    inner_steps: int = Field(8, ge=1)
    """steps of the adversary"""
    inner_lr: float = Field(0.01, gt=0)
    """its SGD rate"""
    adversary: Literal["lora", "same"] = "lora"
    """what it trains: fresh adapters of rank 8, or the trained tensors themselves"""
    rate: float = Field(5e-4, gt=0)
    """r: displacement per step, relative to the weights' norm"""
    budget: float = Field(0.01, gt=0)
    """largest mean KL(base || model) on retain text, nats per token"""


SPEC = method(
    "repselect",
    "Apply one collapsed forget gradient of a relearned model until a disruption budget is spent",
    "repselect:RepSelect",
    RepSelectConfig,
    "Sondej et al. 2026, arXiv:2606.17168",
    "variant",
    train={"steps": 40, "lr": 1e-3, "batch": 8, "length": 64},
)
