"""What README.md shows is what works: its plans, its objective, its commands and its links."""

from __future__ import annotations

import json
import re
import shutil
import tomllib
from pathlib import Path

import click
import pytest

from unlearn_suite.cli import cli, main
from unlearn_suite.testing.tiny import save_tiny

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), *sorted((ROOT / "plugins").glob("*/README.md"))]
PLAN = """
plan: 1
models: {tiny: {path: model}}
problems:
  - name: words
    summary: forget animals, keep weather
    data: {forget: {use: jsonl, with: {path: forget.jsonl}}, retain: {use: jsonl, with: {path: retain.jsonl}}}
    metrics: [{use: perplexity, data: retain, want: keep}]
arms:
  push: {stages: [{use: push, steps: 3, lr: 1e-2, batch: 2}]}
"""


def blocks(language: str) -> list[str]:
    """The fenced blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def command(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    """`unlearn-suite ...` in this process: exit code, and all that was written."""
    with pytest.raises(SystemExit) as left:
        main(arguments)
    written = capsys.readouterr()
    return int(left.value.code or 0), written.out + written.err


def test_the_objective_of_one_file_runs_as_printed(tmp_path, monkeypatch, capsys):
    (code,) = blocks("python")
    name = re.match(r"# (\w+\.py)", code)
    assert name, "the block tells the name of its file"
    (tmp_path / name[1]).write_text(code)
    save_tiny(tmp_path / "model", num_hidden_layers=8)  # it names block 7
    for role, words in (("forget", "the cat drinks milk"), ("retain", "rain falls in april")):
        (tmp_path / f"{role}.jsonl").write_text(json.dumps({"text": words}) + "\n" + json.dumps({"text": words[::-1]}))
    (tmp_path / "plan.yaml").write_text(PLAN)
    monkeypatch.chdir(tmp_path)
    status, told = command(capsys, "run", "plan.yaml", "--plugin", name[1])
    assert status == 0, told
    (scalars,) = tmp_path.glob("runs/plan/cells/*push*/scalars.jsonl")
    rows = [json.loads(line)["scalars"] for line in scalars.read_text().splitlines()]
    assert rows[-1]["forget"] < rows[0]["forget"]  # the norm grows


def test_the_plans_are_fine(tmp_path, monkeypatch, capsys):
    plans = blocks("yaml")
    assert plans
    for index, text in enumerate(plans):
        (tmp_path / f"plan{index}.yaml").write_text(text)
        status, told = command(capsys, "plan", "check", str(tmp_path / f"plan{index}.yaml"))
        assert status == 0 and "fine" in told, told


def test_the_shipped_plans_are_fine(capsys, tmp_path):
    plans = [*ROOT.glob("docs/plans/*.yaml"), *ROOT.glob("plugins/*/plans/*.yaml")]
    assert ROOT / "docs/plans/quickstart.yaml" in plans
    for name in ("tofu", "rtp", "second"):  # what a user puts beside the plan
        (tmp_path / name).mkdir()
    named = re.findall(r"\b(?:data|arc)/[\w./-]+", "".join(plan.read_text() for plan in plans))
    for name in (*named, "data/custom/forget.jsonl", "data/custom/retain.jsonl"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch() if "." in name else (tmp_path / name).mkdir(exist_ok=True)
    for plan in plans:
        shutil.copy(plan, tmp_path)
        status, told = command(capsys, "plan", "check", str(tmp_path / plan.name))
        assert status == 0 and "fine" in told, told


def test_every_command_line_names_a_command_an_extra_or_a_file_that_exists():
    lines = [line for block in blocks("bash") for line in block.splitlines()]
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    installed = re.findall(r'pip install .*"\.\[(\w+)\]"', "\n".join(lines))
    assert len(installed) == 2 and set(installed) <= set(extras)
    suite_lines = [line for line in lines if line.startswith("unlearn-suite ")]
    assert suite_lines
    for line in suite_lines:
        _, name, *rest = line.split()
        assert name in cli.commands
        assert all((ROOT / word).exists() for word in rest if "/" in word)


def test_the_table_names_every_command_and_no_other():
    rows = re.findall(r"^\| (`unlearn-suite .*) \|$", README, re.MULTILINE)
    codes = [code.replace("\\", "") for row in rows for code in re.findall(r"`(.*?)`", row)]
    named = set()
    for code in codes:
        name, *rest = code.removeprefix("unlearn-suite ").split()
        if code.startswith("--"):
            continue
        inner = cli.commands[name]
        if isinstance(inner, click.Group):
            assert {word for word in "|".join(rest).split("|") if word.islower()} == set(inner.commands), name
        named.add(name)
    assert named == set(cli.commands)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text(encoding="utf-8")):
        if not target.startswith(("http://", "https://")):
            assert (page.parent / target).exists(), target


def test_every_command_has_help(capsys):
    for path in [[], *([name] for name in cli.commands)]:
        status, told = command(capsys, *path, "--help")
        assert status == 0 and "Usage: unlearn-suite" in told
    for name, group in cli.commands.items():
        for inner in group.commands if isinstance(group, click.Group) else ():
            status, told = command(capsys, name, inner, "--help")
            assert status == 0 and f"unlearn-suite {name} {inner}" in told


@pytest.mark.parametrize("path", [[], *([name] for name, c in cli.commands.items() if isinstance(c, click.Group))])
def test_a_group_without_a_command_shows_whole_sentences(capsys, path):
    status, told = command(capsys, *path)
    assert status == 2 and told.startswith("Usage:")
    assert "..." not in told.replace("[ARGS]...", "")
