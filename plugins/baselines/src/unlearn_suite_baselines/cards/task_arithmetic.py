"""Task arithmetic: train on the forget text, then go the other way.

    theta_ft = argmin NLL(x_f),   theta = theta_base - a (theta_ft - theta_base)

Public code: MUSE's task vector, with a 1. The steps of the stage are those of the fine-tuning; the negation is done
at the end, exactly also for LoRA (on its B matrices).
"""

from __future__ import annotations

from pydantic import Field

from .common import Trains, method


class TaskArithmeticConfig(Trains):
    """Options of `task-arithmetic`."""

    scale: float = Field(1.0, ge=0)
    """a: how far to go the other way"""


SPEC = method(
    "task-arithmetic",
    "Fine-tune on forget text, then subtract the change",
    "task_arithmetic:TaskArithmetic",
    TaskArithmeticConfig,
    "Ilharco et al. 2023, arXiv:2212.04089",
    "faithful",
    roles=("forget",),
    train={"steps": 20, "lr": 1e-5, "batch": 8, "length": 64},
)
