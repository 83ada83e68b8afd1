"""Every allocation and every counted operator of a piece of work, in order."""

from __future__ import annotations

import gc
import weakref
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter, tree_map_only

from ..accounting import operator_formula
from .heap import Heap
from .scale import Scale

_INNER_COPY = {torch.ops.aten.logsumexp.default}


class TwinsDiffer(Exception):
    """The work did not do the same on both twins, so its sizes cannot be compared."""


@dataclass
class Tape:
    """What was noted. `moves`: n + 1 for the allocation number n, -(n + 1) for its end; `phases`: the place in
    `moves` at which a phase begins, and its name; `flops`: (phase, operator, FLOPs); `again`: from where to where
    `moves` come again in reality."""

    names: list[str] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    moves: list[int] = field(default_factory=list)
    phases: list[tuple[int, str]] = field(default_factory=list)
    flops: list[tuple[str, str, int]] = field(default_factory=list)
    again: list[tuple[int, int]] = field(default_factory=list)

    def played(self) -> Iterator[tuple[str, int]]:
        """(phase, move) in order; what comes again twice, but for what is left of the first time. Move 0 begins a
        phase. A number that was ended is used again."""
        phases, phase, ends = deque(self.phases), "", {end: start for start, end in self.again}
        for place, move in enumerate([*self.moves, 0]):
            if place in ends:
                piece = self.moves[ends[place] : place]
                passing = {m for m in piece if m > 0} & {-m for m in piece if m < 0}
                yield from ((phase, m) for m in piece if abs(m) in passing)
            while phases and phases[0][0] == place:
                phase = phases.popleft()[1]
                yield phase, 0
            if move:
                yield phase, move


class _Seen(weakref.ref[Any]):
    """A storage that was noted: its address and the number of its allocation."""

    __slots__ = ("key", "number")
    key: int
    number: int


@dataclass(frozen=True)
class _Operator:
    """What is known of an operator before it is called. `aliases`: it hands on memory of its arguments; `copies`: its
    kernel holds one more copy of the first while it runs."""

    name: str
    aliases: bool
    copies: bool
    flops: Callable[..., Any] | None

    @staticmethod
    def of(func: Any) -> _Operator:
        aliases = any(returned.alias_info is not None for returned in func._schema.returns)
        return _Operator(str(func), aliases, func in _INNER_COPY, operator_formula(func))


class Recorder(TorchDispatchMode):
    """Notes the storages that operators make inside, and when each is given back. FLOPs count `times` times."""

    times = 1
    supports_higher_order_operators = True

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Nothing is compiled under it, and torch's guard against that takes as long as the noting."""
        return False

    def __init__(self) -> None:
        super().__init__()
        self.tape = Tape()
        self._operators: dict[int, _Operator] = {}
        self._alive: dict[int, _Seen] = {}
        self._phase = ""
        self._computes = True
        self._outputs: dict[Any, Any] = {}
        self._flops: dict[Any, int] = {}

    @contextmanager
    def phase(self, name: str, again: bool = False) -> Iterator[None]:
        """Name what happens inside, which may come again; what happens after it has no name."""
        start = len(self.tape.moves)
        self._begin(name)
        try:
            yield
        finally:
            if again:
                self.tape.again.append((start, len(self.tape.moves)))
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
        operator = self._operators.get(id(func))  # an operator is never freed; its own hash is slow
        if operator is None:
            operator = self._operators[id(func)] = _Operator.of(func)
        runs = self._computes or operator.aliases
        key = None
        if operator.flops is not None or not runs:
            key = id(func), signature(args), signature(kwargs.items())
        out = func(*args, **kwargs) if runs else self._blank(key, func, args, kwargs)
        if operator.copies:
            self._note(f"{operator.name} inside", args[0].numel() * args[0].element_size())
            self.tape.moves.append(-len(self.tape.sizes))
        if not operator.aliases:  # a view of what was there before the recording is not an allocation
            for tensor in (out,) if type(out) is Tensor else tree_iter(out):
                if isinstance(tensor, Tensor):
                    self._output(operator.name, tensor)
        if operator.flops is not None:
            if key not in self._flops:
                self._flops[key] = int(operator.flops(*args, **kwargs, out_val=out))
            self.count(operator.name, self._flops[key])
        return out

    def _blank(self, key: Any, func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """What an operator returns, not computed. One that returns other things than new floating-point tensors is."""
        if key not in self._outputs:
            self._outputs[key] = _output_on_meta(func, args, kwargs)
        if (like := self._outputs[key]) is None:
            return func(*args, **kwargs)
        return _empty(like) if isinstance(like, Tensor) else tree_map_only(Tensor, _empty, like)

    def count(self, name: str, flops: int) -> None:
        """Note FLOPs of an operator."""
        if flops:
            self.tape.flops.append((self._phase, name, flops * self.times))

    def watch(self, tensor: Tensor, number: int) -> None:
        """Note when the memory of a tensor is given back: it is allocation `number`."""
        storage = tensor.untyped_storage()
        seen = self._alive[storage._cdata] = _Seen(storage, self._free)
        seen.key, seen.number = storage._cdata, number

    def number(self, tensor: Tensor) -> int:
        """Which allocation its memory is; -1 for one from before the recording."""
        seen = self._alive.get(tensor.untyped_storage()._cdata)
        return seen.number if seen else -1

    def _output(self, name: str, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        if storage._cdata not in self._alive:
            self.watch(tensor, self._note(name, storage.nbytes()))

    def _note(self, name: str, size: int) -> int:
        number = len(self.tape.sizes)
        self.tape.names.append(name)
        self.tape.sizes.append(size)
        self.tape.moves.append(number + 1)
        return number

    def _free(self, seen: _Seen) -> None:
        del self._alive[seen.key]
        self.tape.moves.append(-(seen.number + 1))


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


def _empty(like: Tensor) -> Tensor:
    return torch.empty_strided(like.shape, like.stride(), dtype=like.dtype)


def signature(values: Iterable[Any]) -> tuple[Any, ...]:
    """What shapes and FLOPs of an operator's results depend on: equal for arguments of equal shapes."""
    return tuple(
        (v.shape, v.stride(), v.dtype)
        if isinstance(v, Tensor)
        else signature(v)
        if isinstance(v, list | tuple)
        else (type(v), v)
        for v in values
    )


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
    heap, now, doubt, worst = Heap(), 0.0, 0.0, 0.0
    for phase, move in a.played():
        if not move:
            peak[phase] = max(peak[phase], now)
            resident[phase] = max(resident[phase], heap.resident)
            continue
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
