"""LAT on RMU: RMU against a latent adversary that tries to bring the forget text back.

    delta* = argmin_{|delta_t| <= eps} NLL(x_f | h_{l-1} + delta),   then RMU steps on h_l(x_f; h_{l-1} + delta*)

The residual stream before block l is perturbed (for pre-norm models that is the same as perturbing the MLP's output of
block l-1). AdamW ascent of `attack_steps` steps, projected token by token, then `updates` RMU steps on the same batch.
Public code (aengusl/latent-adversarial-training) also perturbs retain text with an "away" loss of equal weight and
draws a control vector per batch; here only forget text is attacked and u is fixed. It steers block 8 of 32 and attacks
the MLP of block 7, with lr 5e-5 for 200 batches; here `block` none is RMU's (0.22 of the depth: 7 of 32, block 6
attacked).
"""

from __future__ import annotations

from pydantic import Field

from .common import method
from .rmu import RmuConfig


class LatRmuConfig(RmuConfig):
    """Options of `lat-rmu`."""

    epsilon: float = Field(2.0, gt=0)
    """largest L2 norm of each token's perturbation"""
    attack_steps: int = Field(16, ge=1)
    """AdamW steps of the adversary"""
    attack_lr: float = Field(5e-2, gt=0)
    """the adversary's learning rate"""
    updates: int = Field(4, ge=1)
    """RMU updates after each attack, on its batch"""


SPEC = method(
    "lat-rmu",
    "RMU on forget activations that a latent adversary has perturbed towards the forget text",
    "lat_rmu:LatRmu",
    LatRmuConfig,
    "Sheshadri et al. 2024, arXiv:2407.15549",
    "variant",
    train={"steps": 25, "lr": 3e-4, "batch": 8, "length": 64},
)
