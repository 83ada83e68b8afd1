"""Who's Harry Potter: fine-tune on the tokens a reinforced model does not push up.

    z_generic = z_base - a relu(z_reinforced - z_base),   L = CE(argmax z_generic, p(. | x_f))

A first share of the steps trains a reinforced model on forget text; labels are then made once, the weights go back to
the base model's, and the rest of the steps trains on the labels. Simplified: the paper also replaces anchor terms from
a dictionary made with GPT-4, which is left out. Its a is not known to us: 1 is MUSE's, whose version combines the same
logits at inference and trains nothing.
"""

from __future__ import annotations

from pydantic import Field

from .common import Trains, method


class WhpConfig(Trains):
    """Options of `whp`."""

    scale: float = Field(1.0, ge=0)
    """a: how strongly what the reinforced model pushes up is pushed down"""
    reinforce: float = Field(0.5, gt=0, lt=1)
    """share of the steps that trains the reinforced model"""


SPEC = method(
    "whp",
    "Train on generic labels: the base model's choice without what a reinforced model pushes up",
    "whp:Whp",
    WhpConfig,
    "Eldan and Russinovich 2023, arXiv:2310.02238",
    "simplified",
    roles=("forget",),
    train={"steps": 60, "lr": 1e-5, "batch": 8, "length": 64},
)
