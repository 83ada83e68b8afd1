"""The toy from start to end: facts are taught, unlearned and relearned by docs/results/toy_relearning.py."""

from __future__ import annotations

import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from unlearn_suite.testing.tiny import tiny_tokenizer

SCRIPT = Path(__file__).parents[2] / "docs/results/toy_relearning.py"
TOY: dict[str, Any] = runpy.run_path(str(SCRIPT))
VARIANTS = ("none", "meta")
SEED, COUNT, RATE = 0, 60, 1e-3


@pytest.fixture(scope="module")
def seed(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """One seed of the plan without its control, attacked at one rate."""
    plan = yaml.safe_load(TOY["PLAN"].read_text(encoding="utf-8"))
    del plan["arms"]["idle"]
    for attack in plan["attacks"]:
        assert RATE in map(float, attack["with"]["lr"])
        attack["with"]["lr"] = [RATE]
    return TOY["run"](tmp_path_factory.mktemp("toy"), SEED, COUNT, yaml.safe_dump(plan))


def test_what_is_taught_is_known_and_the_oracle_never_knew_a_river(seed: Any) -> None:
    assert seed.recall["base", "forget"] >= 0.95 and seed.recall["base", "retain"] >= 0.95
    assert seed.recall["oracle", "forget"] <= 0.05 and seed.recall["oracle", "retain"] >= 0.95


@pytest.mark.parametrize("arm", VARIANTS)
def test_rivers_are_forgotten_and_hills_kept(seed: Any, arm: str) -> None:
    assert seed.recall["base", "forget"] - seed.recall[arm, "forget"] >= 0.80
    assert seed.recall["base", "retain"] - seed.recall[arm, "retain"] <= 0.05


def test_relearning_brings_rivers_back_to_those_who_knew_them(seed: Any) -> None:
    for arm in VARIANTS:
        assert seed.half["same", arm].step is not None and 0 < seed.half["same", arm].step <= 32
        others = seed.half["others", arm]
        assert others.last == 32 and (others.step is None or 0 < others.step <= 32)
        assert seed.half["same", arm].step < seed.half["same", "oracle"].least
    assert seed.rates["same", "meta", "lr 0.001"].step > seed.rates["same", "none", "lr 0.001"].step
    assert {key[:2]: half for key, half in seed.rates.items()} == seed.half  # there is one rate
    assert seed.half["others", "oracle"].step is None  # nothing of the fifth can be told from the other four


def test_no_fact_tells_of_another() -> None:
    roles = TOY["facts"](SEED, COUNT)
    everything = roles["forget"] + roles["retain"]
    words = [word for f in everything for word in (f["prompt"].split()[1].rstrip(":"), f["text"].strip())]
    assert len(words) == len(set(words)) == 4 * COUNT
    assert len(roles["forget"]) == len(roles["retain"]) == COUNT
    ids = {role: {f["id"] for f in rows} for role, rows in roles.items()}
    assert not ids["attack"] & ids["fifth"] and ids["attack"] | ids["fifth"] == ids["forget"]
    assert len(ids["attack"]) == 4 * len(ids["fifth"])
    assert TOY["facts"](SEED + 1, COUNT) != roles


def test_the_tokenizer_can_say_every_value() -> None:
    tokenizer = tiny_tokenizer()
    values = [f["text"] for rows in TOY["facts"](SEED, COUNT).values() for f in rows]
    encoded = {value: tuple(tokenizer(value)["input_ids"]) for value in values}
    assert len(set(encoded.values())) == len(set(values))
    assert all(tokenizer.decode(ids) == value for value, ids in encoded.items())


def test_the_tables_tell_what_did_not_come_back() -> None:
    half, outcome = TOY["Half"], TOY["Outcome"]
    recall = {(arm, entry): 1.0 for arm in ("none", "meta", "base") for entry in ("forget", "retain")}
    seeds = [
        outcome(0, recall, {("same", "none"): half(2.0, 32), ("same", "meta"): half(6.0, 32)}),
        outcome(1, recall, {("same", "none"): half(4.0, 32), ("same", "meta"): half(None, 32)}),
    ]
    assert list(TOY["recall_table"](seeds))[1] == "| taught | 1.000 | 1.000 | 1.00, 1.00 | 1.00, 1.00 |"
    lines = list(TOY["half_table"](seeds))
    assert "| the same rivers | none | 2 | 4 | 3 |" in lines
    assert "| the same rivers | meta | 6 | > 32 | ≥ 19 |" in lines
    assert "| other rivers | meta | – | – | – |" in lines
    told = list(TOY["rate_table"](seeds))[1:]  # 4 and 28: 16 +- 12.706 * 12
    assert told == ["| the same rivers | worst | 19 | +16 (-1.4e+02 to +1.7e+02), more on 2 of 2 | – |"]


def test_the_script_tells_its_options() -> None:
    done = subprocess.run([sys.executable, str(SCRIPT), "--help"], capture_output=True, text=True, check=True)
    assert "--seeds" in done.stdout and "--facts" in done.stdout
