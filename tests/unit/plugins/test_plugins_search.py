"""plugins search: what is installed, and what is only known."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from unlearn_suite.cli import main

FAR = """
registry: 1
plugins:
  toy-far: {summary: far away, status: released, paper: "arXiv:1", provides: {objective: [npo]}}
  toy-later: {summary: some day, status: planned, provides: {metric: [npo-score]}}
"""


@pytest.fixture(autouse=True)
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "registry.yaml").write_text(FAR)
    monkeypatch.setenv("UNLEARN_SUITE_REGISTRY", str(tmp_path / "registry.yaml"))


def search(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as left:
        main(["plugins", "search", *arguments])
    assert not left.value.code
    return capsys.readouterr().out


def test_what_is_installed_and_what_is_known(capsys: pytest.CaptureFixture[str]) -> None:
    told = search(capsys, "NPO")
    assert "objective  npo  (not installed: pip install toy-far)\n    far away" in told
    assert "metric     npo-score  (not installed: not released yet)" in told
    records = json.loads(search(capsys, "perplexity", "--json"))
    found = {(r["name"], r["kind"], r["installed"]) for r in records}
    assert found == {("perplexity", "metric", True), ("fluency", "metric", True)}


def test_a_paper_is_found(capsys: pytest.CaptureFixture[str]) -> None:
    assert "npo" in search(capsys, "arxiv:1")
    assert "cosine-rmu" in search(capsys, "2605.26454")


def test_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert search(capsys, "zzzz").startswith("nothing")
