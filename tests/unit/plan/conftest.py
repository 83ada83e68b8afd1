"""A small catalog of made-up plugins, and a way to write a plan and read what is said about it."""

from __future__ import annotations

import difflib
import sys
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import pytest
from pydantic import Field

from unlearn_suite import (
    Config,
    DatasetSpec,
    MetricSpec,
    ObjectiveSpec,
    PluginError,
    ProblemSpec,
    ValueSpec,
)
from unlearn_suite.errors import PlanErrors
from unlearn_suite.plan import load_plan
from unlearn_suite.plugins import Entry


class Warm(Config):
    rate: float = Field(default=0.5, gt=0, le=1)
    """how fast"""


class RmuConfig(Config):
    block: int
    """block that is read, counted from 0"""
    alpha: float = Field(default=60.0, ge=0)
    """weight of the retain part"""
    meta: Literal["none", "relearn"] = "relearn"
    """simulated attacker"""
    blocks: int | list[int] | None = None
    """blocks that are trained"""
    fork_every: int = Field(default=4, ge=1)
    """steps between forks"""
    warm: Warm = Warm()
    """how it warms up"""


class ToyConfig(Config):
    count: int = Field(default=3, ge=0)
    """number of examples"""
    word: str = "sun"
    """what they are about"""


class LinesConfig(Config):
    path: Path
    """file to read, one example per line"""


class ClozeConfig(Config):
    tokens: int = Field(default=8, ge=1)
    """tokens to generate"""


class BothConfig(Config):
    of: tuple[str, ...]
    """entries"""


OBJECTIVES = [
    ObjectiveSpec("rmu", "misdirect", "fake:Rmu", RmuConfig, train={"steps": 40, "lr": 1e-4}, paper="arXiv:1"),
    ObjectiveSpec("probe", "remove a direction", "fake:Probe", roles=("forget", "prompts")),
]
DATASETS = [
    DatasetSpec("toy", "made-up lines", "fake_plan_plugin:load_toy", ToyConfig),
    DatasetSpec(
        "lines", "lines of a file", "fake_plan_plugin:load_lines", LinesConfig, fingerprint="fake_plan_plugin:stamp"
    ),
]
METRICS = [
    MetricSpec(
        "cloze", "greedy", "fake:Cloze", {"exact": ValueSpec("exact match"), "nll": ValueSpec("NLL")}, ClozeConfig
    ),
    MetricSpec("sampled", "sampled", "fake:S", {"mean": ValueSpec("mean")}, sampled=True),
    MetricSpec("share", "share", "fake:Share", {"p": ValueSpec("p", better="higher", lowest=0, highest=1)}),
    MetricSpec(
        "both", "of all", "fake:Both", {"mean": ValueSpec("mean")}, BothConfig, needs_data=False, combines="harmonic"
    ),
    MetricSpec(
        "relative",
        "to the oracle",
        "fake:Relative",
        {"ratio": ValueSpec("ratio"), "apart": ValueSpec("apart", versus="ks", of="ratio")},
    ),
    MetricSpec("speed", "tokens per second", "fake:Speed", {"rate": ValueSpec("rate")}, needs_data=False),
]
PROBLEMS = [ProblemSpec("everyday", "forget one subject", "fake_plan_plugin:problems/everyday.yaml")]

PLUGIN = """\
from unlearn_suite import Example


def load_toy(config):
    return [Example(id=str(i), text=f"{config.word} {i}") for i in range(config.count)]


def load_lines(config):
    return [Example(id=str(i), text=line) for i, line in enumerate(config.path.read_text().splitlines())]


def load_odd(config):
    return [Example(id="0", meta={"what": object()})]


def stamp(config):
    return "text:" + config.path.read_text()
"""

FRAGMENT = """\
problem: everyday
summary: Forget one subject.
data:
  forget: {use: toy, with: {count: 2}}
  retain:
    - {use: toy, with: {word: moon}}
    - {use: toy, with: {word: star}}
metrics:
  - {name: recall, use: cloze, data: forget, want: lower, show: [nll, exact]}
  - {use: sampled, data: retain}
default: {stages: [{use: rmu, steps: 10, with: {block: 1}}]}
"""


class Catalog:
    def __init__(self, specs: Sequence[Any], version: str = "1.0") -> None:
        self._entries = [Entry(spec, f"fake/{spec.name}", "fake", version) for spec in specs]

    def entries(self, kind: str) -> list[Entry]:
        return [entry for entry in self._entries if entry.spec.kind == kind]

    def find(self, kind: str, name: str) -> Entry:
        for entry in self.entries(kind):
            if name in (entry.spec.name, entry.qualified):
                return entry
        near = difflib.get_close_matches(name, [e.spec.name for e in self.entries(kind)], n=1)
        raise PluginError(
            f"there is no {kind} {name!r}", code="plugin-unknown", hint=f"did you mean {near[0]!r}?" if near else ""
        )


@pytest.fixture()
def make_catalog(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Catalog]:
    package = tmp_path / "site" / "fake_plan_plugin"
    (package / "problems").mkdir(parents=True)
    (package / "__init__.py").write_text(PLUGIN, encoding="utf-8")
    (package / "problems" / "everyday.yaml").write_text(FRAGMENT, encoding="utf-8")
    monkeypatch.syspath_prepend(str(package.parent))
    monkeypatch.delitem(sys.modules, "fake_plan_plugin", raising=False)

    def make(version: str = "1.0", *more: Any) -> Catalog:
        return Catalog([*OBJECTIVES, *DATASETS, *METRICS, *PROBLEMS, *more], version)

    return make


@pytest.fixture()
def catalog(make_catalog: Callable[..., Catalog]) -> Catalog:
    return make_catalog()


@pytest.fixture()
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Write a plan into a folder of its own and make that the current one: places read `plan.yaml:1:1`."""
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)

    def write_plan(text: str, name: str = "plan.yaml") -> Path:
        Path(name).write_text(textwrap.dedent(text).lstrip("\n"), encoding="utf-8")
        return Path(name)

    return write_plan


@pytest.fixture()
def said(write: Callable[[str], Path], catalog: Catalog) -> Callable[[str], list[str]]:
    """Everything that is said about a plan that is wrong, line by line."""

    def load(text: str) -> list[str]:
        path = write(text)
        with pytest.raises(PlanErrors) as caught:
            load_plan(path, catalog)
        return [str(error) for error in caught.value.errors]

    return load
