"""The good plugin, copied into a folder where a test may break it."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from unlearn_suite.testing.conformance import Result, run

HERE = Path(__file__).parent
FILES = ("good_plugin.py", "good_plugin.conformance.yaml", "few_words.yaml")

LIGHT = (("import torch\n", ""), ("    losses,\n", ""))

Checked = Callable[..., list[Result]]


@pytest.fixture()
def checked(tmp_path: Path) -> Iterator[Checked]:
    """`checked("OBJ-SEED", (old, new), ...)`: the results of a check after changes to the plugin's files."""

    def make(identity: str, *changes: tuple[str, str]) -> list[Result]:
        texts = {name: (HERE / name).read_text(encoding="utf-8") for name in FILES}
        if identity.startswith(("DATA-", "LOAD-")):
            changes = (*LIGHT, *changes)  # these start a process, and what they are about needs no torch
        for old, new in changes:
            homes = [name for name, text in texts.items() if old in text]
            assert homes, f"the good plugin has no {old!r}"
            texts[homes[0]] = texts[homes[0]].replace(old, new)
        for name, text in texts.items():
            (tmp_path / name).write_text(text, encoding="utf-8")
        return list(run("good_plugin.py", [tmp_path / "good_plugin.py"], [identity]))

    yield make
    for name in [n for n, m in sys.modules.items() if (getattr(m, "__file__", "") or "").startswith(str(tmp_path))]:
        del sys.modules[name]
    shutil.rmtree(tmp_path, ignore_errors=True)
