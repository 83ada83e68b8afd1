"""TAR: after a random-mapping start, keep next-token entropy on forget text high under simulated fine-tuning.

    g = grad [NLL(x_r) + mean_{l,t} |h_l - h_l^base|] + sum_k 4 exp(0.0625 (k - K)) grad_{theta_k} (-H(x_TR))

theta_k: weights after k AdamW steps of an attacker (k = every fourth), first order. The attacker trains on forget
text, or (share `switch`) on retain text until a Beta(6, 3) share of its steps and then on forget text. Forget units
are halved between attacker and x_TR; H is the mean entropy over prompts and responses. Public code:
rishub-tamirisa/tamper-resistance, 750 outer steps of 8 with lr 2e-5 and 64 inner steps on 8 GPUs, other attack
corpora, max-entropy loss (its DPO option and its loss bound are not here). Its means of H and of |h_l - h_l^base| run
over padding and the first token too, and its l over the embeddings and the last state after the final norm; here over
real tokens but the first, and the outputs of all blocks.
"""

from __future__ import annotations

from pydantic import Field

from .common import Trains, method


class TarConfig(Trains):
    """Options of `tar`."""

    mapping: float = Field(0.25, ge=0, le=1)
    """share of the steps that are random mapping, before the tamper-resistance loop"""
    inner_steps: int = Field(64, ge=1)
    """K: steps of the simulated attacker"""
    inner_lr: tuple[float, ...] = Field((2e-6, 2e-5, 4e-5), min_length=1)
    """the attacker's AdamW rates; one is drawn for each attack"""
    inner_batch: int = Field(4, ge=1)
    """examples per step of the attacker"""
    readout_every: int = Field(4, ge=1)
    """inner steps between two tamper-resistance gradients"""
    tamper_weight: float = Field(4.0, ge=0)
    """weight of the tamper-resistance gradient after the last inner step"""
    decay: float = Field(0.0625, ge=0)
    """lambda: how fast the weight falls towards earlier inner steps, per step"""
    switch: float = Field(1 / 3, ge=0, le=1)
    """share of the attacks that begin with retain text"""


SPEC = method(
    "tar",
    "Random mapping, then high forget entropy under simulated fine-tuning attacks",
    "tar:Tar",
    TarConfig,
    "Tamirisa et al. 2024, arXiv:2408.00761",
    "variant",
    train={"steps": 40, "lr": 2e-5, "batch": 8, "length": 64},
)
