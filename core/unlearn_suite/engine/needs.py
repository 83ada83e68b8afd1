"""What an objective's requirements mean for the model's parameters: those it can run without are left on disk."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from torch import nn

from ..specs import Train
from .objective import Requirements
from .shape import ModelShape

TO_THE_END = frozenset({"retain-kl", "retain-perplexity", "norms-above", "junk-direction", "forget-word", "own-output"})
"""detectors that read the model to its end"""


def with_watchers(needs: Requirements, train: Train) -> Requirements:
    """The requirements of an objective together with those of the stage's detectors and guard."""
    watching = train.diagnostics
    to_the_end = watching is not None and (bool(watching.metrics) or not TO_THE_END.isdisjoint(watching.detectors))
    watched = train.stop is not None or to_the_end
    return replace(needs, logits=needs.logits or watched)


def needed_parameters(shape: ModelShape, needs: Requirements) -> frozenset[str] | None:
    """Names of everything up to block `needs.reads`, and of what is trained; None when the whole model is run.

    Parameters outside of the blocks count as below them unless they come after the last block in the model,
    as a final norm and an untied LM head do.
    """
    if needs.logits:
        return None
    names = list(shape.tensors)
    blocks = [shape.block_of(name) for name in names]
    last = max((i for i, block in enumerate(blocks) if block is not None), default=-1)
    found = {
        name
        for i, (name, block) in enumerate(zip(names, blocks, strict=True))
        if (block is None and (i < last or needs.head)) or (block is not None and block <= needs.reads)
    }
    return frozenset(found | set(needs.trainable))


_BRING = "_bring_absent_parameters"


def on_whole(model: nn.Module, bring: Callable[[], None]) -> None:
    """`bring` puts every parameter of a model into memory that is not there."""
    setattr(model, _BRING, bring)


def make_whole(model: nn.Module) -> None:
    """Have all parameters in memory: for work on the model's tensors themselves, which no forward pass announces."""
    if bring := getattr(model, _BRING, None):
        bring()
