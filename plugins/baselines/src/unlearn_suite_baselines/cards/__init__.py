"""One card per objective: equation, paper, known differences, options. Light: no torch."""

from __future__ import annotations

from . import (
    adaptive_rmu,
    altpo,
    ceu,
    circuit_breakers,
    dpo,
    graddiff,
    gradient_ascent,
    idk_dpo,
    lat_rmu,
    npo,
    orth_circuit_breakers,
    pdu,
    random_mapping,
    rmu,
    satimp,
    simnpo,
    tar,
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
    rmu,
    adaptive_rmu,
    circuit_breakers,
    orth_circuit_breakers,
    lat_rmu,
    random_mapping,
    tar,
)
