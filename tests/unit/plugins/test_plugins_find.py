"""Names: bare, qualified, ambiguous, misspelt, in a broken plugin, not installed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from unlearn_suite.cli import main
from unlearn_suite.errors import PLUGIN, USAGE, PlanError, PluginError, SuiteError
from unlearn_suite.plugins import Catalog, load_catalog
from unlearn_suite.plugins.catalog import catalog_of
from unlearn_suite.plugins.registry import Registry
from unlearn_suite.plugins.source import installed

Install = Callable[..., Path]
SPEC = """\
from unlearn_suite import ObjectiveSpec, hookimpl
@hookimpl
def register_objectives(register):
    register(ObjectiveSpec("shared-name", "s", "toy:X"))
"""


def miss(catalog: Catalog, name: str, kind: str = "objective") -> SuiteError:
    with pytest.raises(SuiteError) as caught:
        catalog.find(kind, name)  # type: ignore[arg-type]
    return caught.value


def test_a_bare_name_while_it_is_unique(install: Install) -> None:
    install("toy-one", SPEC)
    entry = load_catalog().find("objective", "shared-name")
    assert (entry.qualified, entry.distribution, entry.version) == ("toy-one/shared-name", "toy-one", "1.0")
    assert load_catalog().find("objective", "Toy_One/shared-name") == entry


def test_an_ambiguous_name_tells_both(install: Install) -> None:
    install("toy-one", SPEC)
    install("toy-two", SPEC)
    error = miss(load_catalog(), "shared-name")
    assert isinstance(error, PlanError) and error.exit_code == USAGE
    assert error.hint == "write toy-one/shared-name or toy-two/shared-name"
    assert load_catalog().find("objective", "toy-two/shared-name").distribution == "toy-two"


def test_the_list_tells_a_name_that_two_have(install: Install, capsys: pytest.CaptureFixture[str]) -> None:
    folder = install("toy-one", SPEC)
    install("toy-two", SPEC)
    with pytest.raises(SystemExit):
        main(["plugins", "list"])
    told = capsys.readouterr().out
    place = f"{folder / '__init__.py'}:4"
    what = "has an objective 'shared-name', and so has toy-two"
    assert f"    note: {what} ({place}: write toy-one/shared-name in plans)" in told
    assert told.count("note: has an objective 'shared-name'") == 2 and "'npo', and so has" not in told


def test_a_misspelt_name(install: Install) -> None:
    install("toy-one", SPEC)
    error = miss(load_catalog(), "shared-nam")
    assert (error.code, error.hint) == ("plugin-unknown", "did you mean 'shared-name'?")


def test_a_name_of_another_kind(install: Install) -> None:
    install("toy-one", SPEC)
    assert miss(load_catalog(), "shared-name", "metric").hint == "'shared-name' is an objective"


@pytest.mark.parametrize("name", ["shared-name", "toy-one/shared-name"])
def test_a_name_whose_plugin_is_broken(install: Install, name: str) -> None:
    folder = install("toy-one", "import toy_lacking\n" + SPEC)
    error = miss(load_catalog(), name)
    assert isinstance(error, PluginError)
    assert (error.code, error.exit_code) == ("plugin-broken", PLUGIN)
    assert "toy-one 1.0, which is broken" in error.message
    assert f"{folder / '__init__.py'}:1" in error.message
    assert error.hint


def test_a_name_registered_before_the_plugin_broke(install: Install) -> None:
    source = SPEC.replace('"shared-name"', '"shared" + "-name"') + "    raise ValueError('late')\n"
    install("toy-one", source)
    assert miss(load_catalog(), "shared-name").code == "plugin-broken"


def test_a_name_in_an_incompatible_plugin(install: Install) -> None:
    install("toy-one", SPEC, requires="unlearn-suite>=99")
    error = miss(load_catalog(), "shared-name")
    assert "incompatible: it needs unlearn-suite >=99" in error.message


def test_a_broken_plugin_is_not_blamed_for_other_names(install: Install) -> None:
    install("toy-one", "import toy_lacking\n" + SPEC)
    error = miss(load_catalog(), "qqq")
    assert error.code == "plugin-unknown"
    assert "could not be loaded" in error.hint


@pytest.mark.parametrize(
    ("status", "message", "hint"),
    [("released", "it is in toy-far", "pip install toy-far"), ("planned", "is planned for toy-far", "")],
)
def test_a_name_that_the_registry_knows(install: Install, status: str, message: str, hint: str) -> None:
    known = {"toy-far": {"summary": "s", "status": status, "provides": {"objective": ["far"]}}}
    registry = Registry.model_validate({"registry": 1, "plugins": known})
    error = miss(catalog_of(installed(), registry), "far")
    assert error.code == "plugin-missing"
    assert message in error.message
    assert hint in error.hint
