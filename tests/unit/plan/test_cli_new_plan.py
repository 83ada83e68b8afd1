"""`plan new`: a plan that is fine as it is, says what each line means, and never overwrites."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import click
import pytest
import yaml

from unlearn_suite.cli import main
from unlearn_suite.cli.describe import options
from unlearn_suite.plugins import load_catalog

Run = Callable[..., tuple[int, str]]


@pytest.fixture()
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """The command line in an empty folder: exit code, and all that was written."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str) -> tuple[int, str]:
        with pytest.raises(SystemExit) as left:
            main(arguments)
        written = capsys.readouterr()
        return int(left.value.code or 0), written.out + written.err

    return call


def test_it_is_fine_and_tells_every_option(run: Run) -> None:
    both = ("--problem", "everyday-knowledge", "--problem", "everyday-toxicity")
    code, told = run("plan", "new", "a/plan.yaml", *both, "--objective", "cosine-rmu", "--seeds", "2")
    assert (code, told) == (0, "a/plan.yaml: fine; next: unlearn-suite run a/plan.yaml\n")
    text = Path("a/plan.yaml").read_text()
    plan = yaml.safe_load(text)
    assert plan["problems"] == ["everyday-knowledge", {"use": "everyday-toxicity"}] and plan["seeds"] == [0, 1]
    assert list(plan["arms"]) == ["base", "cosine-rmu"]
    config = load_catalog().find("objective", "cosine-rmu").spec.config  # type: ignore[union-attr]
    for option in options(config):
        assert f"        #   {option['name']}: " in text and option["doc"] in text


def test_every_arm_is_attacked_unless_the_user_says_otherwise(run: Run) -> None:
    run("plan", "new", "plan.yaml", "--problem", "everyday-knowledge", "--problem", "everyday-toxicity")
    attacks = yaml.safe_load(Path("plan.yaml").read_text())["attacks"]
    assert "relearn" in attacks and "quantise" in attacks


PLUGIN = """\
from unlearn_suite import AttackConfig, AttackPoint, AttackSpec, ProblemSpec, hookimpl
class Options(AttackConfig):
    def points(self):
        return (AttackPoint("here"),)
class Told(Options):
    depth: int
@hookimpl
def register_attacks(register):
    register(AttackSpec("needy", "reads the role `notes`", f"{__name__}:Never", Options, roles=("notes",)))
    register(AttackSpec("asks", "has to be told", f"{__name__}:Never", Told))
@hookimpl
def register_problems(register):
    register(ProblemSpec("noted", "texts with notes", f"{__name__}:noted.yaml"))
"""
NOTED = """\
problem: noted
summary: texts with notes
data: {forget: {use: general-text}, notes: {use: general-text}}
metrics: [{name: kept, use: perplexity, data: forget, want: higher}]
default: {stages: [{use: gradient-ascent}]}
"""


def test_an_attack_is_for_the_problems_that_have_what_it_reads(run: Run) -> None:
    Path("own.py").write_text(PLUGIN)
    Path("noted.yaml").write_text(NOTED)
    code, told = run(
        "plan", "new", "plan.yaml", "--problem", "noted", "--problem", "everyday-knowledge", "--plugin", "own.py"
    )
    assert code == 0, told
    attacks = yaml.safe_load(Path("plan.yaml").read_text())["attacks"]
    assert {"use": "needy", "only": ["noted"]} in attacks and "quantise" in attacks
    assert {"use": "relearn", "only": ["everyday-knowledge"]} in attacks and "asks" not in str(attacks)


def test_an_option_taken_in_is_fine_too(run: Run) -> None:
    run("plan", "new", "plan.yaml", "--problem", "everyday-knowledge", "--objective", "probe-directions")
    text = Path("plan.yaml").read_text().replace("        # with:", "        with:")
    Path("plan.yaml").write_text(text.replace("        #   ", "          "))
    assert run("plan", "check", "plan.yaml")[0] == 0, text


def test_it_does_not_overwrite(run: Run) -> None:
    Path("plan.yaml").write_text("mine")
    code, told = run("plan", "new", "plan.yaml", "--problem", "everyday-knowledge")
    assert code == 2 and "there already" in told and Path("plan.yaml").read_text() == "mine"
    assert run("plan", "new", "plan.yaml", "--problem", "everyday-knowledge", "--force")[0] == 0


def test_a_folder_as_model_is_found_from_the_plan(run: Run) -> None:
    Path("model").mkdir()
    assert run("plan", "new", "a/plan.yaml", "--model", "model", "--problem", "everyday-knowledge")[0] == 0
    assert yaml.safe_load(Path("a/plan.yaml").read_text())["models"] == {"base-model": {"path": "../model"}}


def test_what_is_missing_or_unknown(run: Run) -> None:
    code, told = run("plan", "new", "plan.yaml")
    assert code == 2 and "add --problem NAME; there are " in told and "everyday-knowledge" in told
    code, told = run("plan", "new", "plan.yaml", "--problem", "everyday-knowlege")
    assert code == 3 and "did you mean 'everyday-knowledge'?" in told
    assert not Path("plan.yaml").exists()


def test_on_a_terminal_it_asks(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = iter(["smollm2-135m-instruct", "everyday-kn", "everyday-knowledge", "cosine-rmu"])
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr(click, "prompt", lambda *_, **__: next(answers))
    code, told = run("plan", "new", "plan.yaml")
    assert code == 0 and "there is no problem 'everyday-kn'" in told and "Forget the capitals" in told
    plan = yaml.safe_load(Path("plan.yaml").read_text())
    assert (plan["problems"], list(plan["arms"])) == (["everyday-knowledge"], ["base", "cosine-rmu"])
