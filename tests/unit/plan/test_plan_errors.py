"""What is wrong in a plan is told all at once, each at its place, in plain sentences."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal

import pytest
from pydantic import Field

from unlearn_suite import Config
from unlearn_suite.errors import PlanErrors, PluginError
from unlearn_suite.plan import load_plan
from unlearn_suite.plan.check import check
from unlearn_suite.plan.faults import Faults
from unlearn_suite.plan.text import Mark, Node

Said = Callable[[str], list[str]]

HEAD = "plan: 1\nproblems: [everyday]\n"


def test_several_errors_at_once_in_the_order_of_the_file(said: Said) -> None:
    assert said("""
        plan: 1
        sedes: [0]
        problems: [everyday, everydya]
        arms:
          base: {stages: []}
          rmu:
            stages:
              - {use: rmu, with: {block: 7, fork_evry: 2}, steps: many}
          probe: {stages: [{use: probee}]}
          like: {like: rnu, set: {0.lr: 1}}
        compute: {precision: fp16}
        expect:
          - {problem: everyday, arm: rmu, metric: recall, below: 0.1, valeu: nll}
        """) == [
        "plan.yaml:2:1: unknown key 'sedes' (did you mean 'seeds'?)",
        "plan.yaml:3:22: there is no problem 'everydya' (did you mean 'everyday'?)",
        "plan.yaml:8:37: unknown key 'fork_evry' (did you mean 'fork_every'?)",
        "plan.yaml:8:59: 'steps': expected a whole number, found the text 'many'",
        "plan.yaml:9:26: there is no objective 'probee' (did you mean 'probe'?)",
        "plan.yaml:10:16: there is no arm 'rnu' (did you mean 'rmu'?)",
        "plan.yaml:11:22: 'precision': expected 'fp32' or 'bf16', found the text 'fp16' (did you mean 'bf16'?)",
        "plan.yaml:13:63: unknown key 'valeu' (did you mean 'value'?)",
    ]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("problems: [everyday]\n", "plan.yaml:1:1: missing key 'plan' (version of the format)"),
        ("plan: 1\n", "plan.yaml:1:1: missing key 'problems' (what is to be forgotten: problem names, or problems "
         "written out)"),
        ("plan: 2\nproblems: [everyday]\n", "plan.yaml:1:7: 'plan': expected 1, found 2"),
        ("[1, 2]\n", "plan.yaml:1:1: expected a mapping, found a list of 2"),
        ("plan: 1\nproblems: [everyday]\narms: {}\n",
         "plan.yaml:3:7: 'arms': expected a mapping of 1 or more, found an empty mapping"),
        ("plan: 1\nproblems: []\n", "plan.yaml:2:11: 'problems': expected a list of 1 or more, found an empty list"),
        ("plan: 1\nproblems: everyday\n", "plan.yaml:2:11: 'problems': expected a list, found the text 'everyday'"),
        ("plan: 1\nproblems: [3]\n", "plan.yaml:2:12: a problem is a name or a mapping, found 3"),
        ("plan: 1\nproblems: [{data: {}}]\n", "plan.yaml:2:12: a problem needs `use` or `name` (write `use: NAME` for "
         "one that a plugin ships, or `name: LABEL` with its data)"),
        ("plan: 1\nproblems: [everyday, everyday]\n", "plan.yaml:2:22: there are two problems called 'everyday' (give "
         "one another label with `as`)"),
        (HEAD + "seeds: [0, -1]\n", "plan.yaml:3:12: item 2 of 'seeds': expected a number of 0 or more, found -1"),
        (HEAD + "seeds: [0, 1.5]\n", "plan.yaml:3:12: item 2 of 'seeds': expected a whole number, found 1.5"),
        (HEAD + "seeds: [true]\n", "plan.yaml:3:9: item 1 of 'seeds': expected a whole number, found true"),
        (HEAD + "seeds: [1, 2, 1]\n", "plan.yaml:3:8: 'seeds': seed 1 is listed twice"),
        (HEAD + "name: 7\n", "plan.yaml:3:7: 'name': expected text, found 7 (put it in quotes)"),
        (HEAD + "name: a/b\n", "plan.yaml:3:7: 'name': expected text that matches ^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$, "
         "found the text 'a/b'"),
        (HEAD + "plugins: [./mine.py]\n", "plan.yaml:3:11: there is no file or folder '{folder}/mine.py' "
         "(check the path)"),
    ],
)  # fmt: skip
def test_top_level(said: Said, tmp_path: Path, text: str, line: str) -> None:
    assert said(text) == [line.replace("{folder}", str(tmp_path / "work"))]


@pytest.mark.parametrize(
    ("model", "line"),
    [
        ("{}", "3:16: 'smol': a model is exactly one of `asset`, `hf` and `path`, found none of them"),
        ("{asset: a, path: .}", "found asset and path"),
        ("{hf: a/b}", "3:16: `hf` needs `revision`, the commit to use, and only `hf` takes it"),
        ("{asset: a, revision: main}", "only `hf` takes it"),
        ("{path: nowhere}", "3:23: there is no file or folder"),
        ("{path: ~nobody-of-this-name/x}", "3:23: '~nobody-of-this-name/x' is no path"),
        ("{path: " + "x" * 400 + "}", "3:23: 'xxx"),
        ("{assett: a}", "3:17: unknown key 'assett' (did you mean 'asset'?)"),
        ("{asset: smol135}", "3:24: there is no model asset 'smol135' (known assets: smollm2-135m-instruct)"),
        ("{hf: a/b, revision: 12345}", "3:36: 'revision': expected text, found 12345 (put it in quotes)"),
        ("{asset: smollm2-135m-instruct, trust_remote_code: yes}", "expected true or false, found the text 'yes'"),
    ],
)
def test_models(write: Callable[[str], Path], catalog: object, model: str, line: str) -> None:
    path = write(f"{HEAD}models: {{smol: {model}}}\n")
    with pytest.raises(PlanErrors) as caught:
        load_plan(path, catalog, assets=["smollm2-135m-instruct"])  # type: ignore[arg-type]
    assert any(line.removeprefix("3:16: 'smol': ") in str(error) for error in caught.value.errors), str(caught.value)


@pytest.mark.parametrize(
    ("stage", "line"),
    [
        ("{use: rmu}", "4:17: missing key 'block' (block that is read, counted from 0)"),
        ("{use: rmu, with: {}}", "4:28: missing key 'block' (block that is read, counted from 0)"),
        ("{with: {block: 1}}", "4:17: missing key 'use' (objective name, or distribution/name)"),
        ("rmu", "4:17: a stage is a mapping, found the text 'rmu'"),
        ("{use: rmu, with: [1]}", "4:34: 'with': expected a mapping, found a list of 1"),
        ("{use: rmu, with: {block: '7'}}", "4:42: 'block': expected a whole number, found the text '7'"),
        ("{use: rmu, with: {block: 7, alpha: -3}}", "4:52: 'alpha': expected a number of 0 or more, found -3"),
        ("{use: rmu, with: {block: 7, alpha: .inf}}", "4:52: 'alpha': expected a finite number, found inf"),
        ("{use: rmu, with: {block: 7, meta: relern}}", "4:51: 'meta': expected 'none' or 'relearn', found the text "
         "'relern' (did you mean 'relearn'?)"),
        ("{use: rmu, with: {block: 7, blocks: some}}", "4:53: 'blocks': expected a whole number or a list, found the "
         "text 'some'"),
        ("{use: rmu, with: {block: 7, blocks: [1, x]}}", "4:57: item 2 of 'blocks': expected a whole number, found the "
         "text 'x'"),
        ("{use: rmu, with: {block: 7, warm: {rate: 2}}}", "4:58: 'rate': expected a number of 1 or less, found 2"),
        ("{use: rmu, with: {block: 7, warm: {raet: 1}}}", "4:52: unknown key 'raet' (did you mean 'rate'?)"),
        ("{use: rmu, block: 7, with: {block: 7}}", "4:28: 'block' is an option of the objective (write it under "
         "`with`)"),
        ("{use: rmu, with: {block: 7, steps: 3}}", "4:45: 'steps' is no option of the objective (write it beside "
         "`use`)"),
        ("{use: rmu, with: {block: 7}, lr: 0}", "4:50: 'lr': expected a number above 0, found 0"),
        ("{use: rmu, with: {block: 7}, clip: none}", "4:52: 'clip': expected a number, found the text 'none' (for "
         "nothing write null)"),
        ("{use: rmu, with: {block: 7}, stpes: 5}", "4:46: unknown key 'stpes' (did you mean 'steps'?)"),
        ("{use: probe}", "4:23: 'probe' needs the data role 'prompts', which problem 'everyday' lacks (problem "
         "'everyday' has: forget, retain)"),
    ],
)  # fmt: skip
def test_stages(said: Said, stage: str, line: str) -> None:
    assert said(f"{HEAD}arms:\n  ab: {{stages: [{stage}]}}\n") == [f"plan.yaml:{line}"]


@pytest.mark.parametrize(
    ("arm", "line"),
    [
        ("{}", "5:6: an arm has either `stages` or `like`"),
        ("{like: b, stages: []}", "5:6: an arm has either `stages` or `like`"),
        ("{stages: [], set: {0.lr: 1}}", "5:6: `set` changes the arm named by `like`; there is none here"),
        ("{like: x}", "5:13: arm 'x' is like itself: x -> x (give one of them `stages`)"),
        ("{like: b, set: {1.lr: 1}}", "5:22: '1.lr' does not exist: '1' is no item of the list (it counts from 0 and "
         "has 1)"),
        ("{like: b, set: {lr: 1}}", "5:22: 'lr' does not exist: 'lr' is no item of the list (it counts from 0 and "
         "has 1)"),
        ("{like: b, set: {0.lr.x: 1}}", "5:22: '0.lr.x' does not exist: there is nothing below 0.1"),
        ("{like: b, set: {0.with.metta: none}}", "5:22: unknown key 'metta' (did you mean 'meta'?)"),
        ("{like: b, set: {0.wiht.meta: none}}", "5:22: unknown key 'wiht' (did you mean 'with'?)"),
        ("{like: b, set: {0.with.meta: nine}}", "5:35: 'meta': expected 'none' or 'relearn', found the text 'nine' "
         "(did you mean 'none'?)"),
        ("{like: b, only: [evryday]}", "5:23: this plan has no problem 'evryday' (did you mean 'everyday'?)"),
        ("{stages: [], color: red}", "5:19: unknown key 'color' (known keys: family, from, like, only, set, stages, "
         "sweep)"),
        ("{from: published, stages: []}", "5:13: 'from': expected 'original' or 'random', found the text 'published'"),
        ("{stages: defaults}", "5:15: 'stages': expected a list or 'default' or 'oracle', found the text 'defaults' "
         "(did you mean 'default'?)"),
        ("{stages: oracle}", "5:15: problem 'everyday' brings no 'oracle' (name the problems that do with `only`, or "
         "write the stages out)"),
    ],
)  # fmt: skip
def test_arms(said: Said, arm: str, line: str) -> None:
    text = f"{HEAD}arms:\n  b: {{stages: [{{use: rmu, lr: 0.1, with: {{block: 2}}}}]}}\n  x: {arm}\n"
    assert said(text) == [f"plan.yaml:{line}"]


def test_an_arm_like_a_wrong_arm_does_not_repeat_its_errors(said: Said) -> None:
    text = HEAD + "arms:\n  a: {stages: [{use: rmu, with: {blok: 2}}]}\n  b: {like: a, set: {0.lr: 0.1}}\n"
    assert said(text) == [
        "plan.yaml:4:27: missing key 'block' (block that is read, counted from 0)",
        "plan.yaml:4:34: unknown key 'blok' (did you mean 'block'?)",
    ]


@pytest.mark.parametrize("name", ["a b", "../up", ".hidden", "x" * 65])
def test_labels_become_folder_names(said: Said, name: str) -> None:
    (line,) = said(f'{HEAD}arms: {{"{name}": {{stages: []}}}}\n')
    assert line.startswith(f"plan.yaml:3:8: {name!r} cannot be a label")


@pytest.mark.parametrize(
    ("problem", "line"),
    [
        ("{use: everyday, dtaa: {}}", "2:28: unknown key 'dtaa' (did you mean 'data'?)"),
        ("{use: everyday, data: {forget: {with: {cuont: 3}}}}", "2:51: unknown key 'cuont' (did you mean 'count'?)"),
        ("{use: everyday, data: {forget: {use: toyy}}}", "2:49: there is no dataset 'toyy' (did you mean 'toy'?)"),
        ("{use: everyday, data: {more: {use: lines, with: {path: gone.txt}}}}", "there is no file or folder"),
        ("{use: everyday, data: {more: []}}", "2:41: a data role needs at least one dataset"),
        ("{use: everyday, metrics: {recal: {want: keep}}}", "2:38: problem 'everyday' has no metric entry 'recal' "
         "(did you mean 'recall'?)"),
        ("{use: everyday, metrics: {recall: {show: [nnl]}}}", "2:54: metric 'cloze' has no value 'nnl' (did you mean "
         "'nll'?)"),
        ("{use: everyday, metrics: {recall: {data: forgot}}}", "2:53: problem 'everyday' has no data role 'forgot' "
         "(did you mean 'forget'?)"),
        ("{use: everyday, metrics: {recall: {want: lowest}}}", "2:53: 'want': expected 'lower', 'higher', 'keep' or "
         "'watch', found the text 'lowest' (did you mean 'lower'?)"),
        ("{use: everyday, metrics: {recal: null}}", "2:38: problem 'everyday' has no metric entry 'recal' to drop (did "
         "you mean 'recall'?)"),
        ("{use: everyday, data: {forgte: null}}", "2:35: problem 'everyday' has no data role 'forgte' to drop (did you "
         "mean 'forget'?)"),
        ("{use: everyday, data: {forget: null}}", "2:35: data role 'forget' cannot be dropped: metric entry 'recall' "
         "reads it (drop that entry as well, as in metrics: {recall: null}, or give it another role)"),
        ("{use: everyday, metrics: {extra: {use: both, with: {of: [recall]}}, recall: null}}", "2:80: 'recall' cannot "
         "be dropped: 'extra' combines it (drop 'extra' as well, or change its `of`)"),
        ("{use: everyday, metrics: {recall: 3}}", "2:46: 'recall': expected a mapping, found 3"),
        ("{name: mine, data: {forget: {use: toy}}, metrics: [cloze]}", "2:63: metric 'cloze' needs `data`, a role of "
         "problem 'mine' (its roles: forget)"),
        ("{name: mine, data: {forget: {use: toy}}, default: {stages: [{use: rmuu}]}}", "2:78: there is no objective "
         "'rmuu' (did you mean 'rmu'?)"),
        ("{use: everyday, chat: 1}", "2:34: 'chat': expected true or false, found 1"),
        ("{name: mine}", "2:12: missing key 'data' (role -> dataset or list of datasets)"),
        ("{name: mine, data: {forget: {use: toy}}, metrics: [speed, speed]}", "2:70: problem 'mine' has two metric "
         "entries named 'speed' (give one a `name` of its own)"),
    ],
)  # fmt: skip
def test_problems(said: Said, problem: str, line: str) -> None:
    (found,) = said(f"plan: 1\nproblems: [{problem}]\narms: {{base: {{stages: []}}}}\n")
    assert line in found
    assert found.startswith("plan.yaml:2:")


@pytest.mark.parametrize(
    ("gate", "line"),
    [
        ("{problem: everyday, arm: base, metric: recall}", "4:5: item 1 of 'expect': an expectation needs `below` or "
         "`above`"),
        ("{problem: evryday, arm: base, metric: recall, below: 1}", "4:15: there is no problem 'evryday' (did you mean "
         "'everyday'?)"),
        ("{problem: everyday, arm: bsae, metric: recall, below: 1}", "4:30: there is no arm 'bsae' (did you mean "
         "'base'?)"),
        ("{problem: everyday, arm: base, metric: recal, below: 1}", "4:44: there is no metric entry 'recal' (did you "
         "mean 'recall'?)"),
        ("{problem: everyday, arm: base, metric: recall, value: nl, below: 1}", "4:59: there is no value of 'cloze' "
         "'nl' (did you mean 'nll'?)"),
        ("{problem: everyday, arm: base, metric: recall, of: before, below: 1}", "4:56: 'of': expected"),
        ("{problem: everyday, arm: base, metric: recall, below: small}", "4:59: 'below': expected a number, found the "
         "text 'small'"),
    ],
)  # fmt: skip
def test_expect(said: Said, gate: str, line: str) -> None:
    (found,) = said(f"{HEAD}expect:\n  - {gate}\n")
    assert found.startswith("plan.yaml:" + line.replace("item 1 of 'expect': ", ""))


def test_expect_of_a_dropped_entry(said: Said) -> None:
    plan = "plan: 1\nproblems: [{use: everyday, metrics: {sampled: null}}]\narms: {base: {stages: []}}\nexpect:\n"
    (found,) = said(plan + "  - {problem: everyday, arm: base, metric: sampled, below: 1}\n")
    assert found == "plan.yaml:5:44: there is no metric entry 'sampled' (there are: recall)"


def test_a_list_whose_items_are_wrong_is_not_called_too_short() -> None:
    class Chosen(Config):
        words: tuple[Literal["sun", "moon"], ...] = Field(min_length=1)

    at = Mark("plan.yaml", 2, 3)
    faults = Faults()
    check(Node({"words": Node([Node("mon", at)], at)}, at), Chosen, faults)
    with pytest.raises(PlanErrors) as caught:
        faults.stop("plan.yaml")
    assert [error.message for error in caught.value.errors] == [
        "item 1 of 'words': expected 'sun' or 'moon', found the text 'mon'"
    ]
    faults = Faults()
    check(Node({"words": Node([], at)}, at), Chosen, faults)
    assert len(faults) == 1


def test_a_dropped_role_that_an_objective_reads(said: Said) -> None:
    problem = "{use: everyday, data: {retain: null}, metrics: {sampled: null}}"
    (found,) = said(f"plan: 1\nproblems: [{problem}]\n")
    assert found == (
        "plan.yaml:2:35: 'rmu' needs the data role 'retain', which problem 'everyday' lacks (problem 'everyday' has: "
        "forget)"
    )


def test_a_wrong_fragment_is_told_at_its_own_place(said: Said, tmp_path: Path) -> None:
    fragment = tmp_path / "site" / "fake_plan_plugin" / "problems" / "everyday.yaml"
    fragment.write_text("problem: everyday\ndata: {forget: {use: toy, with: {wrd: x}}}\nmetrcs: []\n")
    assert said(HEAD + "arms: {base: {stages: []}}\n") == [
        f"{fragment}:3:1: unknown key 'metrcs' (did you mean 'metrics'?)",
    ]
    fragment.write_text("problem: everyday\ndata: {forget: {use: toy, with: {wrd: x}}}\n")
    assert said(HEAD + "bogus: 1\narms: {base: {stages: []}}\n") == [
        "plan.yaml:3:1: unknown key 'bogus' (known keys: arms, attacks, compute, expect, metrics, models, name, plan, "
        "plugins, problems, seeds)",
        f"{fragment}:2:34: unknown key 'wrd' (did you mean 'word'?)",
    ]


def test_no_plan(catalog: object, tmp_path: Path) -> None:
    with pytest.raises(PlanErrors, match=r"none\.yaml: there is no such file"):
        load_plan(tmp_path / "none.yaml", catalog)  # type: ignore[arg-type]


def test_a_plan_that_needs_a_broken_plugin_is_a_plugin_failure(write: Callable[[str], Path]) -> None:
    class Broken:
        def entries(self, kind: str) -> list[object]:
            return []

        def find(self, kind: str, name: str) -> object:
            raise PluginError("plugin 'p' is broken: it raised", code="plugin-broken", where="p")

    with pytest.raises(PlanErrors, match=r"plan\.yaml:2:12: plugin 'p' is broken") as caught:
        load_plan(write(HEAD), Broken())  # type: ignore[arg-type]
    assert caught.value.exit_code == 3


def test_an_entry_that_combines_others_names_entries_with_shares(said: Said) -> None:
    plan = """
        plan: 1
        problems:
          - name: mine
            data: {{forget: {{use: toy}}}}
            metrics:
              - {{name: one, use: share, data: forget}}
              - {{use: cloze, data: forget}}
              - {{use: both, with: {{of: {of}}}}}
        arms: {{base: {{stages: []}}}}
        """
    assert said(plan.format(of="[one, tow, both, cloze]")) == [
        "plan.yaml:8:38: problem 'mine' has no metric entry 'tow' to combine (its entries: cloze, one)",
        "plan.yaml:8:43: problem 'mine' has no metric entry 'both' to combine (its entries: cloze, one)",
        "plan.yaml:8:49: 'exact', the first value that 'cloze' shows, is not from 0 (bad) to 1 (good) (a harmonic "
        "mean needs such values)",
    ]
