"""Arms that are swept: one arm for each value, or each combination of values, of some keys of its stages."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from itertools import product
from typing import Any

from .text import Node

MOST_POINTS = 200
LONGEST = 64


def sweep_points(arm: str, sweep: Mapping[str, Node]) -> Iterator[tuple[str, dict[str, Node]]]:
    """(name of the arm, {path: value}) for every combination, the last key changing fastest.

    Names are like `cosine-rmu.retain_weight-10`; values that read alike get a number behind them.
    """
    keys = _short_names(list(sweep))
    taken: set[str] = set()
    for values in product(*(node.items for node in sweep.values())):
        parts = [f"{key}-{_word(value.plain())}" for key, value in zip(keys, values, strict=True)]
        name = ".".join([arm, *parts])[:LONGEST]
        if name in taken:
            tail = f"-{len(taken)}"
            name = name[: LONGEST - len(tail)] + tail
        taken.add(name)
        yield name, dict(zip(sweep, values, strict=True))


def _short_names(paths: list[str]) -> list[str]:
    """The last word of each path, or the whole path where two end alike."""
    ends = [path.rpartition(".")[2] for path in paths]
    chosen = [end if ends.count(end) == 1 else path for end, path in zip(ends, paths, strict=True)]
    return [_clean(name) for name in chosen]


def _word(value: Any) -> str:
    """A value as a part of a label."""
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "none"}[value]
    if isinstance(value, list):
        return _clean("-".join(map(_word, value)))
    if isinstance(value, float):
        return _clean(re.sub(r"e\+0*", "e", f"{value:g}"))
    return _clean(str(value))


def _clean(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", text)
