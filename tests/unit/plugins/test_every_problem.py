"""Every problem that this repository ships is whole: what its file holds, whatever data a user has."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from unlearn_suite import ProblemSpec
from unlearn_suite.plan.packaged import packaged_file
from unlearn_suite.plugins import load_catalog

ENTRIES = [e for e in load_catalog().entries("problem") if e.distribution == "unlearn-suite"]
TAUGHT = ("tofu-forget01", "tofu-forget05", "tofu-forget10", "pii", "verbatim-finetuned", "custom-finetuned")
"""problems that teach a model first, and so can make one that never saw what is to be forgotten"""


def fragment(name: str) -> dict[str, Any]:
    spec = next(e.spec for e in ENTRIES if e.spec.name == name)
    assert isinstance(spec, ProblemSpec)
    body: dict[str, Any] = yaml.safe_load(packaged_file(spec.fragment).read_text(encoding="utf-8"))
    return body


@pytest.mark.parametrize("name", [entry.spec.name for entry in ENTRIES])
def test_a_problem_has_all_its_parts(name: str) -> None:
    body = fragment(name)
    assert body["problem"] == name and body["summary"]
    assert {"forget", "retain", "attack"} <= set(body["data"]) and body["default"]["stages"]
    assert ("oracle" in body) == ("start" in body) == (name in TAUGHT)
    wants = {entry.get("name", entry["use"]): entry.get("want") for entry in body["metrics"]}
    assert set(wants.values()) <= {"lower", "higher", "keep", "watch"}
    expected = {line["metric"] for line in body["expect"]}
    assert expected <= set(wants)
    gone, kept = ([m for m in expected if wants[m] in words] for words in (("lower", "higher"), ("keep",)))
    assert gone and kept, f"{name} expects nothing of what is forgotten, or of what is kept"
    unread = set(body["data"]) - {entry.get("data") for entry in body["metrics"]}
    trained = {"start", "forget", "retain", "prompts", "attack", "held-out"}
    assert unread <= trained, f"{name} measures nothing on {sorted(unread - trained)}"
