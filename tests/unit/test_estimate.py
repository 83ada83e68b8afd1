"""`plan check --estimate` and `run --dry-run --estimate` on a tiny model: what is told, and what it does not need."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from unlearn_suite.cli import main
from unlearn_suite.cli.estimate import size
from unlearn_suite.evaluate.model import EvalModel
from unlearn_suite.models.outline import on_meta
from unlearn_suite.testing.tiny import save_tiny, tiny_model, tiny_tokenizer
from unlearn_suite.worker.estimate import cell as cells
from unlearn_suite.worker.estimate.counting import CountingModel

PLAN = """
plan: 1
name: tiny
models: {tiny: {path: model}}
seeds: [0, 1]
problems:
  - name: words
    summary: forget animals, keep weather
    data:
      forget: {use: jsonl, with: {path: animals.jsonl}}
      retain: {use: jsonl, with: {path: weather.jsonl}}
    metrics:
      - {name: perplexity, use: perplexity, data: retain, want: keep, show: [perplexity]}
      - {name: said, use: generations, data: forget, with: {max_new_tokens: 5}, want: watch}
arms:
  base: {stages: []}
  rmu: {stages: [{use: cosine-rmu, with: {block: 2, meta: none}, steps: 4, batch: 4, save_every: 2}]}
compute: {device: cpu}
"""
ANIMALS = ["the cat drinks milk", "a dog eats meat", "the owl hunts mice", "cows eat grass", "a fox eats hens"]
WEATHER = ["rain falls in april", "snow lies on hills", "wind blows at sea", "fog hides the road", "sun dries hay"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    save_tiny(tmp_path / "model")
    for name, texts in (("animals", ANIMALS), ("weather", WEATHER)):
        Path(f"{name}.jsonl").write_text("\n".join(json.dumps({"text": t, "group": name}) for t in texts))
    Path("plan.yaml").write_text(PLAN)
    return tmp_path


def call(*arguments: str) -> int:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    return int(caught.value.code or 0)


def test_every_cell_is_told(folder, capsys, monkeypatch):
    def no_weights(*_, **__):
        raise AssertionError("weights were read")

    monkeypatch.setattr("transformers.AutoModelForCausalLM.from_pretrained", no_weights)
    monkeypatch.setattr("unlearn_suite.models.load_part", no_weights)
    assert call("plan", "check", "plan.yaml", "--estimate", "--json") == 0
    found = json.loads(capsys.readouterr().out)["cells"]
    assert [c["folder"].split(".")[2] for c in found] == ["base", "rmu", "rmu"]
    base, rmu, again = found
    assert rmu["fits"] and rmu["device"] == "cpu" and not rmu["notes"]
    assert base["flops"]["train"] == 0 < base["flops"]["score"] == rmu["flops"]["score"]
    assert rmu["flops"]["train"] > 0 and set(rmu["by_phase"]) == {"setup", "train", "finish", "score"}
    trained = 3 * 32 * 48 * 4
    assert rmu["disk_bytes"] >= trained + 2 * 3 * trained, "the patch, and two checkpoints of weights and moments"
    assert (base["left_bytes"], rmu["left_bytes"]) == (0, trained)
    assert {k: v for k, v in again.items() if k not in ("id", "folder", "free_bytes", "free_disk")} == {
        k: v for k, v in rmu.items() if k not in ("id", "folder", "free_bytes", "free_disk")
    }


def test_patches_that_would_fill_the_disk_are_told(folder, capsys, monkeypatch):
    monkeypatch.setattr(cells.shutil, "disk_usage", lambda path: SimpleNamespace(free=30_000))
    call("plan", "check", "plan.yaml", "--estimate")
    assert "3 cells leave 36.9 kB of patches; too much: `compute: {patches: drop}`" in capsys.readouterr().out
    plan = Path("plan.yaml").read_text()
    Path("plan.yaml").write_text(plan.replace("compute: {", "compute: {patches: drop, "))
    call("plan", "check", "plan.yaml", "--estimate")
    assert "3 cells leave 0 B of patches\n" in capsys.readouterr().out


def test_a_cell_that_does_not_fit_is_told_and_the_exit_code_is_4(folder, capsys, monkeypatch):
    monkeypatch.setattr(cells, "free_memory", lambda device: 1000)
    assert call("run", "plan.yaml", "--dry-run", "--estimate", "--only", "*.rmu.s0.*") == 4
    out = capsys.readouterr().out
    assert "words.tiny.rmu" in out and "NO" in out and "free now: 1 kB on cpu" in out
    assert not Path("runs").exists()


ATTACKED = (
    PLAN.replace("want: watch", "want: lower")
    + """
attacks:
  - {use: relearn, with: {role: forget, lr: [1.0e-3, 1.0e-2], steps: 4, batch: 2, length: 16}}
  - {use: quantise, scores: [perplexity]}
