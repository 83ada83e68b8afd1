"""Checks of objectives: repeatable to the last bit, resumable, and touching nothing but what they say."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from ...errors import SuiteError
from ..costs import is_cost
from .check import CheckFailed, Skipped, check
from .subject import Subject

if TYPE_CHECKING:
    from ..distributed import StageCase, StageOutcome
    from .bench import Bench, Run


def _each(subject: Subject) -> Iterator[Bench]:
    from .bench import benches

    return iter(benches(subject))


def _differences(one: Run, other: Run) -> str:
    """What two runs do not share, "" if nothing: scalars by name, then weights by name. Costs are not compared."""
    import torch

    for step, (row, row_other) in enumerate(zip(one.rows, other.rows, strict=True)):
        names = [n for n in {*row, *row_other} if not is_cost(n) and row.get(n) != row_other.get(n)]
        if names:
            return f"scalar {sorted(names)[0]!r} of step {step}"
    closing = ({n: v for n, v in run.closing.items() if not is_cost(n)} for run in (one, other))
    if next(closing) != next(closing):
        return "what finish() returns"
    changed = [name for name, tensor in one.weights.items() if not torch.equal(tensor, other.weights[name])]
    return f"the weights, {changed[0]} first" if changed else ""


@check("OBJ-FINITE", "objective", "its scalars are finite numbers with names")
def scalars_are_finite(subject: Subject) -> None:
    from .bench import plain_run

    for bench in _each(subject):
        run = plain_run(bench)
        for row in (*run.rows, run.closing):
            for name, value in row.items():
                if not isinstance(name, str) or not isinstance(value, int | float):
                    raise CheckFailed(f"scalar {name!r} is {type(value).__name__}, not a number: use float(...)")
                if not math.isfinite(value):
                    raise CheckFailed(f"scalar {name!r} is {value}")
        if not all(run.rows):
            raise CheckFailed("step() returned no scalars")


@check("OBJ-SEED", "objective", "the same seed gives the same bits")
def same_seed_same_bits(subject: Subject) -> None:
    from .bench import plain_run

    for bench in _each(subject):
        if found := _differences(plain_run(bench), bench.run()):
            raise CheckFailed(f"two equal runs differ in {found}: draw from ctx.generator, and keep nothing globally")


@check("OBJ-RANDOM", "objective", "it neither uses nor changes the global random numbers")
def no_global_randomness(subject: Subject) -> None:
    import random

    import numpy as np
    import torch

    from .bench import plain_run

    def states() -> list[object]:
        return [random.getstate(), np.random.get_state()[1].tobytes(), torch.get_rng_state().numpy().tobytes()]  # type: ignore[index]

    for bench in _each(subject):
        seen: list[list[object]] = []
        other = bench.run(global_seed=7, on_step=lambda step, seen=seen: seen.append(states()))  # type: ignore[misc]
        if found := _differences(plain_run(bench), other):
            raise CheckFailed(f"another global seed changes {found}: draw from ctx.generator")
        for source, after in zip(("random", "numpy.random", "torch"), zip(*seen, strict=True), strict=True):
            if any(state != after[0] for state in after):
                raise CheckFailed(f"a step moves the global generator of {source}: draw from ctx.generator")


@check("OBJ-RESUME", "objective", "two steps, an interruption and two steps give the bits of four")
def resume_is_exact(subject: Subject) -> None:
    from .bench import STEPS, plain_run

    for bench in _each(subject):
        with tempfile.TemporaryDirectory() as folder:
            half = bench.run(stop_after=STEPS // 2, checkpoints=Path(folder))
            if not half.stopped:
                raise Skipped("the case has too few steps to be interrupted")
            rest = bench.run(checkpoints=Path(folder))
        rest.rows = half.rows + rest.rows
        if found := _differences(plain_run(bench), rest):
            raise CheckFailed(f"after a resume it differs in {found}: put what step() depends on into state_dict()")


@check("OBJ-ZERO", "objective", "zero steps change nothing")
def zero_steps_change_nothing(subject: Subject) -> None:
    import torch

    from .bench import snapshot

    for bench in _each(subject):
        before = snapshot(bench.model())
        after = bench.run(steps=0).weights
        changed = [name for name, tensor in before.items() if not torch.equal(tensor, after[name])]
        if changed:
            raise CheckFailed(f"setup() or finish() changes {changed[0]}")


@check("OBJ-FROZEN", "objective", "the tensors that are not trained, and the reference, keep their bits")
def frozen_tensors_are_untouched(subject: Subject) -> None:
    import torch

    from .bench import plain_run, snapshot

    for bench in _each(subject):
        before, run = snapshot(bench.model()), plain_run(bench)
        for name, tensor in before.items():
            if name in run.original:
                if not torch.equal(tensor, run.original[name]):
                    raise CheckFailed(f"the reference's {name} is not the model's any more")
            elif not torch.equal(tensor, run.weights[name]):
                raise CheckFailed(f"{name} is not trained and has changed")


@check("OBJ-MEMORY", "objective", "nothing grows from step to step, and all is released in the end")
def memory_is_released(subject: Subject) -> None:
    import gc

    from .bench import STEPS

    for bench in _each(subject):
        bench.run(steps=1)  # what is made once per process
        gc.collect()
        gc.freeze()  # only what is made from here on is looked at
        try:
            counts, after = _new_tensors(bench)
        finally:
            gc.unfreeze()
        if counts[-1] > counts[0]:
            raise CheckFailed(f"{counts[-1] - counts[0]} more tensors are kept after {STEPS // 2} more steps")
        if after:
            raise CheckFailed(f"{after} tensors are kept when the stage is over")


def _new_tensors(bench: Bench) -> tuple[list[int], int]:
    """How many new tensors live half-way, at the end of the last step, and after the stage."""
    import gc

    import torch

    from .bench import STEPS

    def live() -> int:
        gc.collect()
        return sum(issubclass(type(thing), torch.Tensor) for thing in gc.get_objects())

    counts: list[int] = []

    def count(step: int) -> None:
        if step in (STEPS // 2 - 1, STEPS - 1):
            counts.append(live())

    bench.run(on_step=count)
    return counts, live()


@check("OBJ-PROCESSES", "objective", "two processes give what one gives")
def two_processes_equal_one(subject: Subject) -> None:
    from ..distributed import compare
    from .bench import plain_run

    cases, many = _on_two(subject)
    refused = [index for index, outcome in enumerate(many[0]) if outcome.code in ONE_DEVICE]
    both = [index for index in range(len(cases)) if index not in refused]
    try:
        compare([cases[index] for index in both], [[outcomes[index] for index in both] for outcomes in many])
    except AssertionError as error:
        if any(outcome.code == "no-such-block" for outcome in many[0]):
            plain_run(next(_each(subject)))  # which says it better
        raise CheckFailed(str(error)) from error
    if refused:
        told = f"{len(refused)} of {len(cases)} cases: " if len(cases) > 1 else ""
        raise Skipped(told + many[0][refused[0]].error)


ONE_DEVICE = {"needs-one-device", "attack-devices", "second-order-sharded"}
"""codes of the errors with which a stage refuses several devices"""
Outcomes = tuple[list["StageCase"], list[list["StageOutcome"]]]
"""an objective's cases, and what each of two processes gave of them"""


