"""Does an objective give the same on several processes as on one? A check that any objective's tests can make.

    from unlearn_suite.testing.distributed import StageCase, check_processes

    def test_two_processes_equal_one():
        check_processes([StageCase(use="my-objective", options={...}, examples=EXAMPLES)])

Every case is one stage on a tiny random model, run here in one process and then in several with gloo on CPU, which
are started once for all cases (about ten seconds). The uneven batches that come with it need no thought: a batch of
five rows is cut into two and three, and with `batch: 1` one process has no row at all.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ..errors import SuiteError
from ..specs import Example, ObjectiveSpec, Train
from .costs import is_cost

Json = dict[str, Any]


@dataclass(frozen=True)
class StageCase:
    """A stage as a plan would write it, on `tiny_model(arch, **model)`; plain data, which any process can be given.

    `use` and `options` name the objective, `plugins` single files that bring it. `train` overrides the spec's
    settings, and those this check's (4 steps of 5 examples). `checkpoints` keeps checkpoints for a later run of the
    same case, which then goes on from them; `stop_after`: ask for a stop after so many steps.
    """

    use: str
    examples: Mapping[str, Sequence[Example]]
    options: Json = field(default_factory=dict)
    train: Json = field(default_factory=dict)
    arch: str = "llama"
    model: Json = field(default_factory=dict)
    dtype: str = "float32"
    plugins: tuple[Path, ...] = ()
    seed: int = 3
    checkpoints: Path | None = None
    stop_after: int | None = None
    displaced: bool = False
    """begin a little away from the base model, where what compares with it has a gradient (`around.Displaced`)"""
    tolerance: float = 1e-5
    """how far a weight may be off; scalars: relative to their size, or absolutely below 1; `grad_norm`: ten times"""

    @property
    def name(self) -> str:
        return f"{self.use} {self.options} {self.train} on {self.arch}"


@dataclass(frozen=True)
class StageOutcome:
    """`weights`: all parameters after the stage, on the CPU; `rows`: the scalars of each step, and the closing ones.

    `error`: what the stage ended with instead, `code` its code; there are no weights then.
    """

    weights: Mapping[str, Any]
    rows: Sequence[Mapping[str, float]]
    error: str = ""
    code: str = ""


def run_cases(cases: Sequence[StageCase]) -> list[StageOutcome]:
    """One case after another, in this process or in all that have been joined."""
    return [_run(case) for case in cases]


def _run(case: StageCase) -> StageOutcome:
    import torch

    from ..engine.loop import StageJob, run_stage
    from ..plugins import load_catalog, load_target
    from .around import Displaced
    from .conformance.bench import TinyServices
    from .tiny import tiny_model, tiny_tokenizer

    spec = load_catalog(list(case.plugins)).find("objective", case.use).spec
    assert isinstance(spec, ObjectiveSpec)
    model = tiny_model(case.arch, **case.model).to(getattr(torch, case.dtype))
    rows: list[Mapping[str, float]] = []
    config = spec.config(**case.options)
    objective = load_target(spec.load)(config)
    with tempfile.TemporaryDirectory() as scratch:
        job = StageJob(
            index=0,
            objective=Displaced(objective) if case.displaced else objective,
            train=Train(**{**spec.train, "steps": 4, "lr": 1e-3, "batch": 5, "length": 24, **case.train}),
            required_roles=spec.roles_for(config),
            examples=case.examples,
            seed=case.seed,
            artifacts=Path(scratch),
            checkpoints=case.checkpoints or Path(scratch),
            services=TinyServices(model, nullcontext),
            on_step=lambda step, scalars: rows.append(scalars),
            should_stop=lambda: case.stop_after is not None and len(rows) >= case.stop_after,
        )
        try:
            result = run_stage(model, tiny_tokenizer(), job)
        except SuiteError as error:
            return StageOutcome({}, rows, str(error), error.code)
    weights = {n: p.detach().cpu().clone() for n, p in model.named_parameters()}
    return StageOutcome(weights, [*rows, result.closing])


def check_processes(cases: Sequence[StageCase], processes: int = 2) -> None:
    """Raise AssertionError unless every case gives equal weights and scalars on `processes` processes and on one.

    A case that ends with an error, or changes no weight, fails as well: it would compare nothing.
    """
    compare(cases, on_processes(run_cases, processes, list(cases)))


def compare(cases: Sequence[StageCase], many: Sequence[Sequence[StageOutcome]]) -> None:
    """Raise AssertionError unless one process gives what each of `many` has given."""
    for index, case in enumerate(cases):
        (alone,) = run_cases([case])
        assert_trained(case, alone)
        for rank, outcomes in enumerate(many):
            assert_same(alone, outcomes[index], f"{case.name}, process {rank}", case.tolerance)


def assert_same(one: StageOutcome, other: StageOutcome, name: str, tolerance: float = 1e-5) -> None:
    """Raise AssertionError with the first difference of two outcomes; see `StageCase.tolerance`."""
    assert one.error == other.error, f"{name}: {other.error or 'no error'} against {one.error or 'no error'}"
    assert len(one.rows) == len(other.rows), f"{name}: {len(one.rows)} rows of scalars against {len(other.rows)}"
    for step, rows in enumerate(zip(one.rows, other.rows, strict=True)):
        a, b = ({k: x for k, x in row.items() if not is_cost(k)} for row in rows)
        assert list(a) == list(b), f"{name}: other scalars at step {step}: {sorted(set(a) ^ set(b))}"
        for key, x in a.items():
            off = abs(x - b[key]) / max(1.0, abs(x))
            # near a minimum of one part the gradient is a small difference of large numbers
            allowed = 10 * tolerance if key == "grad_norm" else tolerance
            assert off <= allowed, f"{name}: {key} at step {step} is {x!r} against {b[key]!r}"
    for key, weight in one.weights.items():
        off = float((weight.float() - other.weights[key].float()).abs().max())
        assert off <= tolerance, f"{name}: {key} differs by {off:.3g}"


def on_processes(function: Callable[..., Any], processes: int, *arguments: Any) -> list[Any]:
    """`function(*arguments)` on every one of `processes` new processes joined by gloo; what each returned.

    `function` must be importable by name, arguments and results picklable. An exception on one process is raised
    here with its traceback, and the others are ended.
    """
    import torch
    from torch.multiprocessing.spawn import spawn

    with tempfile.TemporaryDirectory() as folder:
        # one thread each: the models are tiny
        spawn(_process, (processes, folder, function, arguments), nprocs=processes)
        return [torch.load(Path(folder) / f"{rank}.pt", weights_only=False) for rank in range(processes)]


def _process(rank: int, size: int, folder: str, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    import torch
    import torch.distributed as dist

    torch.set_num_threads(1)
    os.environ["LOCAL_RANK"] = str(rank)
    store = dist.FileStore(f"{folder}/store", size)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=size)
    try:
        torch.save(function(*arguments), Path(folder) / f"{rank}.pt")
    finally:
        dist.destroy_process_group()


def assert_trained(case: StageCase, outcome: StageOutcome) -> None:
    """Raise AssertionError when the stage ended with an error or left every weight as it was."""
    import torch

    assert not outcome.error, f"{case.name}: {outcome.error}"
    (before,) = run_cases([replace(case, train={**case.train, "steps": 0}, checkpoints=None)])
    changed = any(not torch.equal(before.weights[n], w) for n, w in outcome.weights.items())
    assert changed, f"{case.name}: no weight has changed, so nothing was compared"
