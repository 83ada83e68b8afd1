"""Named parts of a training step whose cost is told apart from the rest: a simulated attack, say."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass
class Part:
    """Cost of one part within one step. `repeats` is for the part's own use (inner steps of an attack)."""

    seconds: float = 0.0
    flops: int = 0
    repeats: int = 0


@dataclass
class StepParts:
    """The parts of the step under way; `counted` gives the FLOPs of the step so far, when they are counted."""

    counted: Callable[[], int] | None = None
    parts: dict[str, Part] = field(default_factory=dict)

    def scalars(self) -> dict[str, float]:
        """`<part>_seconds`, `<part>_steps`, and in counted steps `<part>_flops_share` of the whole step."""
        found: dict[str, float] = {}
        for name, part_ in self.parts.items():
            found |= {f"{name}_seconds": part_.seconds, f"{name}_steps": float(part_.repeats)}
            if self.counted is not None:
                found[f"{name}_flops_share"] = part_.flops / max(self.counted(), 1)
        return found


_under_way: list[StepParts] = []


@contextmanager
def step_parts(counted: Callable[[], int] | None) -> Iterator[StepParts]:
    """Collect the parts that run inside."""
    found = StepParts(counted)
    _under_way.append(found)
    try:
        yield found
    finally:
        _under_way.pop()


@contextmanager
def part(name: str) -> Iterator[Part]:
    """Add what runs inside to the part `name` of the step under way (outside of steps it is lost)."""
    step = _under_way[-1] if _under_way else StepParts()
    found = step.parts.setdefault(name, Part())
    start, flops = time.perf_counter(), step.counted() if step.counted else 0
    try:
        yield found
    finally:
        found.seconds += time.perf_counter() - start
        found.flops += (step.counted() if step.counted else 0) - flops
