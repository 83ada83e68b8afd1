"""What a relearning attacker is given holds nothing of what the entries ask that docs/how-to/attack.md says to read."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

import pytest

from unlearn_suite import Example
from unlearn_suite.plan import load_plan
from unlearn_suite.plan.model import DataUse, Plan
from unlearn_suite.plugins import load_catalog, load_target
from unlearn_suite.study import Cell
from unlearn_suite.worker.data_checks import doubts

B, K, T = (files(f"unlearn_suite_{name}") / "conformance" for name in ("benchmarks", "knowledge", "toxicity"))
EXAMS = f"questions: {K}/wmdp, mmlu: {K}/mmlu"
CASES = {
    "everyday-knowledge": ("", ["forget", "forget-unseen", "forget-choice"]),
    "everyday-toxicity": ("", ["toxicity"]),
    "wmdp-bio": (f"corpora: {K}/corpora, {EXAMS}", ["wmdp-robust"]),
    "wmdp-cyber": (f"corpora: {K}/corpora, {EXAMS}", ["wmdp-robust"]),
    "wmdp-chem": (EXAMS, ["wmdp", "wmdp-cloze", "wmdp-robust"]),
    "mmlu-subject": (f"folder: {K}/mmlu", ["subject", "subject-robust"]),
    "toxicity-rtp": (f"folder: {T}/rtp", ["toxic-prompts", "nontoxic-prompts"]),
    "toxicity-pairs": (f"folder: {T}/pairs", ["continued", "pairs"]),
    "stereotypes": (f"crows_pairs: {B}/stereotypes, stereoset: {B}/stereotypes/dev.json", ["crows-pairs", "stereoset"]),
    **{f"tofu-forget{part}": (f"path: {B}/tofu", ["forget-unattacked"]) for part in ("01", "05", "10")},
    "rwku": (f"folder: {B}/rwku, people: [Ada Fenn]", ["blanks", "questions", "attacks", "questions-likelihood"]),
    **{
        f"muse-{corpus}": (f"path: {B}/muse, shots: false", ["verbmem", "knowmem", "extraction", "exact"])
        for corpus in ("news", "books")
    },
    **{
        f"verbatim{kind}": (f"path: {B}/story.txt, words: 16", ["extraction", "exact", "rouge", "forget-perplexity"])
        for kind in ("", "-finetuned")
    },
    **{
        f"custom{kind}": (f"folder: {B}/custom", ["extraction", "exact", "rouge"]) for kind in ("", "-finetuned")
    },
    "pii": ("people: 20", ["known", "unknown", "extraction"]),
}  # fmt: skip


def words(text: str) -> str:
    return f" {' '.join(text.casefold().split())} "


def examples(uses: Sequence[DataUse]) -> list[Example]:
    return [example for use in uses for example in load_target(use.spec.load)(use.config)]


def planned(name: str, options: str, folder: Path) -> Plan:
    """A plan of one problem that relearning attacks."""
    path = folder / "plan.yaml"
    path.write_text(
        f"plan: 1\nproblems: [{{use: {name}{f', with: {{{options}}}' if options else ''}}}]\nattacks: [relearn]\n"
    )
    return load_plan(path, load_catalog())


@pytest.mark.parametrize("name", CASES)
def test_an_attacker_is_not_told_what_is_asked(name: str, tmp_path: Path) -> None:
    options, read = CASES[name]
    problem = planned(name, options, tmp_path).problems[0]
    given = examples(problem.data["attack"])
    told = [words(f"{e.prompt} {e.text}") for e in given]
    roles = {entry.name: entry.data for entry in problem.metrics}
    assert told
    for entry in read:
        asked = examples(problem.data[str(roles[entry])])
        assert asked
        if name in ("rwku", "pii"):  # where a probe, or a person, has several wordings
            assert not {e.unit for e in given} & {e.unit for e in asked}, entry
        for e in asked:
            # of a choice its question, or its texts where it has none; else all of it
            needles = ([e.prompt] if e.prompt else [*e.choices]) if e.choices else [f"{e.prompt} {e.text}"]
            for needle in map(words, needles):
                assert not any(needle in text for text in told), f"{entry}: {needle}"


SPOILED = {
    **{f"wmdp-{subject}": ["wmdp", "wmdp-cloze"] for subject in ("bio", "cyber")},
    "mmlu-subject": ["subject-trained", "subject-cloze"],
    **{
        f"tofu-forget{part}": ["forget-truth", "forget-probability", "forget-rouge", "extraction"]
        for part in ("01", "05", "10")
    },
}
"""entries that are scored under attack unless told otherwise, and ask what the attacker is given (`rwku` has one more,
`questions-trained`, which asks it in other words)"""


@pytest.mark.parametrize("name", CASES)
def test_the_check_of_data_speaks_of_spoiled_entries_alone(name: str, tmp_path: Path) -> None:
    options, read = CASES[name]
    made = planned(name, options, tmp_path)
    problem, attack = made.problems[0], made.attacks[0]
    roles = {role: examples(uses) for role, uses in problem.data.items()}
    entries = [{"name": m.name, "use": m.entry.qualified, "data": m.data, "want": m.want} for m in problem.metrics]
    found = {}
    for which, scores in (("all", attack.scored(problem)), ("read", read)):
        fields = {
            **dict.fromkeys(Cell.__dataclass_fields__, ""),
            **{"metrics": entries, "stages": [], "training": {}},
            "attacks": [{"name": "relearn", "data": ["attack"], "scores": list(scores)}],
        }
        found[which] = list(doubts(Cell(**fields), roles))
    assert not found["read"]
    told = [entry["name"] for entry in entries if any(f"of entry {entry['name']!r}" in line for line in found["all"])]
    assert told == SPOILED.get(name, []), found["all"]
    assert len(found["all"]) == bool(told)
