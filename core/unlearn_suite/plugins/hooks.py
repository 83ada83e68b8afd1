"""Mistakes in a plugin's hooks that pluggy passes over in silence or tells without a place."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Iterator, Mapping
from types import ModuleType
from typing import Any

from .. import hookspecs
from .frames import place

_SPEC_MARK = f"{hookspecs.PROJECT}_spec"
_IMPL_MARK = f"{hookspecs.PROJECT}_impl"

HOOKS: Mapping[str, tuple[str, ...]] = {
    name: tuple(inspect.signature(function).parameters)
    for name, function in vars(hookspecs).items()
    if hasattr(function, _SPEC_MARK)
}
"""argument names by hook"""


class HookFault(Exception):
    """A hook that would never be called, or not as its author thinks."""

    def __init__(self, message: str, function: Callable[..., Any], action: str) -> None:
        super().__init__(message)
        self.message = message
        self.where = _place_of(function)
        self.action = action


def check_hooks(plugin: Any) -> None:
    """Raise `HookFault` for the first faulty hook of a plugin (a module, or an object with methods)."""
    if inspect.isclass(plugin):
        message = f"the entry point names the class {plugin.__name__!r}"
        raise HookFault(message, plugin, "name a module, or an instance of the class")
    for name, function in _functions(plugin):
        options = getattr(function, _IMPL_MARK, None)
        if options is not None:
            _check_hook(options.get("specname") or name, function, options)
        elif name in HOOKS:
            message = f"{name!r} is named like a hook and is not marked as one"
            raise HookFault(message, function, "write @hookimpl above it")


def _functions(plugin: Any) -> Iterator[tuple[str, Callable[..., Any]]]:
    """Functions by name. A module's own dictionary only: its `__getattr__` may import anything."""
    names = list(vars(plugin)) if isinstance(plugin, ModuleType) else dir(plugin)
    for name in names:
        try:
            value = vars(plugin)[name] if isinstance(plugin, ModuleType) else getattr(plugin, name)
        except Exception:
            continue  # a property that raises is no hook
        if inspect.isroutine(value):
            yield name, value


def _check_hook(name: str, function: Callable[..., Any], options: Mapping[str, Any]) -> None:
    if name not in HOOKS:
        near = difflib.get_close_matches(name, HOOKS, n=1)
        action = f"did you mean {near[0]!r}?" if near else f"the hooks are {', '.join(HOOKS)}"
        raise HookFault(f"there is no hook {name!r}", function, action)
    if options.get("wrapper") or options.get("hookwrapper"):
        raise HookFault(f"{name!r} is a wrapper, and no hook here can be wrapped", function, "use a plain @hookimpl")
    if inspect.iscoroutinefunction(function):
        raise HookFault(f"{name!r} is asynchronous and would never run", function, "write a plain `def`")
    parameters = inspect.signature(function).parameters
    for parameter in parameters.values():
        _check_parameter(name, function, parameter)
    if name.startswith("register_") and "register" not in parameters:
        raise HookFault(f"{name!r} takes no argument `register`", function, f"write def {name}(register)")


def _check_parameter(name: str, function: Callable[..., Any], parameter: inspect.Parameter) -> None:
    known = HOOKS[name]
    if parameter.default is not parameter.empty and parameter.name in known:
        message = f"argument {parameter.name!r} of {name!r} has a default, so it would never be passed"
        raise HookFault(message, function, "remove the default")
    if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
        message = f"{name!r} takes {parameter}, which would always be empty"
        raise HookFault(message, function, f"name the arguments: {', '.join(known)}")
    if parameter.name not in known and parameter.default is parameter.empty:
        near = difflib.get_close_matches(parameter.name, known, n=1)
        action = f"did you mean {near[0]!r}?" if near else f"its arguments are {', '.join(known)}"
        raise HookFault(f"{name!r} has no argument {parameter.name!r}", function, action)


def _place_of(function: Callable[..., Any]) -> str:
    code = getattr(inspect.unwrap(function), "__code__", None)
    return place(code.co_filename, code.co_firstlineno) if code is not None else ""
