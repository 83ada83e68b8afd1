"""Where cells keep activations: together when they begin with the same weights, apart when not."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

from unlearn_suite.store import RunDir
from unlearn_suite.study import Cell
from unlearn_suite.testing.tiny import save_tiny
from unlearn_suite.worker.loaded import LoadedModel
from unlearn_suite.worker.shelves import stage_shelf
from unlearn_suite.worker.weights import made_of


@pytest.fixture
def cell(tmp_path: Path) -> Cell:
    fields: dict[str, Any] = {field.name: {} for field in dataclasses.fields(Cell)}
    stages = [{"use": "a", "with": {}, "train": {"lr": 1e-3}}] * 2
    fields |= {"model_ref": {"path": str(save_tiny(tmp_path / "model"))}, "precision": "fp32", "stages": stages}
    fields["start"] = {"from": "original", "control": False}
    return Cell(**{**fields, "id": "one", "arm": "a", "seed": 0})


def test_first_stages_of_a_model_share_and_later_ones_only_with_themselves(cell: Cell, tmp_path: Path) -> None:
    loaded = LoadedModel(None, None, torch.device("cpu"))
    with RunDir.open(tmp_path, "r") as run:
        first = stage_shelf(cell, 0, run, loaded)
        other_arm = dataclasses.replace(cell, arm="b", seed=1, stages=[{"use": "b", "with": {}, "train": {}}])
        same = stage_shelf(other_arm, 0, run, loaded)
        assert first.memory is same.memory and first.folder == same.folder
        assert first.folder is not None and first.folder.parent == run.kept
        second = stage_shelf(cell, 1, run, loaded)
        assert second.memory is not first.memory
        started = dataclasses.replace(cell, start={"from": "start", "control": False, "key": "k"})
        assert stage_shelf(started, 0, run, loaded).memory is not first.memory
        folders = {first.folder, second.folder, stage_shelf(started, 0, run, loaded).folder}
        for seed in (0, 1):
            at_random = dataclasses.replace(started, start={"from": "random", "control": True}, seed=seed)
            folders.add(stage_shelf(at_random, 0, run, loaded).folder)
        folders.add(stage_shelf(dataclasses.replace(cell, seed=1), 1, run, loaded).folder)
        folders.add(stage_shelf(dataclasses.replace(cell, precision="bf16"), 0, run, loaded).folder)
        folders.add(stage_shelf(_other_model(cell, tmp_path), 0, run, loaded).folder)
        assert len(folders) == 8
        assert first.get("last-x", "disk", print) is None
        made = first.make("last-x", "disk", lambda: torch.ones(3))
        assert torch.equal(same.make("last-x", "disk", lambda: torch.zeros(3)), made), "another made it meanwhile"
        found = stage_shelf(cell, 0, run, loaded).get("last-x", "disk", print)
        assert found is not None and torch.equal(found, made)


def test_what_made_the_weights_counts_and_nothing_else(cell: Cell) -> None:
    others: list[dict[str, Any]] = [
        {"data": {"retain": ["other"]}},
        {"plugins": {"mine": "2"}},
        {"seed": 1},
        {"stages": [{"use": "b", "with": {}, "train": {}}]},
        {"chat": True},
    ]
    for other in others:
        changed = dataclasses.replace(cell, **other)
        assert made_of(changed, 0) == made_of(cell, 0), "nothing has been trained yet"
        assert made_of(changed, 1) != made_of(cell, 1), other


def test_a_model_that_changed_in_its_place_is_another(cell: Cell, tmp_path: Path) -> None:
    before = made_of(cell, 0)
    save_tiny(tmp_path / "model", seed=7)
    assert made_of(cell, 0) != before


def _other_model(cell: Cell, folder: Path) -> Cell:
    return dataclasses.replace(cell, model_ref={"path": str(save_tiny(folder / "other", seed=1))})
