"""What a stage costs: time, tokens, FLOPs and memory, measured while it runs and without changing its result.

FLOPs are counted operator by operator on a few steps: one step of each kind, where steps that run the same
number of blocks are of one kind. A multiplication and its addition are two. Matrix products, convolutions
and torch's own attention kernels count; elementwise work does not.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from .batch import Batch
from .parts import StepParts, step_parts

PEAK_BF16 = {
    "NVIDIA A100": 312e12,
    "NVIDIA H100 PCIe": 756e12,
    "NVIDIA H100 80GB HBM3": 989e12,
    "NVIDIA H200": 989e12,
    "NVIDIA L4": 121e12,
    "NVIDIA L40S": 362e12,
}
"""dense bfloat16 FLOP/s by the beginning of the device's name (vendor's data sheets); the longest match counts"""

_COUNTED_AT_ONCE = 16
"""steps that may be counted in a row to meet a rare kind again; after that, one step in as many"""


@dataclass(frozen=True)
class StageCost:
    """One stage, in this process: after a resume the steps before it are not in these numbers.

    `seconds` by phase: setup, train (with checkpoints), finish. `step_seconds`: inside the steps alone.
    `tokens`: real tokens (no padding) of the steps' batches, over all roles. `flops`: all steps, None when
    there was none; `counted_steps` of them were counted, the others are taken to cost the same per padded
    position as counted ones of their kind. What is kept of the base model is counted in full. Work inside setup and
    finish is not in `flops`.
    `peak_bytes` by phase is what `memory` says: "device": most memory that torch had allocated on the GPU;
    "resident": most memory of the whole process in RAM, interpreter, libraries and model included;
    "resident-so-far": the same since the process began (where the system cannot reset its mark).
    `utilisation`: FLOP/s executed over the device's peak, None where the peak is not known.
    """

    device: str
    dtype: str
    first_step: int
    steps: int
    seconds: Mapping[str, float]
    step_seconds: float
    tokens: int
    flops: int | None
    counted_steps: int
    memory: str
    peak_bytes: Mapping[str, int]
    utilisation: float | None

    @property
    def tokens_per_second(self) -> float | None:
        return self.tokens / self.step_seconds if self.step_seconds > 0 else None

    def to_json(self) -> dict[str, Any]:
        """The fields, and `tokens_per_second`."""
        return {**asdict(self), "tokens_per_second": self.tokens_per_second}


@dataclass
class _Kind:
    """Steps that run the same number of blocks, `calls`. Positions are padded ones, B x T over all roles."""

    calls: int
    positions: int = 0
    counted_positions: int = 0
    flops: int = 0


class Meter:
    """Measures one stage. `block_calls` gives the number of transformer blocks run so far, `kept_flops` the FLOPs so
    far of what is computed once and kept, whose blocks do not count."""

    def __init__(
        self,
        device: torch.device,
        dtype: torch.dtype,
        block_calls: Callable[[], int],
        kept_flops: Callable[[], int] = lambda: 0,
    ) -> None:
        self.device = device
        self.dtype = dtype
        self._block_calls = block_calls
        self._kept_flops = kept_flops
        self._memory = PeakMemory(device)
        self._kinds: dict[int, _Kind] = {}
        self._first_step = 0
        self._steps = self._counted = self._tokens = 0
        self._step_seconds = 0.0
        self._seconds: dict[str, float] = {}
        self._peaks: dict[str, int] = {}

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Time and peak memory of a phase; phases follow one another, they do not nest."""
        self._memory.reset()
        start = time.perf_counter()
        try:
            yield
        finally:
            if self.device.type == "cuda":
                torch.cuda.synchronize(self.device)
            self._seconds[name] = self._seconds.get(name, 0.0) + time.perf_counter() - start
            peak = self._memory.peak()
            if peak is not None:
                self._peaks[name] = max(peak, self._peaks.get(name, 0))

    @contextmanager
    def step(self, index: int, batch: Mapping[str, Batch]) -> Iterator[StepParts]:
        """One step on `batch`; yields its named parts. A step that raises leaves no trace."""
        counter = FlopCount() if self._is_due() else None
        before, kept, start = self._block_calls(), self._kept_flops(), time.perf_counter()
        with counter or nullcontext(), step_parts((lambda: counter.flops) if counter else None) as parts:
            yield parts
        self._step_seconds += time.perf_counter() - start
        if not self._steps:
            self._first_step = index
        self._steps += 1
        self._tokens += sum(int(b.totals.content + b.totals.examples) for b in batch.values())
        calls = self._block_calls() - before
        kind = self._kinds.setdefault(calls, _Kind(calls))
        positions = sum(b.input_ids.numel() for b in batch.values())
        kind.positions += positions
        if counter is not None:
            self._counted += 1
            kind.counted_positions += positions
            kind.flops += counter.flops - (self._kept_flops() - kept)

    def _is_due(self) -> bool:
        """Count the first step, and go on whenever a kind of step has been seen that was never counted."""
        unknown = not self._kinds or any(not k.counted_positions for k in self._kinds.values())
        return unknown and self._counted < _COUNTED_AT_ONCE + self._steps // _COUNTED_AT_ONCE

    def cost(self) -> StageCost:
        """All that was measured so far."""
        flops = self._flops()
        peak = _peak_flops(self.device, self.dtype)
        known = flops is not None and peak is not None and self._step_seconds > 0
        return StageCost(
            device=_device_name(self.device),
            dtype=str(self.dtype).removeprefix("torch."),
            first_step=self._first_step,
            steps=self._steps,
            seconds=dict(self._seconds),
            step_seconds=self._step_seconds,
            tokens=self._tokens,
            flops=flops,
            counted_steps=self._counted,
            memory=self._memory.kind,
            peak_bytes=dict(self._peaks),
            utilisation=flops / self._step_seconds / peak if known and flops and peak else None,
        )

    def _flops(self) -> int | None:
        counted = sum((k.calls + 1) * k.counted_positions for k in self._kinds.values())
        if not counted:
            return None
        usual = sum(k.flops for k in self._kinds.values()) / counted  # of one block, about: for a kind never counted
        total = float(self._kept_flops())
        for kind in self._kinds.values():
            known = kind.counted_positions
            rate = kind.flops / known if known else usual * (kind.calls + 1)
            total += rate * kind.positions
        return round(total)


