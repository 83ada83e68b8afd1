"""Gradient ascent: raise the next-token loss on forget text.

    L = mean_{t in y_f} log p(y_t | x, y_<t)

Unbounded below: stop early. Public code: OpenUnlearning `GradAscent`, the same mean over label tokens.
"""

from __future__ import annotations

from .common import Trains, method

SPEC = method(
    "gradient-ascent",
    "Raise the next-token loss on forget text, with nothing that keeps the rest",
    "gradient_ascent:GradientAscent",
    Trains,
    "Jang et al. 2023, arXiv:2210.01504",
    "faithful",
    roles=("forget",),
    train={"steps": 20, "lr": 1e-5, "batch": 8, "length": 64},
)
