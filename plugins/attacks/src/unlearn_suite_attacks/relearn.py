"""Options of relearning. Light: no torch."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from unlearn_suite import AttackConfig, AttackPoint, AttackSpec


class RelearnConfig(AttackConfig):
    """Options of `relearn`."""

    role: str = "attack"
    """data role that the attacker trains on; facts that are not evaluated tell whether the rest comes back with them"""
    lr: tuple[Annotated[float, Field(gt=0)], ...] = Field((3e-5, 3e-4), min_length=1)
    """learning rates; each is an attack of its own, and the worst counts"""
    steps: int = Field(64, ge=1)
    """optimizer steps of each"""
    scored_at: tuple[Annotated[int, Field(ge=1)], ...] | None = Field(None, min_length=1)
    """steps after which the model is scored (none: 2, 4, 8 ... and the last)"""
    batch: int = Field(8, ge=1)
    """examples per step"""
    length: int = Field(128, ge=2)
    """tokens after which an example is cut"""
    optimizer: Literal["adamw", "sgd", "sgd_norm"] = "adamw"
    """AdamW without weight decay; plain gradient steps; steps whose length is `lr` times the norm of what is trained"""
    tensors: Literal["all", "lora"] = "all"
    """every weight, or fresh low-rank adapters on every linear map of the blocks"""
    rank: int = Field(8, ge=1)
    """rank of the adapters"""

    @model_validator(mode="after")
    def _within(self) -> RelearnConfig:
        if self.scored_at and max(self.scored_at) > self.steps:
            raise ValueError(f"`scored_at` names step {max(self.scored_at)}, and there are {self.steps} `steps`")
        if len(set(self.lr)) < len(self.lr):
            raise ValueError("`lr` names a learning rate twice")
        return self

    @property
    def readings(self) -> tuple[int, ...]:
        """The steps after which the model is scored."""
        if self.scored_at:
            return tuple(sorted(set(self.scored_at)))
        doubling = [2**k for k in range(1, self.steps.bit_length()) if 2**k < self.steps]
        return (*doubling, self.steps)

    def points(self) -> tuple[AttackPoint, ...]:
        return tuple(AttackPoint(f"lr {lr:g}", step) for lr in self.lr for step in self.readings)


SPEC = AttackSpec(
    name="relearn",
    summary="fine-tune the unlearned model on text like what was forgotten, and see how fast it comes back",
    load="unlearn_suite_attacks.relearning:Relearn",
    config=RelearnConfig,
    roles=("{role}",),
    paper="arXiv:2410.08827",
)
