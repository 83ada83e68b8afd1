"""Every allocation and every counted operator of a piece of work, in order."""

from __future__ import annotations

import functools
import gc
import weakref
from collections import defaultdict, deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter, tree_map_only

from ..accounting import operator_flops
from .heap import Heap
from .scale import Scale

# Operators whose kernel holds one more copy of its first argument while it runs.
_INNER_COPY = {torch.ops.aten.logsumexp.default}


class TwinsDiffer(Exception):
    """The work did not do the same on both twins, so its sizes cannot be compared."""


@dataclass
class Tape:
    """What was noted. `moves`: n + 1 for the allocation number n, -(n + 1) for its end; `phases`: the place in
    `moves` at which a phase begins, and its name; `flops`: (phase, operator, FLOPs)."""

    names: list[str] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    moves: list[int] = field(default_factory=list)
    phases: list[tuple[int, str]] = field(default_factory=list)
    flops: list[tuple[str, str, int]] = field(default_factory=list)


class Recorder(TorchDispatchMode):
    """Notes the storages that operators make inside, and when each is given back."""

    supports_higher_order_operators = True

    def __init__(self) -> None:
        super().__init__()
        self.tape = Tape()
        self._alive: dict[int, tuple[int, Any]] = {}
        self._phase = ""
        self._computes = True
        self._outputs: dict[Any, Any] = {}

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Name what happens inside; what happens after it has no name."""
        self._begin(name)
        try:
            yield
        finally:
            self._begin("")

    @contextmanager
    def sizes_only(self) -> Iterator[None]:
        """Operators inside are noted all the same, but most compute nothing: their results have any values."""
        before, self._computes = self._computes, False
        try:
            yield
        finally:
            self._computes = before

    @contextmanager
    def flops_apart(self, name: str) -> Iterator[None]:
        """FLOPs inside count for the phase `name`, memory for the one that it is."""
        before, self._phase = self._phase, name
        try:
            yield
        finally:
            self._phase = before

    def _begin(self, name: str) -> None:
        self._phase = name
        self.tape.phases.append((len(self.tape.moves), name))

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs) if self._computes else self._blank(func, args, kwargs)
        if func in _INNER_COPY:
            self._note(f"{func} inside", args[0].numel() * args[0].element_size())
            self.tape.moves.append(-len(self.tape.sizes))
        if not _aliases(func):  # a view of what was there before the recording is not an allocation
            for tensor in (out,) if isinstance(out, Tensor) else tree_iter(out):
                if isinstance(tensor, Tensor):
                    self._output(str(func), tensor)
        if flops := operator_flops(func, args, kwargs, out):
            self.tape.flops.append((self._phase, str(func), flops))
        return out

    def _blank(self, func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """What an operator returns, not computed. One that returns other things than new floating-point tensors is."""
        key = (func, *map(_kind, tree_iter((args, kwargs))))
        if key not in self._outputs:
            self._outputs[key] = None if _aliases(func) else _output_on_meta(func, args, kwargs)
        if (like := self._outputs[key]) is None:
            return func(*args, **kwargs)
        return tree_map_only(Tensor, lambda t: torch.empty_strided(t.shape, t.stride(), dtype=t.dtype), like)

    def _output(self, name: str, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key not in self._alive:
            number = self._note(name, storage.nbytes())
            self._alive[key] = number, weakref.ref(storage, lambda _: self._free(key))

    def _note(self, name: str, size: int) -> int:
        number = len(self.tape.sizes)
        self.tape.names.append(name)
        self.tape.sizes.append(size)
        self.tape.moves.append(number + 1)
        return number

    def _free(self, key: int) -> None:
        self.tape.moves.append(-(self._alive.pop(key)[0] + 1))


@functools.cache
def _aliases(func: Any) -> bool:
    """Whether an operator hands on memory of its arguments."""
    return any(returned.alias_info is not None for returned in func._schema.returns)


def _output_on_meta(func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """None when it depends on more than the arguments' shapes, or is not of new floating-point tensors alone."""
    given = tree_map_only(Tensor, _on_meta, (args, kwargs))
    try:
        out = func(*given[0], **given[1])
    except (NotImplementedError, RuntimeError):
        return None
    theirs = {t.untyped_storage()._cdata for t in tree_iter(given) if isinstance(t, Tensor)}
    new = all(
        isinstance(t, Tensor) and t.is_floating_point() and t.untyped_storage()._cdata not in theirs
        for t in tree_iter(out)
    )
    return out if new else None


def _on_meta(tensor: Tensor) -> Tensor:
    return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device="meta")


def _kind(value: Any) -> Any:
    return (value.shape, value.stride(), value.dtype) if isinstance(value, Tensor) else value


@contextmanager
def no_collection() -> Iterator[None]:
    """When garbage is collected must not depend on the twin. What there is already is not looked at again."""
    was = gc.isenabled()
    gc.disable()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
        if was:
            gc.enable()


@dataclass(frozen=True)
class Measured:
    """At full width, by phase: most bytes in use at once, most bytes that a process on Linux keeps resident for them,
    and FLOPs. `doubtful`: the largest share of a phase's peak whose widths are not known."""

    peak: Mapping[str, float]
    resident: Mapping[str, float]
    flops: Mapping[str, float]
    doubtful: float


def play(tapes: Sequence[Tape], scale: Scale) -> Measured:
    """Play the tapes of the two twins back at full width. Raises `TwinsDiffer`."""
    a, b = tapes
    if a.names != b.names or [f[:2] for f in a.flops] != [f[:2] for f in b.flops]:
        raise TwinsDiffer(f"it runs other operators when the model's width changes ({_first_difference(a, b)})")
    sizes = [scale.full(x, y) for x, y in zip(a.sizes, b.sizes, strict=True)]
    flops: dict[str, float] = defaultdict(float)
    for (phase, _, x), (_, _, y) in zip(a.flops, b.flops, strict=True):
        flops[phase] += scale.full(x, y)[0]
    peak: dict[str, float] = defaultdict(float)
    resident: dict[str, float] = defaultdict(float)
    phases, phase, heap = deque(a.phases), "", Heap()
    now = doubt = worst = 0.0
    for place, move in enumerate([*a.moves, 0]):
        while phases and phases[0][0] == place:
            phase = phases.popleft()[1]
            peak[phase] = max(peak[phase], now)
            resident[phase] = max(resident[phase], heap.resident)
        if not move:
            break
        number = abs(move) - 1
        size, sure = sizes[number]
        if move > 0:
            heap.take(number, round(size))
        else:
            heap.give(number)
            size = -size
        now += size
        doubt += 0.0 if sure else size
        resident[phase] = max(resident[phase], heap.resident)
        if now > peak[phase]:
            peak[phase] = now
            worst = max(worst, doubt / max(now, 1.0))
    return Measured(dict(peak), dict(resident), dict(flops), worst)


def _first_difference(a: Tape, b: Tape) -> str:
    names = zip(a.names, b.names, strict=False)
    place = next((i for i, (x, y) in enumerate(names) if x != y), min(len(a.names), len(b.names)))
    found = [t.names[place] if place < len(t.names) else "nothing" for t in (a, b)]
    return f"{found[0]} against {found[1]}, allocation {place}"
