"""What a plan tells a problem under `with`: it comes into the problem's file, and faults are told in the plan."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from unlearn_suite import ProblemSpec
from unlearn_suite.cli.describe import entry_json, entry_lines
from unlearn_suite.errors import PlanErrors
from unlearn_suite.plan import load_plan, plan_schema

FRAGMENT = """\
problem: exams
summary: Costs $5, of which $$1.
parameters:
  folder: {summary: folder of the release, type: path}
  word: {summary: what to forget, default: sun}
  count: {summary: how many, type: integer, default: null}
data:
  forget: {use: lines, with: {path: $folder/forget.txt}}
  retain:
    - {use: toy, with: {word: "not-${word}", count: 2}}
    - {use: toy, with: {word: $word}}
metrics:
  - {name: recall, use: cloze, data: forget, want: lower}
default: {stages: [{use: rmu, steps: 10, with: {block: 1, blocks: $count}}]}
"""


@pytest.fixture()
def with_exams(make_catalog: Callable[..., Any], tmp_path: Path) -> Any:
    catalog = make_catalog("1.0", ProblemSpec("exams", "forget exams", "fake_plan_plugin:problems/exams.yaml"))
    text = FRAGMENT.replace("Costs $5, of which $$1.", "It costs $$5.")
    (tmp_path / "site" / "fake_plan_plugin" / "problems" / "exams.yaml").write_text(text, encoding="utf-8")
    (tmp_path / "work").mkdir(exist_ok=True)
    return catalog


@pytest.fixture()
def release(tmp_path: Path) -> Path:
    folder = tmp_path / "work" / "release"
    folder.mkdir(parents=True)
    (folder / "forget.txt").write_text("one\n", encoding="utf-8")
    return folder


@pytest.fixture()
def plan_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    def write(problem: str) -> Path:
        monkeypatch.chdir(tmp_path / "work")
        Path("plan.yaml").write_text(f"plan: 1\nproblems:\n  - {problem}\n", encoding="utf-8")
        return Path("plan.yaml")

    return write


def test_values_are_put_in(with_exams: Any, release: Path, plan_of: Callable[[str], Path]) -> None:
    plan = plan_of("{use: exams, with: {folder: release, word: moon, count: 3}}")
    problem = load_plan(plan, with_exams).problems[0]
    assert problem.data["forget"][0].config.path == release / "forget.txt"  # from the plan's folder
    assert [use.config.word for use in problem.data["retain"]] == ["not-moon", "moon"]
    assert problem.default is not None
    assert problem.default[0].config.blocks == 3  # type: ignore[attr-defined]
    assert problem.summary == "It costs $5."


def test_defaults(with_exams: Any, release: Path, plan_of: Callable[[str], Path]) -> None:
    problem = load_plan(plan_of("{use: exams, with: {folder: release}}"), with_exams).problems[0]
    assert [use.config.word for use in problem.data["retain"]] == ["not-sun", "sun"]
    assert problem.default is not None
    assert problem.default[0].config.blocks is None  # type: ignore[attr-defined]


def test_two_uses_of_one_problem_keep_their_own_values(
    with_exams: Any, release: Path, plan_of: Callable[[str], Path]
) -> None:
    plan = plan_of("{use: exams, with: {folder: release}}\n  - {use: exams, as: b, with: {folder: release, word: sea}}")
    words = [problem.data["retain"][1].config.word for problem in load_plan(plan, with_exams).problems]
    assert words == ["sun", "sea"]


def test_changes_of_the_plan_go_before_parameters(
    with_exams: Any, release: Path, plan_of: Callable[[str], Path]
) -> None:
    (release / "other.txt").write_text("two\n", encoding="utf-8")
    plan = plan_of(
        "{use: exams, with: {folder: release}, data: {forget: {use: lines, with: {path: release/other.txt}}}}"
    )
    assert load_plan(plan, with_exams).problems[0].data["forget"][0].config.path.name == "other.txt"


@pytest.mark.parametrize(
    ("problem", "line"),
    [
        ("exams", "plan.yaml:3:5: problem 'exams' needs 'folder' under `with` (folder of the release)"),
        ("{use: exams, with: {word: moon}}",
         "plan.yaml:3:18: problem 'exams' needs 'folder' under `with` (folder of the release)"),
        ("{use: exams, with: {foldr: release, folder: release}}",
         "plan.yaml:3:25: problem 'exams' has no option 'foldr' (did you mean 'folder'?)"),
        ("{use: exams, with: {folder: 3}}", "plan.yaml:3:33: 'folder': expected a path, found 3"),
        ("{use: exams, with: {folder: release, count: true}}",
         "plan.yaml:3:49: 'count': expected a whole number, found true"),
        ("{use: exams, with: {folder: nowhere}}",
         "plan.yaml:3:33: there is no file or folder '{work}/nowhere' (check the path)"),
        ("{use: exams, with: {folder: empty}}",
         "plan.yaml:3:33: there is no file or folder '{work}/empty/forget.txt' (check the path)"),
        ("{use: exams, with: {folder: release, word: 7}}",
         "plan.yaml:3:48: 'word': expected text, found 7"),
        ("{use: exams, with: 7}", "plan.yaml:3:24: 'with': expected a mapping, found 7"),
        ("{use: everyday, with: {folder: release}}",
         "plan.yaml:3:28: problem 'everyday' has no option 'folder' (it has none)"),
    ],
)  # fmt: skip
def test_faults_are_told_in_the_plan(
    with_exams: Any, release: Path, plan_of: Callable[[str], Path], problem: str, line: str
) -> None:
    (release.parent / "empty").mkdir()
    with pytest.raises(PlanErrors) as caught:
        load_plan(plan_of(problem), with_exams)
    assert str(caught.value.errors[0]) == line.replace("{work}", str(release.parent))


def test_a_null_inside_a_text_makes_it_null(with_exams: Any, tmp_path: Path, plan_of: Callable[[str], Path]) -> None:
    file = Path(sys.path[0]) / "fake_plan_plugin" / "problems" / "exams.yaml"
    file.write_text(
        FRAGMENT.replace("type: path}", "type: path, default: null}").replace(
            "{use: lines, with: {path: $folder/forget.txt}}", "{use: toy, with: {word: a-$folder-b}}"
        ),
        encoding="utf-8",
    )
    with pytest.raises(PlanErrors) as caught:
        load_plan(plan_of("exams"), with_exams)
    assert "'word': expected text, found nothing" in str(caught.value.errors[0])


def test_a_parameter_that_takes_anything(with_exams: Any, release: Path, plan_of: Callable[[str], Path]) -> None:
    file = Path(sys.path[0]) / "fake_plan_plugin" / "problems" / "exams.yaml"
    text = file.read_text(encoding="utf-8").replace("type: integer, default: null", "type: any, default: null")
    file.write_text(text, encoding="utf-8")
    plan = plan_of("{use: exams, with: {folder: release, count: [1, 2]}}")
    default = load_plan(plan, with_exams).problems[0].default
    assert default is not None and default[0].config.blocks == [1, 2]  # type: ignore[attr-defined]
    assert (
        "type"
        not in plan_schema(with_exams)["$defs"]["problem:fake/exams"]["properties"]["with"]["properties"]["count"]
    )


def test_a_role_that_hangs_on_a_parameter_goes_with_what_is_about_it(
    with_exams: Any, tmp_path: Path, plan_of: Callable[[str], Path], release: Path
) -> None:
    file = tmp_path / "site" / "fake_plan_plugin" / "problems" / "exams.yaml"
    text = FRAGMENT.replace("of which $$1", "once").replace("$5", "$$5")
    text = text.replace("  count:", "  more: {summary: another word, default: null}\n  count:")
    text = text.replace(
        "metrics:\n", "  more: {use: toy, when: $more, with: {word: $more}}\nmetrics:\n  - recall-less\n"
    )
    text = text.replace("  - recall-less\n", "  - {use: sampled, data: more}\n")
    file.write_text(f"{text}expect: [{{metric: sampled, below: 1}}, {{metric: recall, below: 1}}]\n", encoding="utf-8")
    found = {}
    for told in ("", ", more: star"):
        plan = load_plan(plan_of(f"{{use: exams, with: {{folder: release{told}}}}}"), with_exams)
        problem = plan.problems[0]
        found[told] = list(problem.data), [m.name for m in problem.metrics], [line.metric for line in problem.expect]
    assert found[""] == (["forget", "retain"], ["recall"], ["recall"])
    assert found[", more: star"] == (["forget", "retain", "more"], ["sampled", "recall"], ["sampled", "recall"])


def test_an_unknown_parameter_is_told_in_the_file_of_the_problem(
    with_exams: Any, release: Path, plan_of: Callable[[str], Path]
) -> None:
    file = Path(sys.path[0]) / "fake_plan_plugin" / "problems" / "exams.yaml"
    file.write_text(file.read_text(encoding="utf-8").replace("word: $word", "word: $wurd"), encoding="utf-8")
    with pytest.raises(PlanErrors) as caught:
        load_plan(plan_of("{use: exams, with: {folder: release}}"), with_exams)
    assert "exams.yaml:11:31: there is no parameter 'wurd' (did you mean 'word'?)" in str(caught.value.errors[0])


def test_the_schema_knows_them(with_exams: Any) -> None:
    defs = plan_schema(with_exams)["$defs"]
    assert {"$ref": "#/$defs/problem:fake/exams"} in defs["problem-use"]["anyOf"]
    exams, everyday = defs["problem:fake/exams"], defs["problem:fake/everyday"]
    assert exams["required"] == ["use", "with"]
    given = exams["properties"]["with"]
    assert given["required"] == ["folder"]
    assert given["properties"]["folder"] == {"type": "string", "description": "folder of the release"}
    assert given["properties"]["word"]["default"] == "sun"
    assert given["properties"]["count"]["type"] == ["integer", "null"]
    assert everyday["required"] == ["use"]
    assert everyday["properties"]["with"]["properties"] == {}


def test_plugins_show_tells_them(with_exams: Any) -> None:
    text = "\n".join(entry_lines(entry_json(with_exams.find("problem", "exams"))))
    assert "folder: path, required" in text
    assert "word: text, default sun" in text
    assert "count: integer, default null" in text
