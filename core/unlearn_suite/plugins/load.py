"""One candidate -> one report, whatever its code does."""

from __future__ import annotations

import contextlib
import io
import sys
import warnings
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace
from time import perf_counter
from typing import Any

import pluggy
from pydantic import ValidationError

from .. import __version__, hookspecs
from ..specs import (
    AttackConfig,
    AttackSpec,
    Config,
    DatasetSpec,
    MetricSpec,
    ObjectiveSpec,
    ProblemSpec,
    Spec,
    Train,
    ValueSpec,
)
from .entry import Entry, PluginReport, Status
from .frames import describe, last_frame, target_roots
from .hooks import HookFault, check_hooks
from .source import ALLOW_VARIABLE, HOST, Candidate

SPEC_TYPES: dict[str, type[Any]] = {
    "register_objectives": ObjectiveSpec,
    "register_datasets": DatasetSpec,
    "register_metrics": MetricSpec,
    "register_problems": ProblemSpec,
    "register_attacks": AttackSpec,
}


@dataclass(frozen=True)
class Loaded:
    """A plugin that has been tried. `entries` and `manager` (its observers) are empty unless it is ok."""

    report: PluginReport
    entries: tuple[Entry, ...] = ()
    manager: pluggy.PluginManager | None = None


class _Refused(Exception):
    """The plugin is no good, and this says why better than an exception of its own would."""

    def __init__(self, status: Status, message: str, action: str, where: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.action = action
        self.where = where


def load_plugin(candidate: Candidate, taken: Collection[tuple[str, str]]) -> Loaded:
    """Load a plugin. `taken` holds (kind, qualified name) of what is registered already.

    Only Ctrl-C leaves this function as an exception. What a plugin that fails has registered is dropped.
    """
    specs: list[Spec] = []
    printed = io.StringIO()
    had_torch = "torch" in sys.modules
    started = perf_counter()
    report = PluginReport(
        "broken",
        candidate.distribution,
        candidate.version,
        candidate.entry_point,
        candidate.target,
        roots=candidate.roots,
    )
    manager = None
    retired: list[str] = []
    try:
        with contextlib.redirect_stdout(printed), _deprecations(retired):
            manager = _bring_in(candidate, specs)
            entries = _entries(candidate, specs, taken)
        names = tuple(entry.qualified for entry in entries)
        report = replace(report, status="ok", provides=names)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        report, entries, manager = _failed(report, candidate, error), (), None
    report = replace(
        report,
        attempted=tuple(spec.name for spec in specs),
        notes=(*retired, *_notes(printed.getvalue(), not (had_torch or candidate.is_file) and "torch" in sys.modules)),
        seconds=perf_counter() - started,
    )
    return Loaded(report, entries, manager)


def _bring_in(candidate: Candidate, specs: list[Spec]) -> pluggy.PluginManager:
    """Import the plugin, check its hooks, let it register into `specs`. The manager is the plugin's alone."""
    if candidate.off:
        raise _Refused("off", f"{ALLOW_VARIABLE} does not name it", f"add {candidate.entry_point} to it, or unset it")
    if candidate.needs:
        raise _Refused(
            "incompatible",
            f"it needs unlearn-suite {candidate.needs} and this is {__version__}",
            f'pip install -U {candidate.distribution}, or pip install "unlearn-suite{candidate.needs}"',
        )
    plugin = candidate.load()
    check_hooks(plugin)
    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    manager.register(plugin, name=candidate.distribution)
    manager.check_pending()
    if not manager.get_hookcallers(plugin):
        message = "it implements no hook"
        raise _Refused("empty", message, "write a function register_objectives(register) with @hookimpl")
    for hook, spec_type in SPEC_TYPES.items():
        getattr(manager.hook, hook)(register=_registrar(spec_type, specs))
    observes = any(caller.name not in SPEC_TYPES for caller in manager.get_hookcallers(plugin) or ())
    if not specs and not observes:
        raise _Refused("empty", "its hooks register nothing", "call register(...) with a spec in the hook")
    return manager


@contextlib.contextmanager
def _deprecations(found: list[str]) -> Iterator[None]:
    """Gathers what pluggy says of hooks and arguments that are on their way out."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    for warning in caught:
        if issubclass(warning.category, DeprecationWarning) and _is_of_hook(warning):
            found.append(f"uses what will go: {warning.message}")
        else:
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)


def _is_of_hook(warning: warnings.WarningMessage) -> bool:
    return str(warning.message) in {
        str(told)
        for function in vars(hookspecs).values()
        if (options := getattr(function, f"{hookspecs.PROJECT}_spec", None))
        for told in (options.get("warn_on_impl"), *(options.get("warn_on_impl_args") or {}).values())
    }


def _registrar(spec_type: type[Any], specs: list[Spec]) -> Callable[[Any], None]:
    def register(spec: Any) -> None:
        """Take one spec. Raises TypeError or ValueError, on the caller's line, when it is wrong."""
        if not isinstance(spec, spec_type):
            found = f"the class {spec.__name__}" if isinstance(spec, type) else type(spec).__name__
            raise TypeError(f"register expects {spec_type.__name__}(...), found {found}")
        _check_spec(spec)
        if any(other.kind == spec.kind and other.name == spec.name for other in specs):
            raise ValueError(f"{spec.kind} {spec.name!r} is registered twice")
        specs.append(spec)

    return register


def _check_spec(spec: Spec) -> None:
    if isinstance(spec, ProblemSpec):
        return
    if not (isinstance(spec.config, type) and issubclass(spec.config, Config)):
        raise TypeError(f"config of {spec.kind} {spec.name!r} must be a subclass of unlearn_suite.Config")
    if isinstance(spec, AttackSpec) and not issubclass(spec.config, AttackConfig):
        raise TypeError(f"config of attack {spec.name!r} must be a subclass of unlearn_suite.AttackConfig")
    if isinstance(spec.extras, str):
        raise TypeError(f"extras of {spec.kind} {spec.name!r} must be a tuple of names")
    if isinstance(spec, ObjectiveSpec):
        if isinstance(spec.roles, str) or isinstance(spec.optional_roles, str):
            raise TypeError(f"roles of objective {spec.name!r} must be a tuple of names")
        try:
            Train(**spec.train)
        except ValidationError as error:
            first = error.errors()[0]
            key = ".".join(map(str, first["loc"]))
            raise ValueError(f"train[{key!r}] of objective {spec.name!r}: {first['msg']}") from None
    if isinstance(spec, MetricSpec):
        for name, value in spec.values.items():
            if not isinstance(value, ValueSpec):
                raise TypeError(f"values[{name!r}] of metric {spec.name!r} must be a ValueSpec")


def _entries(candidate: Candidate, specs: list[Spec], taken: Collection[tuple[str, str]]) -> tuple[Entry, ...]:
    targets = [spec.load for spec in specs if not isinstance(spec, ProblemSpec)]
    roots = tuple(dict.fromkeys((*candidate.roots, *target_roots(targets))))
    entries = []
    for spec in specs:
        qualified = f"{candidate.distribution}/{spec.name}"
        if (spec.kind, qualified) in taken:
            message = f"{spec.kind} {qualified!r} is registered already by another plugin"
            raise _Refused("duplicate", message, "give one of them another name, or leave one out")
        entries.append(Entry(spec, qualified, candidate.distribution, candidate.version, roots))
    return tuple(entries)


def _failed(report: PluginReport, candidate: Candidate, error: BaseException) -> PluginReport:
    if isinstance(error, _Refused):
        return replace(report, status=error.status, message=error.message, action=error.action, where=error.where)
    if isinstance(error, HookFault):
        return replace(report, message=error.message, action=error.action, where=error.where)
    where = last_frame(error, candidate.roots)
    return replace(report, message=describe(error), where=where, action=candidate.action or _action(candidate, error))


def _action(candidate: Candidate, error: BaseException) -> str:
    if candidate.is_file and not candidate.version:  # it could not even be read
        return "correct the path"
    if candidate.is_file and isinstance(error, ModuleNotFoundError):
        return f"install the package that has {error.name!r}, or correct the file"
    if candidate.is_file:
        return "correct the file"
    name = candidate.distribution
    if name == HOST:
        return "pip install --force-reinstall unlearn-suite"
    if isinstance(error, ModuleNotFoundError):
        return f"install what it needs (pip install {name}), or remove it (pip uninstall {name})"
    return f"update it (pip install -U {name}), report it to its author, or remove it (pip uninstall {name})"


def _notes(printed: str, imported_torch: bool) -> tuple[str, ...]:
    notes = []
    if text := " ".join(printed.split()):
        notes.append(f"prints while it is loaded: {text[:200]!r}")
    if imported_torch:
        notes.append("imports torch while it is loaded, which makes every command slow")
    return tuple(notes)
