"""The card of `sft`: ordinary fine-tuning, for models that are to know something before it is unlearned."""

from __future__ import annotations

from ..specs import Config, ObjectiveSpec


class SftConfig(Config):
    """Options of `sft`."""

    role: str = "start"
    """data role that is trained on"""
    tensors: str = "all"
    """tensors that are trained: `all`, or a regular expression that names them in full"""


SPEC = ObjectiveSpec(
    name="sft",
    summary="Fine-tune on the answers of one data role: the mean next-token loss",
    load="unlearn_suite.builtin.sft:Sft",
    config=SftConfig,
    roles=("{role}",),
    train={"steps": 100, "lr": 1e-5, "batch": 32, "length": 256, "weight_decay": 0.01, "end": True},
)
