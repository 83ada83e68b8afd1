"""GloSS-like subspace removal: one subspace for all blocks, from the MLPs' contrastive outputs.

    D_l: top singular vectors of o_l(forget) - mean o_l(retain);   V: top components of all D_l stacked
    W_down <- (I - V V^T) W_down

o_l: MLP outputs averaged over each example's response. The papers' ranks are not known to us: options. Of the
subspaces of dimension 1 to `rank`, the one that raises the forget loss most while KL on retain text stays within
`max_kl` is removed (none: nothing is removed, and that is said).
"""

from __future__ import annotations

from pydantic import Field

from unlearn_suite import Config

from .common import method


class GlossConfig(Config):
    """Options of `gloss`."""

    per_block: int = Field(2, ge=1)
    """singular vectors that each block gives"""
    rank: int = Field(4, ge=1)
    """dimension of the global subspace"""
    max_kl: float | None = Field(0.1, gt=0)
    """largest mean KL(base || model) on a retain batch, nats per token (none: not measured, all of `rank`)"""
    strength: float = Field(1.0, gt=0, le=1)
    """share of the subspace's component that is removed"""
    texts: int = Field(128, ge=4)
    """examples of each role"""


SPEC = method(
    "gloss",
    "Remove one global subspace of contrastive MLP outputs from every MLP's output matrix",
    "directions:Gloss",
    GlossConfig,
    "GloSS, arXiv:2505.17078 and 2601.06226",
    "variant",
    train={"steps": 1, "batch": 8, "length": 64},
)
