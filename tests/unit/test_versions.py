"""Versions of plugins in a cell: those of all that it uses, and still those when it is run."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from unlearn_suite.errors import PlanError
from unlearn_suite.study.identity import check_versions, versions_of


def entries(*pairs: tuple[str, str]) -> Any:
    return [SimpleNamespace(distribution=name, version=version) for name, version in pairs]


def test_plugin_files_of_one_name_all_count() -> None:
    one, other = versions_of(entries(("obj", "a1"), ("obj", "b1"))), versions_of(entries(("obj", "a2"), ("obj", "b1")))
    assert one == {"obj": "a1, b1"} != other
    check_versions(one, entries(("obj", "a1"), ("obj", "b1"), ("more", "1")), "cell")


def test_a_plugin_that_changed_under_way_is_refused() -> None:
    planned = versions_of(entries(("obj", "a1"), ("host", "0.1.0")))
    check_versions(planned, entries(("obj", "a1"), ("host", "0.1.0")), "cell")
    with pytest.raises(PlanError, match="obj changed while the run was under way"):
        check_versions(planned, entries(("obj", "a2"), ("host", "0.1.0")), "cell")
