"""The wheels, installed where the source tree cannot be seen: the suite's, its plugins', a third party's, new ones."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from importlib.metadata import PathDistribution
from pathlib import Path

import pytest
import yaml

from unlearn_suite.testing.new_plugin import KINDS, write_plugin
from unlearn_suite.testing.tiny import save_tiny

ROOT = Path(__file__).parents[2]
PLUGINS = ("attacks", "baselines", "benchmarks", "knowledge", "toxicity")
PLAN = "plan: 1\nmodels: {tiny: {path: model}}\nproblems: [shouting]\n"


def build(source: Path, out: Path) -> Path:
    """The wheel of a project folder, made as its author makes it."""
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = out.glob("*.whl")
    return wheel


class Environment:
    """A virtual environment that has nothing of ours but the wheels; dependencies come from the tests' own."""

    def __init__(self, folder: Path, wheels: list[Path]) -> None:
        self.folder = folder
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
        self.python = folder / "bin" / "python"
        self.packages = Path(self.tell("import sysconfig; print(sysconfig.get_path('purelib'))"))
        pip = [sys.executable, "-m", "pip", "--python", str(self.python), "install", "--no-deps", "--no-index"]
        pip += ["--no-compile", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, *map(str, wheels)], check=True)
        # Only now, so that pip cannot take what lies there for a part of this environment. A .pth file inside
        # these folders (an editable installation of the suite) is not read: they are no site directories.
        dependencies = dict.fromkeys(sysconfig.get_path(kind) for kind in ("purelib", "platlib"))
        (self.packages / "dependencies.pth").write_text("\n".join(dependencies))

    def tell(self, code: str) -> str:
        """What a line of Python prints."""
        return subprocess.run(
            [str(self.python), "-c", code], capture_output=True, text=True, check=True, cwd=self.folder, env=clean()
        ).stdout.strip()

    def suite(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """`unlearn-suite ...`, in the environment's own folder."""
        command = [str(self.python.with_name("unlearn-suite")), *arguments]
        return subprocess.run(
            command, capture_output=True, text=True, check=False, cwd=self.folder, env=clean(), timeout=300
        )

    def plugins(self) -> dict[str, dict]:
        """`plugins list --json` by distribution and entry point."""
        done = self.suite("plugins", "list", "--json")
        assert done.returncode == 0, done.stderr
        return {f"{found['distribution']}:{found['entry_point']}": found for found in json.loads(done.stdout)}


def clean() -> dict[str, str]:
    """The environment variables without what could lead back to the source tree."""
    return {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "UNLEARN_SUITE", "VIRTUAL_ENV"))}


@pytest.fixture(scope="module")
def wheels(tmp_path_factory) -> dict[str, Path]:
    out = tmp_path_factory.mktemp("wheels")
    sources = {
        "suite": ROOT,
        **{name: ROOT / "plugins" / name for name in PLUGINS},
        "hush": Path(__file__).parent / "hush",
    }
    return {name: build(source, out / name) for name, source in sources.items()}


@pytest.fixture(scope="module")
def third_party(wheels, tmp_path_factory) -> Environment:
    """The suite, and somebody else's plugin."""
    return Environment(tmp_path_factory.mktemp("third") / "env", [wheels["suite"], wheels["hush"]])


@pytest.fixture(scope="module")
def host_alone(wheels, tmp_path_factory) -> Environment:
    """A suite without its reference plugins, and one of them from its own wheel.

    No such wheel of the suite is published, so the reference plugins are taken out of the installed one.
    """
    made = Environment(tmp_path_factory.mktemp("alone") / "env", [wheels["suite"]])
    for package in made.packages.glob("unlearn_suite_*/"):
        shutil.rmtree(package)
    (points,) = made.packages.glob("unlearn_suite-*.dist-info/entry_points.txt")
    lines = points.read_text().splitlines()
    points.write_text("\n".join(line for line in lines if "unlearn_suite_" not in line))
    with zipfile.ZipFile(wheels["knowledge"]) as archive:
        archive.extractall(made.packages)
    return made


