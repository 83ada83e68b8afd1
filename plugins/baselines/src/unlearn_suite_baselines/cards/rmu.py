"""RMU: push forget activations of one block to a fixed random vector, hold retain activations.

    L = mean_t |h_l(x_f) - c u_k|^2 / D + alpha mean_t |h_l(x_r) - h_l^base(x_r)|^2 / D

u_k: a unit vector per topic k (the example's group), drawn once. Defaults are those of the released Zephyr run (c 6.5,
alpha 1200, block 7 of 32, the MLP output matrices of blocks 5 to 7). Public code (centerforaisafety/wmdp) averages
over padding too (`legacy`; there padding is on the left, here on the right, so that its activations differ), draws u
from the positive orthant (`rand_pos`), picks tensors by position, takes one topic per batch (here topics may mix in a
batch, each with its own u), and trains in bf16 with lr 5e-5 for 150 batches of 4. OpenUnlearning (d3d7cf9) takes c 2,
alpha 1 and label tokens alone; it divides sums [B] by counts [B, 1], which gives [B, B]: its mean is that of the texts'
sums times that of one over their lengths, the mean of per-text means only where all are equally long
(`legacy: open-unlearning`). On SmolLM2-135M the mean norm at block 7 is 122, so that c 6.5 shrinks activations;
`adaptive-rmu` measures it. `rna_noise` adds Gaussian noise to the retain target (RNA, arXiv:2501.19202; its scale at
this model is not known: an option, off).
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from unlearn_suite import Config

from .common import method


class SteeringConfig(Config):
    """Options that RMU and its kin share."""

    block: int | None = Field(None, ge=0)
    """block l whose output is steered, 0-based (none: 0.22 of the depth, rounded; 7 of 32)"""
    width: int = Field(3, ge=1)
    """how many blocks are trained (their MLP output matrices), ending at `block`"""
    alpha: float = Field(1200.0, ge=0)
    """weight of the retain loss"""
    direction: Literal["rand_pos", "gauss"] = "rand_pos"
    """u uniform on the positive orthant, as in the public code (any two are at cosine 0.75), or Gaussian"""
    rna_noise: float = Field(0.0, ge=0)
    """RNA: standard deviation of the Gaussian noise added to each coordinate of the retain target"""
    legacy: bool | Literal["open-unlearning"] = False
    """true: average over all positions, padding and the first token too, as the public code does; `open-unlearning`:
    mean of the texts' sums over response tokens, times the mean of one over their lengths, as that code does"""


class RmuConfig(SteeringConfig):
    """Options of `rmu`."""

    coefficient: float = Field(6.5, gt=0)
    """c: norm of the target vector"""


SPEC = method(
    "rmu",
    "Push forget activations of one block to a fixed random vector, hold retain activations",
    "rmu:Rmu",
    RmuConfig,
    "Li et al. 2024 (WMDP), arXiv:2403.03218",
    "faithful",
    train={"steps": 80, "lr": 3e-4, "batch": 8, "length": 64},
)
