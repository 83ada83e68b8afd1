"""Options of cosine-rmu. Light: no torch."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from unlearn_suite import Config, ObjectiveSpec


class CosineRmuConfig(Config):
    """Options of `cosine-rmu`; the symbols are those of docs/explanation/cosine-rmu.md."""

    block: int | None = Field(None, ge=0)
    """block l* whose output is steered, 0-based (none: 0.22 of the depth, rounded)"""
    width: int = Field(3, ge=1)
    """how many blocks are trained (their MLP output matrices), ending at `block`"""
    direction: Literal["gauss_orth", "gauss", "rand_pos"] = "gauss_orth"
    """target direction u: Gaussian made orthogonal to the mean activations and top components; plain Gaussian;
    uniform on the positive orthant, as in RMU's code"""
    margin: float = Field(0.95, gt=0, le=1)
    """mu: cosine with u that is enough; 1 asks for ever larger norms"""
    retain_weight: float = Field(50.0, ge=0)
    """a: weight of the relative squared error on retain text"""
    norm_guard: float = Field(0.1, ge=0)
    """lambda_N: weight of the penalty on norm ratios outside [0.5, 4]"""
    meta: Literal["none", "relearn"] = "relearn"
    """relearn: the forget loss must also be low after simulated relearning"""
    meta_weight: float = Field(1.0, ge=0)
    """gamma: weight of the meta-gradient, which is clipped to the norm of the plain forget gradient"""
    meta_start: float = Field(0.3, ge=0, lt=1)
    """share of the steps before the meta-gradient sets in; it is at full weight after as much again"""
    fork_every: int = Field(1, ge=1)
    """steps between two simulated attacks"""
    inner_steps: int = Field(4, ge=1)
    """K: steps of the simulated attacker"""
    inner_loss: Literal["ce", "rep"] = "ce"
    """what the attacker minimises: next-token loss on forget text; or (cheap, nothing above `block` is run) the
    relative distance of its activations to the base model's"""
    inner_optimizer: Literal["sgd_norm", "adamw"] = "sgd_norm"
    """normalised gradient steps, or AdamW from a fresh state"""
    inner_lr: tuple[float, float] = (1e-3, 5e-3)
    """range the attacker's rate is drawn from (log-uniform): relative displacement per step for `sgd_norm`,
    learning rate for `adamw`"""
    benign_share: float = Field(0.25, ge=0, le=1)
    """share of the attacks that fine-tune on retain text instead of forget text (`ce` only)"""

    @model_validator(mode="after")
    def _rates(self) -> CosineRmuConfig:
        low, high = self.inner_lr
        if not 0 < low <= high:
            raise ValueError("inner_lr must be two positive rates, the smaller first")
        return self


SPEC = ObjectiveSpec(
    name="cosine-rmu",
    summary="Turn forget activations towards a fixed direction, keep the others, also after simulated relearning",
    load="unlearn_suite_knowledge.cosine_rmu.objective:CosineRmu",
    config=CosineRmuConfig,
    train={"steps": 60, "lr": 3e-4, "batch": 8, "length": 64},
    paper="arXiv:2605.26454 (reconstruction); RMU: arXiv:2403.03218",
    fidelity="reconstruction",
)
