"""Every console block of the docs is executed as printed, and prints what is shown below its commands.

A block marked `<!-- file: NAME -->` is written to that file first; in an output `...` stands for anything. Command
blocks in `bash` are not executed, and each of their lines is in NOT_RUN with the reason.
"""

from __future__ import annotations

import re
import runpy
import shlex
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

from unlearn_suite.cli import main

DOCS = Path(__file__).parents[2] / "docs"
PAGES = sorted(page for page in DOCS.rglob("*.md") if "_build" not in page.parts)
ORDER = ["first-run", "compare-two-objectives", "your-first-objective", "your-first-dataset", "your-first-metric"]
BLOCK = re.compile(r"(?:^<!-- file: (?P<file>\S+) -->\n)?^```(?P<language>\w*)\n(?P<text>.*?)^```$", re.M | re.S)
COMMAND = re.compile(r"^(\$ |unlearn-suite |python |pip |pytest|lm_eval |cd |eval )")

NOT_RUN = {
    "unlearn-suite run plans/smoke.yaml": "a new plugin's plan; tests/packaging runs it",
    'python -c "from unlearn_suite.testing.tiny import save_tiny*': "makes a model for commands that are not run",
    "python docs/benchmarks/*": "measures; takes minutes",
    "unlearn-suite run plan.yaml --dry-run --estimate": "tests/unit/test_estimate.py runs it",
    "unlearn-suite plan check plan.yaml --estimate": "the same",
    "unlearn-suite plugins check --plugin docs/examples/*": "tests/docs/test_examples_conformance.py runs it",
    "unlearn-suite run plan.yaml --plugin docs/examples/*": "tests/docs/test_examples.py runs it",
    "unlearn-suite run sust-*.yaml": "needs the data of a benchmark; plugins/benchmarks/tests run the problem",
    "unlearn-suite run plugins/benchmarks/plans/*-in-small.yaml": "needs a model and public data",
    "unlearn-suite run plugins/baselines/plans/*.yaml*": "downloads a model, and takes an hour",
    "unlearn-suite run docs/plans/quickstart.yaml": "downloads a model, and takes minutes",
    "unlearn-suite run docs/plans/paper-*.yaml": "downloads a model, and takes hours",
    "unlearn-suite run plan.yaml --plugin ./my_objective.py": "tests/docs/test_readme.py runs it",
    "unlearn-suite plugins check --plugin fade.py": "all checks take a minute; tests/unit/conformance runs them",
    "unlearn-suite plugins check --plugin my_objective.py": "the same",
    "unlearn-suite plugins check unlearn-suite-calm": "the plugin is an example",
    "unlearn-suite plugins check calm --only 'OBJ-*' --json": "the plugin is an example",
    "unlearn-suite export *": "needs a finished cell of the quick start; tests/unit/models runs it",
    "unlearn-suite apply *": "needs a patch; tests/unit/models runs it",
    "unlearn-suite patch show *": "needs a patch; tests/unit/models runs it",
    "lm_eval *": "downloads an evaluation; tests/integration compares with lm-eval offline",
    "unlearn-suite plugins new calm --kind objective": "tests/packaging generates, installs and tests every kind",
    "cd unlearn-suite-calm": "the same",
    'pip install -e ".[test]"': "the same",
    "pytest": "the same",
    "unlearn-suite plan new plan.yaml --problem everyday-knowledge *": "tests/unit/plan runs it",
    "unlearn-suite doctor": "what it says depends on the machine; tests/unit/plan runs it",
    'eval "$(unlearn-suite completion bash)"': "for an interactive shell; tests/unit/plan runs the command",
    "unlearn-suite plan schema > plan.schema.json": "tests/unit/plan runs it",
    "python -m unlearn_suite.testing.golden*": "tests/unit/test_golden.py runs it",
    "python docs/reference/make_*.py*": "tests/docs runs make_reference.py; the other measures",
    "python docs/*.py*": "measures a real model",
    "sphinx-build *": "tests/docs/test_site.py runs it",
}
"""command, with * for any rest -> why it is not executed here"""