def _on_two(subject: Subject) -> Outcomes:
    from ..distributed import on_processes, run_cases

    if "on two" not in subject.memo:
        subject.memo["on two"] = _together(subject)
    shared: dict[str, Outcomes] = subject.memo["on two"]
    if subject.spec.name in shared:
        return shared[subject.spec.name]
    cases = [bench.stage_case() for bench in _each(subject)]
    return cases, on_processes(run_cases, 2, cases)


def _together(subject: Subject) -> dict[str, Outcomes]:
    """All objectives that are checked on one pair of processes: to start one costs more than the stages do.

    {} when one of them brings the pair down; each has its own then.
    """
    from ..distributed import on_processes

    cases: dict[str, list[StageCase]] = {}
    for other in subject.memo["subjects"]:
        if other.area == "objective" and not other.unavailable("OBJ-PROCESSES"):
            with suppress(SuiteError):  # told by the checks of that objective
                cases[other.spec.name] = [bench.stage_case() for bench in _each(other)]
    try:
        many = on_processes(_run_all, 2, cases)
    except Exception:
        return {}
    return {name: (own, [outcomes[name] for outcomes in many]) for name, own in cases.items()}


def _run_all(cases: Mapping[str, Sequence[StageCase]]) -> dict[str, list[StageOutcome]]:
    from ..distributed import run_cases

    return {name: run_cases(own) for name, own in cases.items()}


# The checks of gradients and of the declared requirements are files of their own; they stand in the list after these.
from . import gradients, touches  # noqa: E402

assert all((gradients, touches))
