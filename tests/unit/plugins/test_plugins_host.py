"""Loading plugins: whatever one does, the host lives and tells where it went wrong."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from unlearn_suite.plugins import Catalog, PluginReport, load_catalog

Install = Callable[..., Path]
ReportOf = Callable[[str], PluginReport]

HEAD = "from unlearn_suite import DatasetSpec, MetricSpec, ObjectiveSpec, hookimpl\n"


def test_a_good_plugin_provides_its_names(install: Install, report_of: ReportOf) -> None:
    install("toy-one")
    report = report_of("toy-one")
    assert report.status == "ok"
    assert report.provides == ("toy-one/toy-one",)
    assert (report.version, report.entry_point, report.target) == ("1.0", "main", "toy_one")
    assert report.seconds > 0
    assert (report.message, report.action, report.where) == ("", "", "")


@pytest.mark.parametrize(
    ("body", "line", "message"),
    [
        ("x = 1\nraise RuntimeError('no')\n", 2, "RuntimeError: no"),
        ("import sys\nsys.exit(3)\n", 2, "SystemExit: 3"),
        ("class Odd(BaseException): ...\nraise Odd('x')\n", 2, "Odd: x"),
        ("import no_such_module_at_all\n", 1, "ModuleNotFoundError: No module named 'no_such_module_at_all'"),
        ("def f(:\n    pass\n", 1, "SyntaxError"),
        ("class T(Exception):\n    def __str__(self): raise ValueError\nraise T\n", 3, "T"),
    ],
)
def test_a_plugin_that_fails_on_import(
    install: Install, report_of: ReportOf, body: str, line: int, message: str
) -> None:
    folder = install("toy-bad", body)
    install("toy-good")
    report = report_of("toy-bad")
    assert report.status == "broken"
    assert report.where == f"{folder / '__init__.py'}:{line}"
    assert report.message.startswith(message)
    assert "toy-bad" in report.action
    assert report_of("toy-good").status == "ok"


def test_an_import_that_fails_deeper_is_told_where_it_fails(install: Install, report_of: ReportOf) -> None:
    folder = install("toy-deep", "from . import code\n", code="\n\n1 / 0\n")
    assert report_of("toy-deep").where == f"{folder / 'code.py'}:3"


def test_an_entry_point_to_nowhere(install: Install, report_of: ReportOf) -> None:
    install("toy-lost", target="toy_nowhere")
    report = report_of("toy-lost")
    assert (report.status, report.where) == ("broken", "")
    assert "toy_nowhere" in report.message


@pytest.mark.parametrize(
    ("body", "line", "message", "action"),
    [
        ("@hookimpl\ndef register_objectivs(register): ...\n", 2, "'register_objectivs'", "'register_objectives'"),
        ("def register_metrics(register): ...\n", 2, "not marked", "@hookimpl"),
        ("@hookimpl\ndef register_metrics(regster): ...\n", 2, "'regster'", "'register'"),
        ("@hookimpl\ndef register_metrics(register=None): ...\n", 2, "has a default", "remove"),
        ("@hookimpl\ndef register_metrics(): ...\n", 2, "takes no argument", "register_metrics(register)"),
        ("@hookimpl\ndef on_scalars(*args): ...\n", 2, "always be empty", "cell, step, scalars"),
        ("@hookimpl\nasync def on_run_start(run): ...\n", 2, "never run", "plain"),
        ("@hookimpl(wrapper=True)\ndef on_run_start(run):\n    yield\n", 2, "wrapper", "plain"),
        ("@hookimpl(optionalhook=True)\ndef on_run_strt(run): ...\n", 2, "'on_run_strt'", "'on_run_start'"),
    ],
)
def test_mistakes_in_hooks(
    install: Install, report_of: ReportOf, body: str, line: int, message: str, action: str
) -> None:
    folder = install("toy-hooks", HEAD + body)
    report = report_of("toy-hooks")
    assert report.status == "broken"
    assert report.where == f"{folder / '__init__.py'}:{line}"
    assert message in report.message
    assert action in report.action


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("ObjectiveSpec", "found the class ObjectiveSpec"),
        ("'npo'", "expects ObjectiveSpec(...), found str"),
        ("DatasetSpec('a', 'b', 'c:d')", "found DatasetSpec"),
        ("ObjectiveSpec('Bad Name', 'b', 'c:d')", "bad name 'Bad Name'"),
        ("ObjectiveSpec('a', 'b', 'no target')", "bad target"),
        ("ObjectiveSpec('a', 'b', 'c:d', config=dict)", "subclass of unlearn_suite.Config"),
        ("ObjectiveSpec('a', 'b', 'c:d', roles='forget')", "must be a tuple"),
        ("ObjectiveSpec('a', 'b', 'c:d', train={'stepz': 3})", "train['stepz']"),
        ("ObjectiveSpec('a', 'b', 'c:d', train={'lr': -1})", "train['lr']"),
        ("ObjectiveSpec('first', 'b', 'c:d')", "registered twice"),
    ],
)
def test_a_bad_spec_fails_on_the_authors_own_line(
    install: Install, report_of: ReportOf, spec: str, message: str
) -> None:
    body = f"""
