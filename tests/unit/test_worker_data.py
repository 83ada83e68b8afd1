"""Data that no evaluation can use is one clear error before any training, whatever dataset it comes from."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from unlearn_suite.cli import main
from unlearn_suite.errors import PlanError
from unlearn_suite.evaluate.encode import Encoder
from unlearn_suite.plan import load_plan
from unlearn_suite.plugins import load_catalog
from unlearn_suite.runner.progress import NoProgress
from unlearn_suite.specs import Example
from unlearn_suite.study import Cell, build_cells
from unlearn_suite.testing.tiny import save_tiny, tiny_tokenizer
from unlearn_suite.worker.data_checks import check_examples, check_lengths, doubts
from unlearn_suite.worker.inputs import Inputs, forget_loaded

PLAN = """
plan: 1
name: p
models: {tiny: {path: model}}
problems:
  - name: words
    data:
      forget: {use: jsonl, with: {path: forget.jsonl}}
      retain: {use: jsonl, with: {path: retain.jsonl, where: {group: kept}}}
      held-out: {use: jsonl, with: {path: held-out.jsonl}}
      asked: {use: jsonl, with: {path: asked.jsonl, columns: {labels: labels}}}
    metrics:
      - {use: multiple-choice, data: asked}
      - {use: perplexity, data: held-out}
arms:
  trained: {stages: [{use: graddiff, steps: 1, batch: 1}]}
