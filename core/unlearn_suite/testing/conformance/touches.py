"""Checks that an objective touches what it says: blocks read, logits, the reference, trained tensors.

They look at the model itself, not at the views: a hook on every block and on the head sees a pass however it was
made. Blocks below the first that is run are called too, only to hand on what is known, so the deepest block that
is called is the deepest that is read.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

from .check import CheckFailed, check
from .subject import Subject

if TYPE_CHECKING:
    from torch import nn

    from ...engine.objective import Requirements
    from .bench import Bench


@dataclass
class Touched:
    """What a run has touched. `watching` is False while the host uses the model for its own work."""

    deepest: int = -1
    head: bool = False
    reference: bool = False
    grads: set[str] = field(default_factory=set)
    written: set[str] = field(default_factory=set)
    watching: bool = True

    @contextmanager
    def paused(self) -> Iterator[None]:
        self.watching = False
        try:
            yield
        finally:
            self.watching = True


def _watch(model: nn.Module, touched: Touched) -> None:
    """Hooks on all blocks and on the LM head of a model that is thrown away afterwards."""
    from ...engine.shape import ModelShape

    def block(index: int) -> Any:
        def hook(*_: Any) -> None:
            if touched.watching:
                touched.deepest = max(touched.deepest, index)

        return hook

    def head(*_: Any) -> None:
        touched.head = touched.head or touched.watching

    blocks = model.get_submodule(ModelShape.of(model).blocks_path)
    for index, module in enumerate(blocks.children()):
        module.register_forward_pre_hook(block(index))
    model.get_output_embeddings().register_forward_pre_hook(head)  # type: ignore[operator]


@contextmanager
def _watch_reference(touched: Touched) -> Iterator[None]:
    """Notes every read of a reference view."""
    from ...engine.views import View

    hidden, last = View.hidden, View.last_hidden

    def noted(method: Any) -> Any:
        def call(view: Any, *args: Any, **kwargs: Any) -> Any:
            touched.reference = touched.reference or view._frozen
            return method(view, *args, **kwargs)

        return call

    with patch.object(View, "hidden", noted(hidden)), patch.object(View, "last_hidden", noted(last)):
        yield


def _touched(bench: Bench) -> tuple[Requirements, Touched]:
    """What the case declares and what it touches, once per run of the kit."""
    key = ("touched", id(bench))
    if key not in bench.subject.memo:
        bench.subject.memo[key] = _observe(bench)
    found: tuple[Requirements, Touched] = bench.subject.memo[key]
    return found


def _observe(bench: Bench) -> tuple[Requirements, Touched]:
    from ...engine.shape import ModelShape

    touched = Touched()
    model = bench.model()
    needs = bench.objective().requirements(ModelShape.of(model))
    others = {n: p for n, p in model.named_parameters() if n not in needs.trainable}
    versions = {name: parameter._version for name, parameter in others.items()}
    _watch(model, touched)

    def note(step: int) -> None:
        touched.grads |= {name for name, parameter in others.items() if parameter.grad is not None}
        touched.written |= {name for name, parameter in others.items() if parameter._version != versions[name]}

    with _watch_reference(touched):
        bench.run(model=model, on_step=note, pause=touched.paused)
    note(-1)
    return needs, touched


@check("OBJ-READS", "objective", "it reads no deeper block than it declares, no logits and no reference undeclared")
def reads_what_it_declares(subject: Subject) -> None:
    from .bench import benches

    for bench in benches(subject):
        needs, touched = _touched(bench)
        if touched.head and not needs.logits:
            raise CheckFailed("it reads logits or token log-probs: declare Requirements(logits=True)")
        if touched.deepest > needs.reads and not needs.logits:
            raise CheckFailed(f"it reads block {touched.deepest} and declares reads={needs.reads}")
        if touched.reference and not needs.reference:
            raise CheckFailed("it reads ctx.reference and declares reference=False")


@check("OBJ-TRAINS", "objective", "it trains no other tensor than it declares, not even for the time of a step")
def trains_what_it_declares(subject: Subject) -> None:
    from .bench import benches

    for bench in benches(subject):
        _, touched = _touched(bench)
        for names, what in ((touched.written, "writes to"), (touched.grads, "leaves a gradient on")):
            if names:
                raise CheckFailed(f"it {what} {sorted(names)[0]}, which its requirements do not name")