@hookimpl
def register_objectives(register):
    register(ObjectiveSpec('first', 'b', 'c:d'))
    register({spec})
"""
    folder = install("toy-spec", HEAD + body)
    report = report_of("toy-spec")
    assert report.status == "broken"
    assert report.where == f"{folder / '__init__.py'}:6"
    assert message in report.message
    assert report.provides == ()  # nothing of it stays, not even what was registered before
    assert all(entry.distribution != "toy-spec" for entry in load_catalog().entries("objective"))


def test_values_of_a_metric_are_checked(install: Install, report_of: ReportOf) -> None:
    body = "@hookimpl\ndef register_metrics(register):\n    register(MetricSpec('m', 's', 'a:b', values={'x': 1}))\n"
    install("toy-metric", HEAD + body)
    assert "values['x'] of metric 'm' must be a ValueSpec" in report_of("toy-metric").message


@pytest.mark.parametrize(
    "requires", ["unlearn-suite>=99", "unlearn_suite<0.1", "Unlearn.Suite==0.0.1; python_version>'3'"]
)
def test_a_plugin_for_another_version_is_not_even_imported(
    install: Install, report_of: ReportOf, requires: str
) -> None:
    install("toy-old", "import toy_old_was_imported\n", requires=requires)
    report = report_of("toy-old")
    assert report.status == "incompatible"
    assert "it needs unlearn-suite" in report.message
    assert "pip install" in report.action


@pytest.mark.parametrize(
    "requires", ["", "unlearn-suite>=99; extra == 'new'", "other>=99", "unlearn-suite[hub]>=0.1,<0.2"]
)
def test_requirements_that_are_met(install: Install, report_of: ReportOf, requires: str) -> None:
    install("toy-new", requires=requires)
    assert report_of("toy-new").status == "ok"


@pytest.mark.parametrize("body", ["x = 1\n", HEAD + "@hookimpl\ndef register_metrics(register): ...\n"])
def test_a_plugin_without_anything_is_empty(install: Install, report_of: ReportOf, body: str) -> None:
    install("toy-empty", body)
    report = report_of("toy-empty")
    assert report.status == "empty"
    assert report.action


def test_a_class_is_no_plugin(install: Install, report_of: ReportOf) -> None:
    folder = install("toy-class", target="toy_class.code:Nothing")
    report = report_of("toy-class")
    assert report.status == "broken"
    assert "Nothing" in report.message
    assert folder.name in report.target


def test_an_instance_is_a_plugin(install: Install, report_of: ReportOf) -> None:
    code = HEAD + (
        "class Plugin:\n    @hookimpl\n    def register_objectives(self, register):\n"
        "        register(ObjectiveSpec('inst', 's', 'a:b'))\nplugin = Plugin()\n"
    )
    install("toy-instance", target="toy_instance.code:plugin", code=code)
    assert report_of("toy-instance").provides == ("toy-instance/inst",)


def test_one_module_of_two_distributions_is_loaded_once(install: Install, report_of: ReportOf) -> None:
    install("toy-a", package="toy_shared")
    install("toy-b", package="toy_shared")
    assert report_of("toy-a").status == "ok"
    second = report_of("toy-b")
    assert second.status == "duplicate"
    assert "toy-a" in second.message


def test_two_entry_points_of_a_distribution_with_one_name(install: Install) -> None:
    points = "[unlearn_suite]\na = toy_twice\nb = toy_twice.code\n"
    source = HEAD + "@hookimpl\ndef register_objectives(register):\n    register(ObjectiveSpec('t', 's', 'a:b'))\n"
    install("toy-twice", source, code=source, entry_points=points)
    reports = [report for report in load_catalog().reports if report.distribution == "toy-twice"]
    assert [report.status for report in reports] == ["ok", "duplicate"]
    assert "toy-twice/t" in reports[1].message


def test_reports_are_sorted(install: Install) -> None:
    for name in ("toy-z", "toy-a", "toy-m"):
        install(name)
    keys = [(report.distribution, report.entry_point) for report in load_catalog().reports]
    assert keys == sorted(keys)


def test_broken_metadata_of_others_is_no_concern(install: Install, report_of: ReportOf, tmp_path: Path) -> None:
    install("toy-fine")
    install("toy-garbled", entry_points="[unlearn_suite]\nthis line has no equals sign\n")
    (tmp_path / "site" / "leftover-1.0.dist-info").mkdir()
    assert report_of("toy-fine").status == "ok"
    assert report_of("toy-garbled").status == "broken"
    assert "entry_points.txt" in report_of("toy-garbled").message


def test_prints_are_captured_and_noted(
    install: Install, report_of: ReportOf, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = install("toy-loud", "x = 1\nprint()\nprint('hello from a plugin')\n")
    report = report_of("toy-loud")
    assert capsys.readouterr().out == ""
    place = folder / "__init__.py"
    assert report.notes == (f"prints while it is loaded: 'hello from a plugin' ({place}:3: take that out)",)


def test_a_plugin_that_imports_torch_is_noted(install: Install) -> None:
    folder = install("toy-heavy", "from . import code\n", code="\nimport torch\n")
    program = (
        f"import sys; sys.path.insert(0, {str(folder.parent)!r})\n"
        "from unlearn_suite.plugins import load_catalog\n"
        "reports = {r.distribution: r for r in load_catalog().reports}\n"
        "print(reports['toy-heavy'].notes, reports['unlearn-suite'].notes)"
    )
    (folder.parent / "torch.py").write_text("")  # a light stand-in: only its name counts
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("('imports torch while it is loaded") and f"{folder / 'code.py'}:2: " in done.stdout
    assert done.stdout.rstrip().endswith(" ()")


def test_our_own_plugins_load_without_torch() -> None:
    program = (
        "import sys\nfrom unlearn_suite.plugins import load_catalog\n"
        "assert all(r.ok for r in load_catalog().reports if r.distribution == 'unlearn-suite')\n"
        "assert not {'torch', 'transformers', 'datasets', 'lm_eval', 'sklearn'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_a_plugin_file(tmp_path: Path) -> None:
    file = tmp_path / "my_objective.py"
    source = HEAD + (
        "@hookimpl\ndef register_objectives(register):\n"
        "    register(ObjectiveSpec('mine', 's', f'{__name__}:Mine'))\nclass Mine:\n    pass\n"
    )
    file.write_text(source)
    catalog = load_catalog([file, tmp_path / "." / "my_objective.py"])
    report = catalog.reports[-1]
    assert [r.target for r in catalog.reports].count(str(file)) == 1
    assert (report.status, report.distribution, len(report.version)) == ("ok", "my_objective", 12)
    assert catalog.find("objective", "my_objective/mine") == catalog.find("objective", "mine")
    from unlearn_suite.plugins import load_target

    assert load_target(catalog.find("objective", "mine").spec.load).__name__ == "Mine"
    file.write_text(source.replace("'mine'", "'nine'"))
    again = load_catalog([file])
    assert again.reports[-1].version != report.version
    assert again.find("objective", "nine")


@pytest.mark.parametrize("source", ["raise SystemExit", "import nothing_such", "def x(:", "\0"])
def test_a_bad_plugin_file(tmp_path: Path, source: str) -> None:
    file = tmp_path / "bad.py"
    file.write_text(source)
    report = load_catalog([file]).reports[-1]
    assert report.status == "broken"
    assert report.action.endswith("correct the file")
    assert not [name for name in sys.modules if getattr(sys.modules[name], "__file__", "") == str(file)]


def test_a_plugin_file_that_is_not_there(tmp_path: Path) -> None:
    report = load_catalog([tmp_path / "none.py"]).reports[-1]
    assert (report.status, report.action) == ("broken", "correct the path")


OBSERVER = """
seen = []
@hookimpl
def on_scalars(scalars, step):
    seen.append((step, dict(scalars)))
    scalars['loss'] = 0.0
    if step == 2:
        raise SystemExit(1)
"""


def test_observers(install: Install, catalog: Callable[[], Catalog], caplog: pytest.LogCaptureFixture) -> None:
    folder = install("toy-watch", HEAD + OBSERVER)
    install("toy-watch-too", HEAD + OBSERVER.replace("step == 2", "step == 9"))
    loaded = catalog()
    scalars = {"loss": 1.0}
    for step in range(4):
        loaded.notify("on_scalars", cell={}, step=step, scalars=scalars)
    assert scalars == {"loss": 1.0}  # an observer gets a copy
    assert [step for step, _ in sys.modules["toy_watch"].seen] == [0, 1, 2]
    assert [step for step, _ in sys.modules["toy_watch_too"].seen] == [0, 1, 2, 3]
    (error,) = loaded.observer_errors
    assert error.where == f"toy-watch, {folder / '__init__.py'}:9"
    assert "on_scalars raised SystemExit: 1" in error.message
    assert len(caplog.records) == 1
