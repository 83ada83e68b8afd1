"""Running a plugin's code so that whatever goes wrong in it bears the plugin's name and place."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

from ..errors import PluginError, PrerequisiteError, SuiteError
from ..specs import ProblemSpec
from .entry import Entry
from .frames import describe, last_frame, package_roots, plugin_frame
from .machine import used_up

DEBUG_HINT = "correct it, or report it to the plugin's author; --debug shows the traceback"


def load_target(target: str) -> Any:
    """The object of "package.module:name". Raises `PluginError` with the place in the author's code, and
    `PrerequisiteError` when the machine has run out of memory.

    A package that is missing is told by the error's cause, from which `blame` makes a hint to install it.
    """
    module_name, _, name = target.partition(":")
    try:
        module = importlib.import_module(module_name)
    except (KeyboardInterrupt, SuiteError):
        raise
    except BaseException as error:
        if found := used_up(error, target):
            raise found from error
        where = last_frame(error, package_roots(module_name.partition(".")[0])) or target
        message = f"{target!r} cannot be loaded: {describe(error)}"
        raise PluginError(message, code="plugin-load", where=where, hint=DEBUG_HINT) from error
    try:
        return getattr(module, name)
    except AttributeError as error:
        where = getattr(module, "__file__", None) or module_name
        message = f"{target!r} cannot be loaded: module {module_name!r} has no {name!r}"
        hint = "correct the name in the plugin's spec"
        raise PluginError(message, code="plugin-load", where=where, hint=hint) from error


@contextmanager
def blame(entry: Entry) -> Iterator[None]:
    """Turn any exception but a `SuiteError` that is raised inside into that plugin's `PluginError`.

    Memory or a disk that is used up becomes a `PrerequisiteError`, for no plugin is to blame for it; so does a package
    that is missing when the entry names an extra that brings it.
    """
    try:
        yield
    except (KeyboardInterrupt, GeneratorExit):
        raise
    except SuiteError as error:
        _raise_missing_extra(error.__cause__, entry)
        raise
    except BaseException as error:
        _raise_missing_extra(error, entry)
        name = f"{entry.kind} {entry.spec.name!r}"
        if found := used_up(error, name):
            raise found from error
        frame = plugin_frame(error, entry)
        where = f"{entry.distribution}, {frame}" if frame else entry.distribution
        message = f"{name} raised {describe(error)}"
        raise PluginError(message, code="plugin-raised", where=where, hint=DEBUG_HINT) from error


def _raise_missing_extra(error: BaseException | None, entry: Entry) -> None:
    if not isinstance(error, ModuleNotFoundError) or not error.name:
        return
    if isinstance(entry.spec, ProblemSpec) or not entry.spec.extras:
        return
    if package_roots(error.name.partition(".")[0]):
        return  # the package is there, one of its modules is not: no extra will help
    raise _missing(error.name, entry.distribution, entry.spec.extras) from error


def require_extra(module: str, extra: str | Entry, distribution: str = "unlearn-suite") -> ModuleType:
    """Import and return `module`, which an optional extra of a distribution brings.

    `extra` is the extra's name, or an entry whose spec names it. Raises `PrerequisiteError` with the
    command that installs it.
    """
    extras: tuple[str, ...] = (extra,) if isinstance(extra, str) else ()
    if isinstance(extra, Entry):
        distribution = extra.distribution
        extras = () if isinstance(extra.spec, ProblemSpec) else extra.spec.extras
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise _missing(module, distribution, extras) from error


def _missing(module: str, distribution: str, extras: tuple[str, ...]) -> PrerequisiteError:
    wanted = f'"{distribution}[{",".join(extras)}]"' if extras else module
    message = f"the package {module.partition('.')[0]!r} is not installed"
    return PrerequisiteError(message, code="missing-extra", where=distribution, hint=f"pip install {wanted}")
