"""doctor, completion, and JSON wherever a program may read."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from unlearn_suite.cli import main
from unlearn_suite.plan import plan_schema
from unlearn_suite.plugins import load_catalog

room = import_module("unlearn_suite.cli.doctor")  # the package has the command of that name


def call(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    with pytest.raises(SystemExit) as left:
        main(arguments)
    return int(left.value.code or 0), capsys.readouterr().out


def findings(capsys: pytest.CaptureFixture[str], code: int = 0) -> dict[str, dict[str, str]]:
    found, out = call(capsys, "doctor", "--json")
    assert found == code
    return {record["topic"]: record for record in json.loads(out)}


def test_the_doctor_finds_what_is_there_and_what_is_not(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("UNLEARN_SUITE_CACHE", str(tmp_path))
    monkeypatch.setattr(room.metadata, "version", lambda name: {"peft": "0.1"}.get(name, "999"))
    found = findings(capsys)
    assert found["extra lora"]["state"] == "missing"
    assert found["extra lora"]["action"] == 'pip install "unlearn-suite[lora]"'
    assert found["extra hub"]["state"] == "ok"
    assert found["model smollm2-135m-instruct"]["action"].startswith("unlearn-suite models fetch smollm2")
    assert found["disk: here"]["told"].startswith(tuple("0123456789"))
    assert found["plugin unlearn-suite:builtin"]["state"] == "ok"
    assert {"test", "dev"}.isdisjoint(topic.removeprefix("extra ") for topic in found)


def test_the_doctor_says_what_keeps_it_from_working(monkeypatch, capsys):
    monkeypatch.setattr(room.metadata, "version", lambda name: "0.0.1" if name == "transformers" else "999")
    found = findings(capsys, code=4)
    assert found["package"] == {
        "topic": "package",
        "state": "wrong",
        "told": "transformers 0.0.1",
        "action": 'pip install "transformers>=5"',
    }
    monkeypatch.undo()
    assert "ok       unlearn-suite" in call(capsys, "doctor")[1]


def test_every_shell_has_its_script(capsys):
    for shell, word in (
        ("bash", "complete -o nosort"),
        ("zsh", "#compdef unlearn-suite"),
        ("fish", "complete --no-files"),
    ):
        code, script = call(capsys, "completion", shell)
        assert code == 0 and word in script and "_UNLEARN_SUITE_COMPLETE" in script


@pytest.mark.parametrize(
    ("words", "offered"),
    [("plu", "plain,plugins"), ("plugins show cosine", "plain,cosine-rmu"), ("plan sc", "plain,schema")],
)
def test_a_shell_is_offered_commands_and_names(words, offered):
    place = str(len(words.split()))
    environment = {
        "COMP_WORDS": f"unlearn-suite {words}",
        "COMP_CWORD": place,
        "_UNLEARN_SUITE_COMPLETE": "bash_complete",
    }
    code = "from unlearn_suite.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.stdout.splitlines() == [offered], done.stderr


def test_plan_check_for_programs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("plan.yaml").write_text("plan: 1\nproblems: [everyday-knowledge]\nseeds: [0, 1]\n")
    code, out = call(capsys, "plan", "check", "plan.yaml", "--json")
    told = json.loads(out)
    assert code == 0 and told["fine"] and (told["problems"], told["seeds"]) == (1, 2)
    Path("plan.yaml").write_text("plan: 1\nproblems: [everyday-knowledge]\nseedz: [0]\n")
    code, out = call(capsys, "plan", "check", "plan.yaml", "--json")
    (error,) = json.loads(out)["errors"]
    assert code == 2 and error["where"] == "plan.yaml:3:1" and error["hint"] == "did you mean 'seeds'?"


def test_what_is_written_is_told_to_programs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    code, out = call(capsys, "plan", "new", "a.yaml", "--problem", "everyday-knowledge", "--json")
    assert code == 0 and json.loads(out) == {"plan": "a.yaml"} and Path("a.yaml").is_file()
    code, out = call(capsys, "plugins", "new", "calm", "--kind", "metric", "--json")
    told = json.loads(out)
    assert code == 0 and (told["distribution"], told["kind"], told["name"]) == ("unlearn-suite-calm", "metric", "calm")
    assert Path(told["folder"], "pyproject.toml").is_file()


def test_the_docs_of_every_option_reach_the_schema():
    catalog = load_catalog()
    defs = plan_schema(catalog)["$defs"]
    for kind in ("objective", "dataset", "metric"):
        for entry in catalog.entries(kind):
            told = defs[f"{kind}:{entry.qualified}"]["properties"]["with"]["properties"]
            for name, field in entry.spec.config.model_fields.items():
                key = field.alias or name
                assert told[key].get("description") == field.description and field.description, (
                    f"{entry.qualified} {key}"
                )
