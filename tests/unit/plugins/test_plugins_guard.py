"""Errors out of a plugin's code bear its name, its file and its line."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from unlearn_suite import MetricSpec, ObjectiveSpec, ValueSpec
from unlearn_suite.errors import PlanError, PluginError, PrerequisiteError
from unlearn_suite.plugins import Entry, blame, load_catalog, load_target, plugin_frame, require_extra

Install = Callable[..., Path]
CODE = """\
from json import loads

def fail(how):
    if how == "exit":
        raise SystemExit(2)
    return loads(how)

class Nothing:
    pass
"""


def entry_of(install: Install, code: str = CODE) -> tuple[Entry, Path]:
    folder = install("toy-one", code=code)
    return load_catalog().find("objective", "toy-one"), folder


def test_blame_names_the_last_line_in_the_plugin(install: Install) -> None:
    entry, folder = entry_of(install)
    fail = load_target("toy_one.code:fail")
    with pytest.raises(PluginError) as caught, blame(entry):
        fail("{")
    error = caught.value
    assert error.code == "plugin-raised"
    assert error.where == f"toy-one, {folder / 'code.py'}:6"  # not the line in json
    assert error.message.startswith("objective 'toy-one' raised JSONDecodeError: ")
    assert error.__cause__ is not None
    assert plugin_frame(error.__cause__, entry) == f"{folder / 'code.py'}:6"


def test_blame_catches_an_exit(install: Install) -> None:
    entry, _ = entry_of(install)
    with pytest.raises(PluginError, match="SystemExit: 2"), blame(entry):
        load_target("toy_one.code:fail")("exit")


def test_blame_lets_our_own_errors_and_ctrl_c_through(install: Install) -> None:
    entry, _ = entry_of(install)
    for error in (PlanError("x", code="c"), KeyboardInterrupt()):
        with pytest.raises(type(error)) as caught, blame(entry):
            raise error
        assert caught.value is error


@pytest.mark.parametrize(
    ("error", "code", "where", "hint"),
    [
        (MemoryError(), "out-of-memory", "objective 'toy-one'", "compute.eval_tokens"),
        (torch.OutOfMemoryError("CUDA out of memory"), "out-of-memory", "objective 'toy-one'", "compute.eval_tokens"),
        (OSError(errno.ENOSPC, "No space left on device", "/data/x"), "disk-full", "/data/x", "free some space"),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), "disk-full", "objective 'toy-one'", "free some space"),
    ],
)
def test_a_machine_that_is_used_up_is_not_the_plugins_fault(
    install: Install, error: BaseException, code: str, where: str, hint: str
) -> None:
    entry, _ = entry_of(install)
    with pytest.raises(PrerequisiteError) as caught, blame(entry):
        raise error
    found = caught.value
    assert (found.code, found.where) == (code, where) and hint in found.hint and found.__cause__ is error
    with pytest.raises(PluginError, match="raised OSError"), blame(entry):
        raise OSError(errno.EIO, "Input/output error")


def test_memory_that_runs_out_while_code_is_loaded(install: Install) -> None:
    entry_of(install, "raise MemoryError\n")
    with pytest.raises(PrerequisiteError, match="out of memory"):
        load_target("toy_one.code:X")


def test_an_error_without_a_frame_in_the_plugin(install: Install) -> None:
    entry, _ = entry_of(install)
    with pytest.raises(PluginError) as caught, blame(entry):
        raise ValueError
    assert (caught.value.where, plugin_frame(ValueError(), entry)) == ("toy-one", "")


def test_load_target(install: Install) -> None:
    entry_of(install)
    assert load_target("toy_one.code:Nothing").__name__ == "Nothing"


@pytest.mark.parametrize(
    ("target", "where", "message"),
    [
        ("toy_one.code:Absent", "code.py", "has no 'Absent'"),
        ("toy_one.absent:X", "toy_one.absent:X", "No module named 'toy_one.absent'"),
        ("toy_absent:X", "toy_absent:X", "No module named 'toy_absent'"),
        ("toy_one.raises:X", "raises.py:2", "ZeroDivisionError"),
        ("toy_one.exits:X", "exits.py:1", "SystemExit"),
    ],
)
def test_a_target_that_cannot_be_loaded(install: Install, target: str, where: str, message: str) -> None:
    _, folder = entry_of(install)
    (folder / "raises.py").write_text("\n1 / 0\n")
    (folder / "exits.py").write_text("raise SystemExit\n")
    with pytest.raises(PluginError) as caught:
        load_target(target)
    assert caught.value.code == "plugin-load"
    assert caught.value.where.endswith(where)
    assert message in caught.value.message


def entry_with(extras: tuple[str, ...]) -> Entry:
    spec = MetricSpec("m", "s", "toy_one.code:M", {"x": ValueSpec("x")}, extras=extras)
    return Entry(spec, "unlearn-suite/m", "unlearn-suite", "0.1")


def test_a_missing_package_of_an_extra(install: Install) -> None:
    entry_of(install, "import no_such_package.inner\nclass M: ...\n")
    with pytest.raises(PrerequisiteError) as caught, blame(entry_with(("harness",))):
        load_target("toy_one.code:M")
    assert caught.value.hint == 'pip install "unlearn-suite[harness]"'
    assert "'no_such_package'" in caught.value.message
    with pytest.raises(PluginError), blame(entry_with(())):
        load_target("toy_one.code:M")


def test_an_extra_is_no_help_for_a_missing_module_of_a_present_package(install: Install) -> None:
    entry_of(install, "import json.no_such_module\nclass M: ...\n")
    with pytest.raises(PluginError), blame(entry_with(("harness",))):
        load_target("toy_one.code:M")


def test_require_extra() -> None:
    assert require_extra("json", "hub").loads("1") == 1
    with pytest.raises(PrerequisiteError) as caught:
        require_extra("no_such_package.inner", "hub")
    assert caught.value.hint == 'pip install "unlearn-suite[hub]"'
    with pytest.raises(PrerequisiteError) as caught:
        require_extra("no_such_package", entry_with(("a", "b")))
    assert caught.value.hint == 'pip install "unlearn-suite[a,b]"'
    plain = Entry(ObjectiveSpec("o", "s", "a:B"), "d/o", "d", "1")
    with pytest.raises(PrerequisiteError) as caught:
        require_extra("no_such_package", plain)
    assert caught.value.hint == "pip install no_such_package"
