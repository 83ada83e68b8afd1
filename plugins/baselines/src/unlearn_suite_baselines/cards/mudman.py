"""MUDMAN: unlearn with the gradients of a relearning adversary, masked where they would disrupt, normalised.

    a <- m a + (1 - m) grad NLL(theta; x_r),   theta <- theta - r_retain a
    psi <- psi - r_adv grad NLL(psi; x_f)      (psi <- theta at every fork)
    g = grad L_un(psi; x_f),   theta <- theta - r_unlearn (|g_0| / |g|) g [sign(a) = sign(g)]

|g_0|: norm of the first batch's L_un gradient. Plain SGD in the weights' own precision; the stage's `lr`, `clip`
and optimizer are not used. Public code (filyp/MUDMAN) reuses the adversary's graph after its weights were changed
in place, which mixes old activations with new weights; here the forward pass is run again. Its losses run over all
real tokens, prompts too (the entropy also over what follows the last token); here over responses. Rates were searched
per model: r_adv 1e-6 to 1e-4 for Llama-3.2-1B, 3e-4 to 1e-1 for SmolLM-135M.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from .common import Trains, method


class MudmanConfig(Trains):
    """Options of `mudman`."""

    tensors: str = "mlp"
    """`mlp`, `linear`, `all`, `mlp_out`, `attn_out` or a regular expression (SmolLM-135M runs: gate_proj alone)"""
    unlearn: Literal["neg_entropy", "neg_cross_entropy", "correct_logit"] = "neg_entropy"
    """L_un: minus the entropy; minus the next-token loss; mean relu(true logit - mean logit)"""
    unlearning_rate: float = Field(1e-3, gt=0)
    """r_unlearn: displacement per unit of the first gradient's norm"""
    retaining_rate: float = Field(1e-3, ge=0)
    """r_retain: SGD rate on retain text"""
    adversary_rate: float = Field(1e-2, ge=0)
    """r_adv: SGD rate of the adversary on forget text"""
    fork_every: int = Field(32, ge=1)
    """steps after which the adversary starts again from the model"""
    momentum: float = Field(0.8, ge=0, lt=1)
    """m: decay of the retain gradient's average"""


SPEC = method(
    "mudman",
    "Masked, normalised unlearning gradients of an adversary that relearns meanwhile",
    "mudman:Mudman",
    MudmanConfig,
    "Sondej et al. 2025, arXiv:2506.12484",
    "faithful",
    train={"steps": 60, "lr": 1e-3, "batch": 8, "length": 64},
)