class PeakMemory:
    """The most memory in use since `reset`. See `StageCost` for what `kind` means."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.kind = "device" if device.type == "cuda" else "resident"
        self.reset()

    def reset(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
            return
        try:  # Linux: 5 sets the process's resident high-water mark back to what is resident now
            Path("/proc/self/clear_refs").write_text("5")
        except OSError:
            self.kind = "resident-so-far"

    def peak(self) -> int | None:
        """Bytes; None where the system does not tell."""
        if self.device.type == "cuda":
            return int(torch.cuda.max_memory_allocated(self.device))
        try:  # the other mark, getrusage's, a process inherits from the one that started it
            lines = Path("/proc/self/status").read_text().splitlines()
            return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) * 1024
        except (OSError, StopIteration):
            pass
        try:
            import resource
        except ImportError:
            return None
        mark = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return mark if sys.platform == "darwin" else mark * 1024


class FlopCount(TorchDispatchMode):
    """Adds up the FLOPs of all operators run inside, backward passes too, in `flops`.

    torch's own `FlopCounterMode` is not used: it takes some operators apart, which changes last bits of
    gradients, and it leaves out the CPU attention kernels. The formulas are torch's.
    """

    supports_higher_order_operators = True

    def __init__(self) -> None:
        super().__init__()
        self.flops = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        self.flops += operator_flops(func, args, kwargs, out)
        return out


def operator_flops(func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], out: Any) -> int:
    """FLOPs of one call of an operator, 0 for those that are not counted."""
    formula = operator_formula(func)
    return int(formula(*args, **kwargs, out_val=out)) if formula is not None else 0


def operator_formula(func: Any) -> Callable[..., Any] | None:
    """FLOPs of an operator by its arguments and its output (`out_val`); None for those that are not counted."""
    return _FORMULAS.get(getattr(func, "_overloadpacket", func))


def _attention(query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any) -> int:
    """Scores and their product with the values; masked entries count (as in torch's formula for CUDA)."""
    b, h, rows, width = query.shape
    return 2 * b * h * rows * key.shape[-2] * (width + value.shape[-1])


def _attention_backward(_: Tensor, query: Tensor, key: Tensor, value: Tensor, *__: Any, **___: Any) -> int:
    """The scores once more, and the gradients of scores, queries, keys and values."""
    b, h, rows, width = query.shape
    return 2 * b * h * rows * key.shape[-2] * (3 * width + 2 * value.shape[-1])


_FORMULAS: dict[Any, Callable[..., int]] = {
    **flop_registry,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
}


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def _peak_flops(device: torch.device, dtype: torch.dtype) -> float | None:
    if device.type != "cuda" or dtype != torch.bfloat16:
        return None
    name = torch.cuda.get_device_name(device)
    found = [prefix for prefix in PEAK_BF16 if name.startswith(prefix)]
    return PEAK_BF16[max(found, key=len)] if found else None
