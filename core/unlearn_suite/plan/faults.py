"""Everything that is wrong, gathered while a plan is read, so that all of it can be told at once."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import TYPE_CHECKING

from ..errors import PLUGIN, PlanError, PlanErrors, SuiteError

if TYPE_CHECKING:
    from .text import Mark


def suggest(word: str, known: Iterable[str], *, all_of_them: str = "") -> str:
    """ "did you mean 'x'?" for a near miss; else, with `all_of_them`, the list of what there is."""
    names = sorted(set(known))
    near = difflib.get_close_matches(word, names, n=1, cutoff=0.6)
    if near:
        return f"did you mean {near[0]!r}?"
    if all_of_them and names:
        return f"{all_of_them}: {', '.join(names)}"
    return ""


class Faults:
    """A list of plan errors with their places."""

    def __init__(self) -> None:
        self._found: list[tuple[tuple[str, int, int], SuiteError]] = []

    def __len__(self) -> int:
        return len(self._found)

    def add(self, at: Mark | str, message: str, code: str, hint: str = "") -> None:
        """Note one fault."""
        error = PlanError(message, code=code, where=str(at), hint=hint)
        self._found.append((_place(at), error))

    def adopt(self, at: Mark | str, error: SuiteError) -> None:
        """Note an error that another room raised, at the place of the plan that led to it."""
        noted = PlanError(error.message, code=error.code, where=str(at), hint=error.hint)
        if error.code != "plugin-unknown":
            noted.exit_code = error.exit_code
        self._found.append((_place(at), noted))

    def stop(self, main_file: str) -> None:
        """Raise everything found so far, if anything, in the order of the file; the plan's own file first."""
        if not self._found:
            return
        seen: set[tuple[str, str]] = set()
        errors = []
        for _, error in sorted(self._found, key=lambda item: (item[0][0] != main_file, item[0])):
            told = (error.where, error.message)  # an arm made with `like` repeats its parent's errors
            if told not in seen and isinstance(error, PlanError):
                seen.add(told)
                errors.append(error)
        failure = PlanErrors(errors)
        if all(error.exit_code == PLUGIN for error in errors):
            failure.exit_code = PLUGIN
        raise failure


def _place(at: Mark | str) -> tuple[str, int, int]:
    return (at, 0, 0) if isinstance(at, str) else (at.file, at.line, at.col)
