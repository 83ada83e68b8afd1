"""NPO + SAM and the other smoothness variants: an NPO minimum that small changes of the weights do not leave.

    sam  g = grad L_f(theta + rho g_f / |g_f|)      rs  g = mean of `draws` grad L_f(theta + rho z), z ~ N(0, I)
    gp   g = grad [L_f + rho |grad L_f|]            wa  g = grad L_f; the weights are averaged over late steps
    cr   g = grad [L_f + rho |grad L_f(theta + eps g_f / |g_f|) - grad L_f(theta)|^2]
    step on  gamma g + alpha grad L_retain(theta)

gp's and cr's second terms are made of differences of gradients (Hessian products along g_f, and along the difference).
Weights must be float32 for sam, gp and cr: bfloat16 rounds perturbations of such lengths away (rs may have it where its
rho moves most weights). Public code (OPTML-Group/Unlearn-Smooth) trains bfloat16 weights all the same. It builds both
penalties from detached numbers, so that they have no gradient, does not register cr, and takes token means in NPO:
`legacy` does both (the means per answer, not per batch), in any precision for gp and cr. Its cr goes backward through
L_f twice, which doubles that gradient, and penalises |.| instead of |.|^2; neither is here. Of an accumulated batch its
sam keeps the last piece's gradient alone, and its rs steps the optimizer for each piece, unclipped; here a batch is one
step, clipped. Zephyr runs, 125 steps: sam lr 5e-6, beta .015, alpha 2.25, rho .01; rs 1e-5, .0125, 2, 1e-4; gp 7.5e-6,
.04, 1, 10; cr 8.5e-6, .035, 1, 10; wa 5.5e-6, .05, 2, from step 100 every 5.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from .common import method
from .npo import NpoConfig


class NpoSamConfig(NpoConfig):
    """Options of `npo-sam`."""

    smoothness: Literal["sam", "rs", "gp", "cr", "wa"] = "sam"
    """sharpness-aware minimisation, random smoothing, gradient penalty, curvature penalty, weight averaging"""
    rho: float = Field(0.01, gt=0)
    """length of the perturbation (sam), its standard deviation (rs), weight of the penalty (gp, cr)"""
    draws: int = Field(3, ge=1)
    """perturbations per step (rs)"""
    difference: float = Field(1e-2, gt=0)
    """length of the steps of differences (gp, cr)"""
    average_from: float = Field(0.8, ge=0, lt=1)
    """share of the steps after which weights are averaged (wa)"""
    average_every: int = Field(5, ge=1)
    """steps between two averaged weights (wa)"""


SPEC = method(
    "npo-sam",
    "NPO with sharpness-aware minimisation, random smoothing, a gradient or curvature penalty, or averaged weights",
    "npo_sam:NpoSam",
    NpoSamConfig,
    "Fan et al. 2025, arXiv:2502.05374",
    "faithful",
    train={"steps": 60, "lr": 1e-5, "batch": 8, "length": 64},
)
