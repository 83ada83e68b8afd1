"""CIR: break the MLPs' outputs on forget text, with updates from which shared representations are removed.

    L = mean_{l, t} relu(<o_l, o_l^base>) / (mean_t |o_l^base|)^2,   dW <- (I - U U^T) dW (I - V V^T)

o_l: output of block l's MLP. V, U: top principal components of the inputs of each trained matrix, and of the gradients
of its outputs, on forget text. The loss also falls when o shrinks. Public code (filyp/unlearning) computes means and
components anew every epoch, removes one after the other, and moves the weights along the collapsed gradient by a
fixed length (`rate`); a later form (filyp/open-unlearning) scales components down softly. Here the components and the
mean length |o_l^base| are computed once, on the base model and the same forget texts, not centred, so that a batch may
be cut; without `rate` AdamW takes the steps, which turns the collapsed update a little.
"""

from __future__ import annotations

from pydantic import Field

from .common import Trains, method


class CirConfig(Trains):
    """Options of `cir`. `blocks` none: the middle half of the depth."""

    tensors: str = "mlp"
    """`mlp`, `mlp_out` or a regular expression; two-dimensional weights of linear layers"""
    components: int = Field(16, ge=0)
    """principal components that are removed on each side"""
    texts: int = Field(32, ge=2)
    """forget texts that the components and the mean lengths are computed from"""
    rate: float | None = Field(None, gt=0)
    """length of each step, all trained weights together (none: the stage's optimizer)"""
    alpha: float = Field(0.0, ge=0)
    """weight of a next-token loss on retain text (0: none, as published)"""


SPEC = method(
    "cir",
    "Break MLP outputs on forget text; remove shared components from the update",
    "cir:Cir",
    CirConfig,
    "Sondej and Yang 2025, arXiv:2509.11816",
    "variant",
    train={"steps": 40, "lr": 3e-5, "batch": 8, "length": 64},
)
