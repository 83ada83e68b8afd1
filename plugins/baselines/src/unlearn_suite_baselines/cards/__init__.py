"""One card per objective: equation, paper, known differences, options. Light: no torch."""

from __future__ import annotations

from . import (
    altpo,
    ceu,
    dpo,
    graddiff,
    gradient_ascent,
    idk_dpo,
    npo,
    pdu,
    satimp,
    simnpo,
    undial,
    wga,
)

CARDS = (
    gradient_ascent,
    graddiff,
    npo,
    simnpo,
    dpo,
    idk_dpo,
    altpo,
    undial,
    wga,
    satimp,
    ceu,
    pdu,
)