"""
ROWS = {
    "forget": [{"text": "the cat drinks milk"}],
    "retain": [{"text": "rain falls", "group": "kept"}],
    "held-out": [{"text": "a dog eats meat"}],
    "asked": [{"prompt": "the cat", "choices": [" a", " b"], "answer": "x", "labels": ["x", "y"]}],
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("m") / "model")


@pytest.mark.parametrize(
    ("file", "change", "code", "words"),
    [
        ("retain", {"group": "lost"}, 4, ["'retain' has no examples", "unlearn-suite/jsonl", "a filter"]),
        ("retain", {"grp": "kept"}, 2, ["retain.jsonl:1", "there is no column 'group'; its columns are text, grp"]),
        ("asked", {"answer": "z"}, 2, ["asked.jsonl:1", "'z' is not one of the labels"]),
        ("asked", {"prompt": "x" * 300}, 2, ["the prompt of 'asked:1' has 300 tokens; the model's context is 256"]),
        ("held-out", {"text": "the  cat drinks milk"}, 2, ["1 of 1 texts are in role 'forget' and in role 'held-out'"]),
    ],
    ids=["empty split", "wrong column", "label", "long prompt", "leak"],
)
def test_bad_data_ends_the_run_before_any_training(file, change, code, words, model, tmp_path, monkeypatch, capsys):
    (tmp_path / "model").symlink_to(model)
    for name, rows in ROWS.items():
        changed = [{**row, **change} for row in rows] if name == file else rows
        if "grp" in change and name == file:
            changed = [{"text": "rain falls", **change}]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, changed)))
    (tmp_path / "plan.yaml").write_text(PLAN)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        main(["run", "plan.yaml"])
    told = " ".join("".join(capsys.readouterr()).split())
    assert ended.value.code == code and "Traceback" not in told
    for word in words:
        assert word in told
    assert not (tmp_path / "runs").exists()


def test_all_problems_are_checked_before_the_first_is_trained(model, tmp_path, monkeypatch, capsys):
    (tmp_path / "model").symlink_to(model)
    for name, rows in ROWS.items():
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    second = PLAN[PLAN.index("  - name: words") : PLAN.index("arms:")].replace("words", "more")
    second = second.replace("held-out.jsonl", "forget.jsonl").replace("group: kept", "group: lost")
    third = second.replace("more", "last").replace("group: lost", "group: kept")
    arms = "arms:\n  base: {stages: []}\n"
    (tmp_path / "plan.yaml").write_text(PLAN.replace("arms:\n", f"{second}{third}{arms}"))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        main(["run", "plan.yaml"])
    told = "".join(capsys.readouterr())
    assert ended.value.code == 2 and not (tmp_path / "runs").exists()
    assert told.count("problem 'more': the data role 'retain' has no examples") == 1
    assert told.count("problem 'last', data role 'held-out': 1 of 1 texts are in role 'forget'") == 1
    assert "words" not in told


def test_files_of_one_name_in_a_role_that_is_only_trained_on(model, tmp_path, monkeypatch, capsys):
    (tmp_path / "model").symlink_to(model)
    for name, rows in ROWS.items():
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "more").mkdir()
    (tmp_path / "more/forget.jsonl").write_text(json.dumps({"text": "the cow eats grass"}))
    one = "{use: jsonl, with: {path: forget.jsonl}}"
    (tmp_path / "plan.yaml").write_text(PLAN.replace(one, f"[{one}, {one.replace('forget', 'more/forget')}]"))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        main(["run", "plan.yaml"])
    told = " ".join("".join(capsys.readouterr()).split())
    assert ended.value.code == 2 and not (tmp_path / "runs").exists()
    assert "data role 'forget': two examples have the id 'forget:1'" in told and "files of the same name" in told


def test_data_that_changes_while_a_run_is_under_way_is_not_taken(model, tmp_path, monkeypatch):
    (tmp_path / "model").symlink_to(model)
    for name, rows in ROWS.items():
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "plan.yaml").write_text(PLAN)
    monkeypatch.chdir(tmp_path)
    catalog = load_catalog()
    (made,) = build_cells(load_plan(Path("plan.yaml"), catalog), identity=str)
    Inputs(made, catalog).load(NoProgress())
    forget_loaded()
    (tmp_path / "forget.jsonl").write_text(json.dumps({"text": "the cat drinks water"}))
    with pytest.raises(
        PlanError, match="the data of unlearn-suite/jsonl changed while the run was under way"
    ) as caught:
        Inputs(made, catalog).load(NoProgress())
    assert caught.value.code == "data-changed" and "run the command again" in caught.value.hint
    forget_loaded()


def cell(*scored: str) -> Cell:
    fields = dict.fromkeys(Cell.__dataclass_fields__, "")
    lists = {"metrics": [{"name": role, "data": role} for role in scored], "stages": [], "attacks": [], "training": {}}
    return Cell(**{**fields, **lists})


def test_answers_ids_and_groups() -> None:
    asked = [Example("a", prompt="x", choices=("y", "z"), answer=2)]
    with pytest.raises(PlanError, match="the answer of 'a' is 2, and it has 2 choices"):
        check_examples(cell(), {"asked": asked})
    twice = [Example("a", text="x"), Example("a", text="y")]
    with pytest.raises(PlanError, match="two examples have the id 'a'") as caught:
        check_examples(cell(), {"retain": twice})
    assert caught.value.code == "data-ids" and "data role 'retain'" in caught.value.where
    check_examples(cell(), {"retain": twice[:1], "forget": twice[1:]})
    seen = [Example("a", prompt="one", text=" two", group="member"), Example("b", text="one two", group="non-member")]
    with pytest.raises(PlanError, match="1 of 1 texts are in role 'mia', group member and in group non-member"):
        check_examples(cell(), {"mia": seen})
    check_examples(cell(), {"mia": seen[:1], "forget": seen[:1], "retain": seen[1:]})


def test_lengths_of_what_is_scored() -> None:
    encoder = Encoder(tiny_tokenizer(), max_length=8)
    check_lengths(cell("a"), {"a": [Example("e", text="a long text that is cut into windows")]}, encoder)
    check_lengths(cell(), {"a": [Example("e", prompt="a prompt of a role that is not scored")]}, encoder)
    for example in (
        Example("e", prompt="123456789"),
        Example("e", prompt="1", text="123456789"),
        Example("e", choices=("1", "123456789")),
    ):
        with pytest.raises(PlanError, match="'e' has 9 tokens; the model's context is 8"):
            check_lengths(cell("a"), {"a": [example]}, encoder)


def test_kept_text_that_is_trained_on_is_told() -> None:
    entries = [
        {"name": "ppl", "use": "unlearn-suite/perplexity", "data": role, "want": want}
        for role, want in (("general", "keep"), ("retain", "keep"), ("forget", "higher"))
    ]
    made = cell()
    made.metrics.extend(entries)
    rain, sun = Example("r1", "rain falls"), Example("g2", "the sun shines")
    roles = {"forget": [Example("f1", "a cat")], "retain": [rain], "general": [Example("g1", "rain  falls"), sun]}
    (told,) = doubts(made, roles)
    assert "1 of 2 texts of role 'general'" in told and "'g1'" in told and "look kept" in told
    assert not list(doubts(made, {**roles, "general": [sun]}))
    (told,) = doubts(made, {**roles, "general": [sun], "forget": [rain]})
    assert "in role 'forget' and in role 'retain'" in told


def test_kept_text_that_another_role_trains_on_is_told() -> None:
    rain = Example("a", "rain falls")
    roles = {"retain": [Example("r", "snow")], "spare": [rain], "general": [rain, Example("g", "the sun shines")]}
    made = cell()
    made.metrics.append({"name": "ppl", "use": "unlearn-suite/perplexity", "data": "general", "want": "keep"})
    made.training["data"] = ["forget", "retain", "spare", "general"]
    watching = {"train": {"diagnostics": {"forget": "forget", "retain": "general"}, "stop": None}}
    made.stages.append(watching)
    (told,) = doubts(made, roles)
    assert "1 of 2 texts of role 'general'" in told and "role 'spare'" in told
    # a guard reads its role, and trains nothing on it
    watching["train"]["stop"] = {"role": "spare"}
    assert not list(doubts(made, roles))


QUESTION = Example("q", prompt="Which animal drinks milk?", choices=(" a cat", " a dog"), answer=0)


@pytest.mark.parametrize(
    ("given", "asked", "told"),
    [
        (Example("a", "the cat  drinks milk"), Example("q", prompt="the cat", text=" drinks milk"), True),
        (Example("a", " a cat", "Which animal drinks milk?"), QUESTION, True),
        (Example("q", "Question: Which animal drinks milk? Answer: a cat"), QUESTION, True),
        (Example("q", "Question: Which animal eats grass? Answer: a cow"), QUESTION, False),
        (Example("q", "the cat drinks"), Example("q", prompt="the cat", text=" drinks milk"), False),
        (Example("q", choices=("one", "two")), Example("q", choices=("three", "four")), False),
        # the beginning alone gives no answer away
        (Example("a", "Which animal drinks"), QUESTION, False),
        (Example("a", "the cat"), Example("q", prompt="the cat", text=" drinks milk"), False),
        (Example("a", " a cow", "Which animal eats grass?"), QUESTION, False),
    ],
)
def test_what_an_attack_is_given_of_what_is_asked_after_it_is_told(given, asked, told) -> None:
    made = cell()
    made.metrics.extend(
        {"name": f"{want}-entry", "use": "any", "data": "asked", "want": want} for want in ("lower", "keep")
    )
    attack = {"name": "relearn", "data": ["attack"], "scores": ["lower-entry", "keep-entry"]}
    made.attacks.append(attack)
    roles = {"attack": [given], "forget": [given], "asked": [asked, Example("other", "birds sing")]}
    lines = list(doubts(made, roles))
    assert bool(lines) == told
    if told:
        (line,) = lines
        assert "'relearn'" in line and "1 of 2 of entry 'lower-entry', such as 'q'" in line and "`scores`" in line
        assert "keep-entry" not in line
    # who attacks with what was forgotten, or scores nothing of it, has chosen so
    for change in ({"data": ["forget"]}, {"scores": ["keep-entry"]}):
        made.attacks[:] = [{**attack, **change}]
        assert not list(doubts(made, roles))


def test_a_prompt_that_many_share_gives_nothing_away() -> None:
    made = cell()
    made.metrics.append({"name": "asked", "use": "any", "data": "asked", "want": "lower"})
    made.attacks.append({"name": "relearn", "data": ["attack"], "scores": ["asked"]})
    given = [Example(f"a{i}", text, "Tell a story:") for i, text in enumerate(("of a cat", "of a dog"))]
    asked = [Example(f"q{i}", text, "Tell a story:") for i, text in enumerate(("of a cow", "of a hen"))]
    assert not list(doubts(made, {"attack": given, "asked": asked}))
    (line,) = doubts(made, {"attack": given, "asked": [*asked, given[1]]})
    assert "1 of 3" in line and "'a1'" in line
