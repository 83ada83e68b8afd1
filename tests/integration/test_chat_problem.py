"""A problem with `chat: true`, as a user runs it: what is trained on is what is asked."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from unlearn_suite.cli import main
from unlearn_suite.engine import patch
from unlearn_suite.testing.tiny import tiny_model, tiny_tokenizer

PLAN = """
plan: 1
name: chat
models: {tiny: {path: model}}
problems:
  - name: facts
    chat: true
    data: {start: {use: jsonl, with: {path: facts.jsonl}}}
    metrics: [{name: known, use: cloze, data: start, want: lower, show: [exact, nll]}]
    start: {stages: [{use: sft, steps: 60, lr: 1.0e-2, batch: 2}]}
arms: {base: {stages: []}, published: {from: original, stages: []}}
compute: {device: cpu}
"""
FACTS = {"Where is Ann?": "in Rome", "Who is Bob?": "my cat"}
TEMPLATE = (
    "{% for m in messages %}[{{ m.role }}]{{ m.content }}<eos>{% endfor %}{% if add_generation_prompt %}[assistant]"
    "{% endif %}"
)


def suite(*arguments: str) -> int:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    return int(caught.value.code or 0)


def write(folder: Path, template: str | None) -> None:
    tiny_model(eos_token_id=2, pad_token_id=2).save_pretrained(folder / "model")
    tokenizer = tiny_tokenizer()
    tokenizer.pad_token, tokenizer.chat_template = tokenizer.eos_token, template
    tokenizer.save_pretrained(folder / "model")
    rows = [json.dumps({"prompt": question, "text": answer}) for question, answer in FACTS.items()]
    (folder / "facts.jsonl").write_text("\n".join(rows))
    (folder / "plan.yaml").write_text(PLAN)


def test_what_is_taught_in_turns_is_known_in_turns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path, TEMPLATE)
    assert suite("run", "plan.yaml") == 0
    results = json.loads((tmp_path / "runs/chat/results/summary.json").read_text())["results"]
    means = {(row["arm"], row["value"]): row["mean"] for row in results}
    assert means["base", "exact"] == 1.0 > means["published", "exact"]
    cells = [json.loads(path.read_text()) for path in (tmp_path / "runs/chat/cells").glob("*/cell.json")]
    assert all(cell["chat"] for cell in cells)

    # In the words of the template, written here once more, the taught model answers and ends its turn.
    (start,) = (tmp_path / "runs/chat/shared/starts").glob("*/patch.safetensors")
    hf, tokenizer = tiny_model(eos_token_id=2, pad_token_id=2), tiny_tokenizer()
    patch.apply(start, hf)
    for question, answer in FACTS.items():
        ids = tokenizer(f"[user]{question}<eos>[assistant]{answer}<eos>", return_tensors="pt").input_ids
        n = len(tokenizer(answer).input_ids) + 1
        assert torch.equal(hf(ids).logits[0, -n - 1 : -1].argmax(-1), ids[0, -n:])


def test_a_model_without_a_template_is_told_before_any_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path, None)
    assert suite("run", "plan.yaml") != 0
    said = capsys.readouterr()
    assert "has no chat template" in said.out + said.err
    assert not (tmp_path / "runs/chat/shared/starts").exists()
