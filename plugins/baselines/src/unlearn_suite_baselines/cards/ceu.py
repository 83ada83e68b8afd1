"""CE-U: cross-entropy against the model's own distribution without the true token.

    L = mean_{t in y_f, t > n} CE(softmax(sg(z) with z_{y_t} = -inf), softmax(z))

The first n answer tokens are skipped; there is no retain loss. Public code: OpenUnlearning `CEU`, the same.
"""

from __future__ import annotations

from pydantic import Field

from .common import Trains, method


class CeuConfig(Trains):
    """Options of `ceu`."""

    ignore_first: int = Field(1, ge=0)
    """answer tokens at the beginning that are left alone"""


SPEC = method(
    "ceu",
    "Cross-entropy against the model's own distribution without the true token",
    "ceu:Ceu",
    CeuConfig,
    "Yang 2025, arXiv:2503.01224",
    "faithful",
    roles=("forget",),
    train={"steps": 20, "lr": 1e-5, "batch": 8, "length": 64},
)
