"""What the stage's base model computes for examples that come again: computed once, read every time after.

Block outputs, the LM head's input and token log-probs of the base model are a function of its weights and the
token ids. They are computed for a whole fixed chunk of a role's examples at the first need of one of them, so
they do not depend on when they were asked for, nor on the batch; real tokens only, in the dtype they come in.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ..errors import PrerequisiteError
from ..models.memory import free_memory
from .batch import Batch, RoleData
from .chunks import Chunk, cut, padded
from .shelf import Shelf, Where

What = int | Literal["last", "logprobs"]
"""a block's output, the LM head's input, or the log-probs of the tokens"""

Place = Literal["auto", "memory", "disk"]
Compute = Callable[[Batch, What, Mapping[What, Tensor]], Tensor]
"""(batch, what, what is known of the batch) -> [B, T, D], or [B, T] for "logprobs" """

MEMORY_SHARE = 0.25
"""of the memory that is free when keeping begins, for everything that is kept in memory by choice of `auto`"""


@dataclass(frozen=True)
class _Role:
    name: str
    chunks: tuple[Chunk, ...]


class Kept:
    """Base values of the examples of some roles. Values are on `device`; their dtype is the model's, float32 for
    log-probs. Raises `PrerequisiteError` when what would be kept fits nowhere."""

    def __init__(
        self,
        roles: Iterable[RoleData],
        compute: Compute,
        shelf: Shelf,
        place: Place,
        *,
        width: int,
        like: Tensor,
        say: Callable[[str], None],
        warn: Callable[[str], None],
    ) -> None:
        self._compute = compute
        self._shelf = shelf
        self._place = place
        self._width = width
        self._like = like
        self._say = say
        self._warn = warn
        self._home: dict[str, tuple[Chunk, _Role]] = {}
        for data in roles:
            new = [e for e in data.encoded if e.key not in self._home]
            role = _Role(data.role, tuple(cut(new)))
            self._home |= {e.key: (chunk, role) for chunk in role.chunks for e in chunk.encoded}
        self._places: dict[tuple[str, What], Where] = {}
        self._drop_others()
        free = free_memory(torch.device("cpu"))
        self._free = free if free is not None else 0
        self._left = self._free * MEMORY_SHARE

    def get(self, batch: Batch, what: What) -> Tensor | None:
        """[B, T, D] ([B, T] for "logprobs") without autograd; None unless every row is an example of the roles.

        Behind a row's end stand copies of its last vector, 0 for log-probs.
        """
        homes = [self._home.get(key) for key in batch.keys]
        if not homes or None in homes:
            return None
        rows = []
        for key, home in zip(batch.keys, homes, strict=True):
            assert home is not None
            rows.append(self._packed(*home, what)[home[0].spans[key]])
        return padded(rows, repeat=what != "logprobs").to(self._like.device)

    def tokens_kept(self) -> dict[tuple[str, What], int]:
        """{(role, what): tokens} of everything that has been asked for so far; all of a role is kept in the end."""
        tokens: dict[str, int] = {}
        for chunk, role in {id(home[0]): home for home in self._home.values()}.values():
            tokens[role.name] = tokens.get(role.name, 0) + chunk.tokens
        return {(role, what): tokens[role] for role, what in self._places}

    def _packed(self, chunk: Chunk, role: _Role, what: What) -> Tensor:
        """[N, D] (or [N]) of a chunk's real tokens, on the CPU."""
        place = self._places.get((role.name, what)) or self._choose(role, what)
        name = _name(what, chunk)
        found = self._shelf.get(name, place, self._warn)
        if found is not None:
            return found
        known = self._known(chunk, role, what)

        def build() -> Tensor:
            with torch.no_grad():
                return chunk.pack(self._compute(chunk.batch().to(self._like.device), what, known))

        return self._shelf.make(name, place, build)

    def _known(self, chunk: Chunk, role: _Role, what: What) -> dict[What, Tensor]:
        """The deepest thing that is kept for the role, to go on from: the same bits as from the start."""
        below = [w for r, w in self._places if r == role.name and _depth(w) < _depth(what)]
        if not below:
            return {}
        deepest = max(below, key=_depth)
        return {deepest: chunk.unpack(self._packed(chunk, role, deepest)).to(self._like.device)}

    def _choose(self, role: _Role, what: What) -> Where:
        """Memory or disk for one thing of one role, said before anything is computed."""
        place = self._place
        each = 4 if what == "logprobs" else self._width * self._like.dtype.itemsize
        size = each * sum(chunk.tokens for chunk in role.chunks)
        missing = each * sum(c.tokens for c in role.chunks if _name(what, c) not in self._shelf.memory)
        if place == "auto":
            place = "memory" if missing <= self._left or self._shelf.folder is None else "disk"
        if place == "memory":
            self._check_room(missing, self._free, "memory")
            self._free -= missing
            self._left -= missing
        else:
            new = sum(each * c.tokens for c in role.chunks if not self._shelf.path(_name(what, c)).exists())
            self._check_room(new, self._free_disk(), "disk")
        self._say(f"keeping {_words(what)} of the base model for {role.name!r}: {_size(size)}, in {_WHERE[place]}")
        self._places[role.name, what] = place
        return place

    def _free_disk(self) -> int:
        folder = self._shelf.path("x").parent
        folder.mkdir(parents=True, exist_ok=True)
        return shutil.disk_usage(folder).free

    def _check_room(self, size: int, free: int, where: Where) -> None:
        if free and size > free:
            raise PrerequisiteError(
                f"keeping activations needs {_size(size)} and {_size(free)} of {where} are free",
                code="keep",
                hint="set `keep: off` in the stage, or make room",
            )

    def _drop_others(self) -> None:
        """Of a shelf in memory that other stages have used, what belongs to none of these examples goes."""
        mine = {chunk.name for chunk, _ in self._home.values()}
        for name in [n for n in self._shelf.memory if n.rpartition("-")[2] not in mine]:
            del self._shelf.memory[name]


_WHERE = {"memory": "memory", "disk": "files"}


def _depth(what: What) -> tuple[int, int]:
    """Order of computation."""
    return (0, what) if isinstance(what, int) else (1, ("last", "logprobs").index(what))


def _name(what: What, chunk: Chunk) -> str:
    return f"{f'block{what}' if isinstance(what, int) else what}-{chunk.name}"


def _words(what: What) -> str:
    if isinstance(what, int):
        return f"block {what}'s output"
    return {"last": "the last hidden state", "logprobs": "token log-probs"}[what]


def _size(size: float) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"
