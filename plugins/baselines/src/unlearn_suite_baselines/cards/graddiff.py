"""Gradient difference: ascent on forget text, descent on retain text.

    L = gamma mean_{t in y_f} log p(y_t | x, y_<t) + alpha L_retain,   L_retain = NLL or KL(base || model)

Public code: OpenUnlearning `GradDiff`. Its KL is averaged over prompts and padding (`legacy`).
"""

from __future__ import annotations

from .common import Retains, method

SPEC = method(
    "graddiff",
    "Raise the loss on forget text while training on retain text (NLL or KL to the base model)",
    "gradient_ascent:GradDiff",
    Retains,
    "Maini et al. 2024 (TOFU), arXiv:2401.06121",
    "faithful",
    train={"steps": 40, "lr": 1e-5, "batch": 8, "length": 64},
)
