"""Options of quantisation. Light: no torch."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from unlearn_suite import AttackConfig, AttackPoint, AttackSpec


class QuantiseConfig(AttackConfig):
    """Options of `quantise`."""

    bits: tuple[Annotated[int, Field(ge=2, le=8)], ...] = Field((8, 4), min_length=1)
    """bits per weight; each is an attack of its own"""

    @model_validator(mode="after")
    def _apart(self) -> QuantiseConfig:
        if len(set(self.bits)) < len(self.bits):
            raise ValueError("`bits` names a number of bits twice")
        return self

    def points(self) -> tuple[AttackPoint, ...]:
        return tuple(AttackPoint(f"{bits} bits") for bits in self.bits)


SPEC = AttackSpec(
    name="quantise",
    summary="round the weights of all blocks to few bits, which can undo small changes",
    load="unlearn_suite_attacks.quantising:Quantise",
    config=QuantiseConfig,
    paper="arXiv:2410.16454",
)