"""
)


def test_attacks_are_told(folder, capsys):
    Path("plan.yaml").write_text(ATTACKED)
    assert call("plan", "check", "plan.yaml", "--estimate", "--json") == 0
    base, rmu, _ = json.loads(capsys.readouterr().out)["cells"]
    assert base["flops"]["attack"] == 0 and "attack" not in base["by_phase"]
    weights = sum(p.numel() * p.element_size() for p in tiny_model().parameters())
    assert rmu["by_phase"]["attack"] - rmu["by_phase"]["score"] > 2 * weights
    assert rmu["device_bytes"] == rmu["by_phase"]["attack"] and not rmu["notes"]
    assert rmu["flops"]["attack"] > rmu["flops"]["train"]
    assert call("run", "plan.yaml", "--dry-run", "--estimate") == 0
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("words.tiny.rmu"))
    assert line.split()[3] == "attack", "where the most memory is taken"


def test_an_attack_that_cannot_be_traced_is_told(folder, capsys):
    Path("plan.yaml").write_text(PLAN + "attacks: [{use: whole, scores: [said]}]\n")
    Path("whole.py").write_text(WHOLE)
    assert call("plan", "check", "plan.yaml", "--plugin", "whole.py", "--estimate") == 0
    out = capsys.readouterr().out
    assert "words.tiny.rmu: the attack whole could not be traced, only its scoring is counted" in out
    assert "only the real model will do" in out


WHOLE = '''
from unlearn_suite import Attack, AttackConfig, AttackPoint, AttackSpec, hookimpl


class WholeConfig(AttackConfig):
    """Options of `whole`."""

    def points(self):
        return (AttackPoint("there"),)


class Whole(Attack[WholeConfig]):
    def run(self, ctx):
        assert ctx.shape.hidden_size == 32, "only the real model will do"
        yield AttackPoint("there")


@hookimpl
def register_attacks(register):
    register(AttackSpec("whole", "looks at the width of the model", f"{__name__}:Whole", WholeConfig))
'''


def test_estimate_without_dry_run_is_a_usage_error(folder, capsys):
    assert call("run", "plan.yaml", "--estimate") == 2
    assert "--estimate goes with --dry-run" in capsys.readouterr().err


def test_a_plain_check_and_dry_run_stay_light(folder):
    for arguments in (["plan", "check", "plan.yaml"], ["run", "plan.yaml", "--dry-run"]):
        code = (
            "import sys, unlearn_suite.cli as c\n"
            f"try:\n    c.main({arguments!r})\nexcept SystemExit as e:\n    assert not e.code, e.code\n"
            "assert 'torch' not in sys.modules, 'heavy'\n"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


def test_the_passes_that_scoring_asks_for_are_those_of_the_real_model():
    """The same metric calls on a real model and on the one that computes nothing."""
    model, tokenizer = tiny_model(), tiny_tokenizer()
    real = EvalModel(model, tokenizer, batch_tokens=64)
    counting = CountingModel(on_meta(model.config), tokenizer, batch_tokens=64)
    seen = []
    original = real._forward.hidden

    def hidden(ids, mask, positions=None, cache=None, *, keep=False):
        past = cache.get_seq_length() if cache is not None else 0
        seen.append((*ids.shape, past, keep or cache is not None))
        return original(ids, mask, positions, cache, keep=keep)

    real._forward.hidden = hidden
    real._eos_ids = frozenset
    long = "the rain in spain stays mainly in the plain"
    for one in (real, counting):
        one.logprobs([(long, " yes"), (long, " no"), ("a dog", " barks")])
        one.rolling(WEATHER)
        one.generate(ANIMALS, max_new_tokens=4, n=2, temperature=1.0)
    assert [(p.rows, p.tokens, p.past, p.kept) for p in counting.forward.passes] == seen


def test_scoring_flops_and_memory_are_those_of_the_model():
    from unlearn_suite.engine.accounting import FlopCount
    from unlearn_suite.engine.preflight import Family
    from unlearn_suite.worker.estimate.scoring import estimate_passes

    model, tokenizer = tiny_model(), tiny_tokenizer()
    family = Family(on_meta(model.config), torch.float32)
    counting = CountingModel(family.full, tokenizer)
    real = EvalModel(model, tokenizer)
    with FlopCount() as count:
        real.rolling(WEATHER * 4)
    counting.rolling(WEATHER * 4)
    assert estimate_passes(family, counting.forward).flops == pytest.approx(count.flops, rel=0.02)


def test_sizes_for_people():
    assert [size(n) for n in (0, 999, 1000, 12_340_000, None)] == ["0 B", "999 B", "1 kB", "12.3 MB", "?"]
