"""One pytest test per check."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from .check import Check
from .run import planned, run_check
from .subject import Subject


def tests(
    name: str,
    *,
    files: Sequence[Path] = (),
    only: Iterable[str] = (),
    expected_failures: Mapping[str, str] | None = None,
) -> Callable[..., None]:
    """A pytest test function with one case per check, to be assigned to a name that begins with `test`.

    `name`: a plugin, or one of the things it brings; `files`: plugin files to load. `expected_failures`: check
    id -> reason; such a check must fail. Skipped checks are skipped with their reason.
    """
    import pytest

    cases = list(planned(name, files, only))

    @pytest.mark.parametrize(("one", "subject"), cases, ids=[_identity(*case) for case in cases])
    def conformance(one: Check, subject: Subject) -> None:
        result = run_check(one, subject, expected_failures)
        if result.outcome == "skipped":
            pytest.skip(result.message)
        if result.outcome == "expected":
            pytest.xfail(result.message)
        if not result.ok:
            pytest.fail(f"{result.id} of {result.subject}: {result.message}", pytrace=False)

    function: Any = conformance
    function.__doc__ = f"What {name} promises."
    return conformance


def _identity(one: Check, subject: Subject) -> str:
    return f"{subject.label.replace(' ', '/')}-{one.id}"


tests.__test__ = False  # type: ignore[attr-defined]  # pytest would take it for a test where it is imported
