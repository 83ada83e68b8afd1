"""How much memory a Linux process keeps for its tensors: glibc's malloc, as far as resident bytes are concerned.

Torch hands every CPU tensor to malloc. A large one gets pages of its own, which go back to the system when it is freed;
a smaller one lies on the heap, where a hole stays resident until something fits into it. What is large changes:
the threshold begins at 128 KB and rises to the size of every chunk of pages that is freed, up to 32 MB
(malloc(3), M_MMAP_THRESHOLD). The heap's end is given back when more than twice the threshold is free there. Torch asks
for aligned memory, and a hole serves such a request only if it is larger by `_SLACK`: the hole that a tensor
leaves is too small for the next tensor of the same size.
"""

from __future__ import annotations

from bisect import bisect_left, insort

_FIRST = 128 * 1024
_MOST = 32 * 2**20
_SLACK = 64 + 32
_HEAD = 16


class Heap:
    """`resident`: bytes that are in memory now."""

    def __init__(self) -> None:
        self.resident = 0
        self._threshold = _FIRST
        self._top = 0
        self._paged: dict[int, int] = {}
        self._placed: dict[int, tuple[int, int]] = {}
        self._holes: list[tuple[int, int]] = []  # (size, start), sorted
        self._starts: dict[int, int] = {}
        self._ends: dict[int, int] = {}

    def take(self, key: int, size: int) -> None:
        """Allocate `size` bytes under a key that is not in use."""
        if size >= self._threshold:
            self._paged[key] = size
            self.resident += size
            return
        at = bisect_left(self._holes, (size + _SLACK, -1))
        size += _HEAD
        if at < len(self._holes):  # the smallest hole that is large enough
            length, start = self._holes[at]
            self._remove(length, start)
            if length > size:
                self._add(length - size, start + size)
        else:
            start = self._top
            self._top += size
            self.resident += size
        self._placed[key] = start, size

    def give(self, key: int) -> None:
        """Free what was taken under a key."""
        if (size := self._paged.pop(key, None)) is not None:
            self.resident -= size
            if self._threshold < size <= _MOST:
                self._threshold = size
            return
        start, size = self._placed.pop(key)
        if not size:
            return
        if (before := self._ends.get(start)) is not None:
            length = start - before
            self._remove(length, before)
            start, size = before, size + length
        if (length := self._starts.get(start + size, 0)) > 0:
            self._remove(length, start + size)
            size += length
        if start + size == self._top and size > 2 * self._threshold:
            self._top = start
            self.resident -= size
        else:
            self._add(size, start)

    def _add(self, size: int, start: int) -> None:
        insort(self._holes, (size, start))
        self._starts[start] = size
        self._ends[start + size] = start

    def _remove(self, size: int, start: int) -> None:
        del self._holes[bisect_left(self._holes, (size, start))]
        del self._starts[start]
        del self._ends[start + size]
