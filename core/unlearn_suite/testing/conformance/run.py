"""Running checks: every exception becomes an outcome, and the sheet's lists are applied."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from ...errors import PlanError, SuiteError
from ...plugins import load_catalog, plugin_frame
from ...plugins.frames import describe
from . import attacks, datasets, loading, metrics, objectives, options, problems
from .check import AREAS, CHECKS, Check, CheckFailed, Result, Skipped
from .subject import Subject, config_of, find_subjects

assert all((attacks, datasets, loading, metrics, objectives, options, problems))  # they register the checks


def planned(name: str, files: Sequence[Path] = (), only: Iterable[str] = ()) -> Iterator[tuple[Check, Subject]]:
    """The checks that a plugin, or one entry, is put to. `only`: ids or patterns such as `OBJ-*`.

    Raises `PlanError` for an unknown name or id, `PlanErrors` for a sheet that is wrong.
    """
    patterns = tuple(only)
    for pattern in patterns:
        if not any(fnmatchcase(identity, pattern) for identity in CHECKS):
            raise PlanError(
                f"there is no check {pattern!r}", code="check-unknown", hint=f"there are {', '.join(CHECKS)}"
            )
    for subject in find_subjects(load_catalog(files), name, files):
        for one in sorted(CHECKS.values(), key=lambda one: AREAS.index(one.area)):
            chosen = not patterns or any(fnmatchcase(one.id, pattern) for pattern in patterns)
            if chosen and _fits(one, subject):
                yield one, subject


def _fits(one: Check, subject: Subject) -> bool:
    if one.area == "options":
        return config_of(subject) is not None
    return one.area == subject.area


def run_check(one: Check, subject: Subject, expected: Mapping[str, str] | None = None) -> Result:
    """Run one check. `expected` adds to the sheet's expected failures. Only Ctrl-C is raised."""
    words = subject.told.words
    for pattern, reason in words.unavailable.items():
        if fnmatchcase(one.id, pattern):
            return Result(one.id, subject.label, one.summary, "skipped", reason)
    why = {**words.expected, **(expected or {})}.get(one.id)
    outcome, message = _outcome(one, subject)
    if why is not None and outcome == "failed":
        return Result(one.id, subject.label, one.summary, "expected", f"{why} ({message})")
    if why is not None and outcome == "passed":
        message = f"it passes; take it out of the expected failures ({why})"
        return Result(one.id, subject.label, one.summary, "unexpected", message)
    return Result(one.id, subject.label, one.summary, outcome, message)  # type: ignore[arg-type]


def _outcome(one: Check, subject: Subject) -> tuple[str, str]:
    try:
        one.run(subject)
    except KeyboardInterrupt:
        raise
    except Skipped as reason:
        return "skipped", str(reason)
    except CheckFailed as failure:
        return "failed", str(failure)
    except SuiteError as error:
        return "failed", str(error)
    except BaseException as error:
        frame = plugin_frame(error, subject.entry) if subject.entry else ""
        return "failed", f"it raised {describe(error)}" + (f" at {frame}" if frame else "")
    return "passed", ""


def run(name: str, files: Sequence[Path] = (), only: Iterable[str] = ()) -> Iterator[Result]:
    """Results of all checks of a plugin or an entry, as they come."""
    for one, subject in planned(name, files, only):
        yield run_check(one, subject)