def names(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return {name for name in archive.namelist() if not name.endswith("/")}


def sources(folder: Path, package: str) -> set[str]:
    """The files of a package that are kept in the source tree, as a wheel names them."""
    every = (path for path in (folder / package).rglob("*") if path.is_file())
    kept = (path for path in every if not any(p == "__pycache__" or p.endswith("_cache") for p in path.parts))
    return {path.relative_to(folder).as_posix() for path in kept}


def test_the_suites_wheel_has_every_file_of_its_packages_and_nothing_else(wheels):
    host = sources(ROOT / "core", "unlearn_suite")
    plugins = [sources(ROOT / "plugins" / name / "src", f"unlearn_suite_{name}") for name in PLUGINS]
    packed = names(wheels["suite"])
    assert {name for name in packed if ".dist-info/" not in name} == host.union(
        *plugins, {"unlearn_suite/registry.yaml"}
    )
    assert {Path(name).suffix for name in packed} >= {".py", ".yaml", ".jsonl", ".txt", ".j2", ".css"}
    assert any(name.endswith("licenses/LICENSE") for name in packed)


@pytest.mark.parametrize("plugin", PLUGINS)
def test_a_plugins_own_wheel_holds_what_the_suites_wheel_holds_of_it(wheels, plugin):
    packed = {name for name in names(wheels[plugin]) if ".dist-info/" not in name}
    assert packed == {name for name in names(wheels["suite"]) if name.startswith(f"unlearn_suite_{plugin}/")}
    with zipfile.ZipFile(wheels[plugin]) as archive:
        info = PathDistribution(
            zipfile.Path(archive, next(n for n in archive.namelist() if ".dist-info/" in n).split("/")[0] + "/")
        )
        assert any(line.replace(" ", "") == "unlearn-suite<0.2,>=0.1" for line in info.requires)
        (point,) = info.entry_points.select(group="unlearn_suite")
        assert (point.name, point.value) == (plugin, f"unlearn_suite_{plugin}")


def test_nothing_comes_from_the_source_tree(third_party):
    for module in ("unlearn_suite", "unlearn_suite_knowledge", "unlearn_suite_toxicity", "unlearn_suite_hush"):
        found = Path(third_party.tell(f"import {module}; print({module}.__file__)"))
        assert found.is_relative_to(third_party.packages)
    registry = Path(third_party.tell("from unlearn_suite.plugins.registry import *; print(registry_path())"))
    assert registry == third_party.packages / "unlearn_suite/registry.yaml"


def test_every_plugin_is_found(third_party):
    found = third_party.plugins()
    assert set(found) == {f"unlearn-suite:{name}" for name in ("builtin", *PLUGINS)} | {"unlearn-suite-hush:hush"}
    assert {record["status"] for record in found.values()} == {"ok"}
    hush = found["unlearn-suite-hush:hush"]
    assert hush["version"] == "2.3.0"
    provided = {"problem": ["shouting"], "objective": ["hush"], "dataset": ["voices"], "metric": ["surprise"]}
    assert hush["provides"] == provided


def test_the_registry_names_exactly_what_the_suite_brings(third_party):
    known = yaml.safe_load((ROOT / "registry.yaml").read_text())["plugins"]["unlearn-suite"]["provides"]
    brought: dict[str, set[str]] = {}
    for name, record in third_party.plugins().items():
        for kind, provided in record["provides"].items() if name.startswith("unlearn-suite:") else ():
            brought.setdefault(kind, set()).update(provided)
    assert brought == {kind: set(listed) for kind, listed in known.items()}


def test_the_registrys_models_are_listed(third_party):
    done = third_party.suite("models", "list")
    assert done.returncode == 0 and "smollm2-135m-instruct" in done.stdout, done.stderr


def test_a_third_partys_problem_runs_from_start_to_end(third_party):
    save_tiny(third_party.folder / "model")
    (third_party.folder / "shouting.yaml").write_text(PLAN)
    checked = third_party.suite("plan", "check", "shouting.yaml")
    assert checked.returncode == 0 and "1 problem, 1 model, 2 arms" in checked.stdout, checked.stderr
    done = third_party.suite("run", "shouting.yaml")
    assert done.returncode == 0, done.stdout + done.stderr
    run = third_party.folder / "runs/shouting"
    (trained,) = (run / "cells").glob("*.default.*")
    cell = json.loads((trained / "cell.json").read_text())
    assert cell["plugins"]["unlearn-suite-hush"] == "2.3.0"
    assert [stage["use"] for stage in cell["stages"]] == ["unlearn-suite-hush/hush"]
    rows = [json.loads(line) for line in (trained / "scalars.jsonl").read_text().splitlines()]
    assert rows[-1]["scalars"]["loud"] < rows[0]["scalars"]["loud"]
    assert "shouting" in (run / "report/index.html").read_text()


def test_a_plugins_own_wheel_beside_a_host_without_it(host_alone):
    found = host_alone.plugins()
    assert set(found) == {"unlearn-suite:builtin", "unlearn-suite-knowledge:knowledge"}
    assert {record["status"] for record in found.values()} == {"ok"}
    shown = json.loads(host_alone.suite("plugins", "show", "cosine-rmu", "--json").stdout)
    assert [one["name"] for one in shown] == ["unlearn-suite-knowledge/cosine-rmu"]
    (host_alone.folder / "facts.yaml").write_text("plan: 1\nproblems: [everyday-knowledge]\n")
    checked = host_alone.suite("plan", "check", "facts.yaml")
    assert checked.returncode == 0, checked.stderr


def test_a_plugin_that_is_not_there_is_named(host_alone):
    (host_alone.folder / "rude.yaml").write_text("plan: 1\nproblems: [everyday-toxicity]\n")
    checked = host_alone.suite("plan", "check", "rude.yaml")
    assert checked.returncode in (2, 3) and "rude.yaml:2:" in checked.stderr and "toxicity" in checked.stderr
    assert "Traceback" not in checked.stderr


def test_the_same_plugin_twice_is_told_and_not_fatal(wheels, tmp_path):
    twice = Environment(tmp_path / "env", [wheels["suite"], wheels["knowledge"]])
    found = twice.plugins()
    second = found.pop("unlearn-suite-knowledge:knowledge")
    assert second["status"] == "duplicate" and "unlearn-suite" in second["message"] and second["action"]
    assert {record["status"] for record in found.values()} == {"ok"}
    (twice.folder / "facts.yaml").write_text("plan: 1\nproblems: [everyday-knowledge]\n")
    checked = twice.suite("plan", "check", "facts.yaml")
    assert checked.returncode == 0 and "duplicate" in checked.stderr, checked.stderr


@pytest.fixture(scope="module")
def grown(wheels, tmp_path_factory) -> Environment:
    """One environment with the suite's wheel and that of a new plugin of each kind."""
    folder = tmp_path_factory.mktemp("new")
    built = [wheels["suite"]]
    for kind in KINDS:
        source = write_plugin(f"my-{kind}", kind, folder / "sources")
        built.append(build(source, folder / "wheels" / kind))
        for part in ("tests", "plans"):  # without the sources: the packages come from the wheels
            shutil.copytree(source / part, folder / "tests" / kind / part)
    return Environment(folder / "env", built)


def test_every_new_plugin_is_found(grown):
    found = grown.plugins()
    for kind in KINDS:
        record = found[f"unlearn-suite-my-{kind}:my-{kind}"]
        assert record["status"] == "ok" and not record["notes"], record
        assert f"my-{kind}" in record["provides"][kind]


def test_its_own_tests_and_smoke_plan_pass(grown):
    command = [str(grown.python), "-m", "pytest", "--import-mode=importlib", "-q", "-p", "no:cacheprovider"]
    tests = grown.folder.parent / "tests"
    command += ["--junitxml", str(grown.folder / "report.xml"), str(tests)]
    done = subprocess.run(command, cwd=tests, capture_output=True, text=True, check=False, env=clean())
    assert done.returncode == 0, done.stdout[-3000:]
    report = (grown.folder / "report.xml").read_text()
    for kind in KINDS:
        assert f"{kind}.tests.test_smoke" in report and f"{kind}.tests.test_conformance" in report


def test_plugins_check_needs_no_pytest_file(grown):
    done = grown.suite("plugins", "check", "unlearn-suite-my-dataset", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    results = json.loads(done.stdout)
    assert {"LOAD-META", "LOAD-BOUND", "DATA-SPLITS"} <= {r["id"] for r in results if r["outcome"] == "passed"}