def blocks(page: Path) -> list[re.Match[str]]:
    return list(BLOCK.finditer(page.read_text(encoding="utf-8")))


def steps(text: str) -> list[tuple[str, str]]:
    """(command, the output that is shown) of a console block."""
    parts = [part.partition("\n") for part in re.split(r"^\$ ", text, flags=re.M)[1:]]
    return [(command, shown) for command, _, shown in parts]


def execute(command: str, capsys: pytest.CaptureFixture[str]) -> str:
    """What a command prints on stdout. It must end with 0."""
    program, *arguments = shlex.split(command)
    if program == "python":
        assert arguments[0] == "-c"
        exec(arguments[1], {})
        return capsys.readouterr().out
    assert program == "unlearn-suite", command
    with pytest.raises(SystemExit) as left:
        main(arguments)
    written = capsys.readouterr()
    assert not left.value.code, f"{command}: {written.out}{written.err}"
    return written.out


def difference(command: str, shown: str, printed: str) -> str:
    """ "" when the output is what the page shows."""
    pattern = ".*".join(re.escape(part) for part in shown.strip().split("..."))
    pattern = pattern.replace(re.escape("\n") + ".*" + re.escape("\n"), r"\n(?:.*\n)?")
    same = not shown.strip() or re.fullmatch(pattern, printed.strip(), re.S)
    return "" if same else f"$ {command}\n{printed}\ninstead of\n{shown}"


def test_the_tutorials_work_as_printed(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    differences = []
    assert set(ORDER) == {page.stem for page in DOCS.glob("tutorial/*.md")} - {"index"}
    for name in ORDER:
        page = DOCS / "tutorial" / f"{name}.md"
        prose = BLOCK.sub("", page.read_text(encoding="utf-8"))
        for block in blocks(page):
            if block["file"]:
                assert f"`{block['file']}`" in prose, f"{name} does not tell the reader to save {block['file']}"
                Path(block["file"]).write_text(block["text"], encoding="utf-8")
            elif block["language"] == "console":
                differences += [difference(*step, execute(step[0], capsys)) for step in steps(block["text"])]
    assert len(differences) >= 12 and not any(differences), "\n\n".join(filter(None, differences))
    assert_files_are_described(tmp_path / "runs")


def assert_files_are_described(runs: Path) -> None:
    """Every file of real runs is in docs/reference/run-directory.md."""
    patterns = runpy.run_path(str(DOCS / "reference" / "run_files.py"))["FILES"]
    found = [path.relative_to(run).as_posix() for run in runs.iterdir() for path in run.rglob("*") if path.is_file()]
    assert len(found) > 50
    known = [pattern.removeprefix("**/") for pattern in patterns]
    unknown = [
        name for name in found if not any(fnmatchcase(name, p) or fnmatchcase(Path(name).name, p) for p in known)
    ]
    assert not unknown


def test_console_blocks_are_in_tutorials_only():
    """There they are executed."""
    outside = [p for p in PAGES if p.parent.name != "tutorial" and any(b["language"] == "console" for b in blocks(p))]
    assert not outside


def not_executed() -> list[str]:
    """Command lines of all blocks that are not `console`, fenced or indented."""
    lines = []
    for page in PAGES:
        fenced = [line for b in blocks(page) if b["language"] in ("bash", "sh") for line in b["text"].splitlines()]
        rest = BLOCK.sub("", page.read_text(encoding="utf-8"))
        indented = [line.strip() for line in rest.splitlines() if line.startswith("    ")]
        lines += [re.sub(r"\s+# .*", "", line) for line in (*fenced, *indented) if COMMAND.match(line)]
    return lines


def test_what_is_not_executed_has_a_reason():
    commands = not_executed()
    without = [line for line in commands if not any(fnmatchcase(line, p.replace("[", "[[]")) for p in NOT_RUN)]
    assert commands and not without
