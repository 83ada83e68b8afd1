"""What blocks do without autograd, noted once: another call of the same shapes leaves a copy of the same notes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.utils._python_dispatch import _disable_current_modes

from .record import Recorder, signature


@dataclass(frozen=True)
class _Stamp:
    """A piece of a tape, its allocations numbered from 0, of which one is left: the output, number `left`."""

    names: list[str]
    sizes: list[int]
    moves: list[int]
    flops: list[tuple[str, int]]
    left: int


class Stamps:
    """Runs blocks so that they compute nothing: each hands on its input, with a turn of the dimensions, so that no two
    say the same. All that they would do is noted."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._known: dict[Any, _Stamp | None] = {}
        self._kinds: dict[Any, int] = {}

    def kind(self, modules: Sequence[nn.Module]) -> int:
        """Equal for blocks, given as their modules, that differ in nothing but their place and their weights."""
        found = tuple((type(m), *sorted((k, v) for k, v in vars(m).items() if _is_plain(k, v))) for m in modules)
        return self._kinds.setdefault(found, len(self._kinds))

    def run(
        self, kind: Any, block: Callable[..., Any], h: Tensor, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> Any:
        """`block(h, ...)`. Blocks of one `kind` do the same where shapes are the same."""
        key = kind, signature((h, *args)), signature(kwargs.items())
        with _disable_current_modes():
            turned = h.roll(1, -1)
        if (stamp := self._known.get(key)) is not None:
            self._copy(stamp, turned)
            return turned
        tape = self._recorder.tape
        places = len(tape.sizes), len(tape.moves), len(tape.flops)
        with self._recorder.sizes_only():
            result = block(h, *args, **kwargs)
        out = result[0] if isinstance(result, tuple) else result
        if out is result and key not in self._known:
            self._known[key] = self._cut(out, turned, *places)
        with _disable_current_modes():
            out.copy_(turned)
        return result

    def _cut(self, out: Tensor, like: Tensor, first: int, moves: int, flops: int) -> _Stamp | None:
        """What was noted since these places; None where more is left of it than an output laid out as `like`."""
        tape, left = self._recorder.tape, self._recorder.number(out)
        noted = tape.moves[moves:]
        ended = {-m for m in noted if m < 0}
        alone = {m for m in noted if m > 0} - ended == {left + 1} and min(ended, default=first + 1) > first
        if not alone or (out.shape, out.stride(), out.dtype) != (like.shape, like.stride(), like.dtype):
            return None
        return _Stamp(
            names=tape.names[first:],
            sizes=tape.sizes[first:],
            moves=[m - first if m > 0 else m + first for m in noted],
            flops=[(name, count // self._recorder.times) for _, name, count in tape.flops[flops:]],
            left=left - first,
        )

    def _copy(self, stamp: _Stamp, out: Tensor) -> None:
        tape = self._recorder.tape
        first = len(tape.sizes)
        tape.names += stamp.names
        tape.sizes += stamp.sizes
        tape.moves += [m + first if m > 0 else m - first for m in stamp.moves]
        for name, count in stamp.flops:
            self._recorder.count(name, count)
        self._recorder.watch(out, first + stamp.left)


def _is_plain(name: str, value: Any) -> bool:
    return name != "layer_idx" and isinstance(value, bool | int | float | str)


def parts_of(modules: Sequence[nn.Module]) -> Any:
    """Shapes of the parameters that a block, given as its modules, has now: an attack lends it adapters."""
    return tuple(p.shape for m in modules for p in m._parameters.values() if p is not None)
