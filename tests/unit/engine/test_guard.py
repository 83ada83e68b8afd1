"""The collapse guard: the last good weights, said so, held-out text, and the same end after a resume."""

from __future__ import annotations

import json

import pytest
import torch
from pydantic import ValidationError

from unlearn_suite import Config, Example, Loss, LossObjective, Requirements, TrainingError
from unlearn_suite.engine import patch
from unlearn_suite.engine.held_out import hold_out
from unlearn_suite.engine.loop import StageJob, run_stage
from unlearn_suite.specs import Stop, Train
from unlearn_suite.testing.tiny import tiny_model, tiny_tokenizer


class Ruin(LossObjective[Config]):
    """Gradient ascent: kept text suffers more with each step."""

    def requirements(self, shape):
        return Requirements(shape.select("mlp_out", [1, 2]), reads=-1, logits=True)

    def loss(self, batch):
        forget = batch["forget"]
        return Loss({"ascent": forget.mean(self.ctx.policy.token_logprobs(forget))})


class Shake(Ruin):
    """The same for four steps, and back again."""

    def loss(self, batch):
        forget = batch["forget"]
        sign = 1 if self.ctx.step_index < 4 else -1
        return Loss({"shake": sign * forget.mean(self.ctx.policy.token_logprobs(forget))})


def texts():
    return {
        "forget": [Example(f"f{i}", f"the grey cat number {i} sat") for i in range(8)],
        "retain": [Example(f"r{i}", f"rain fell on hill {i} all day", unit=f"u{i // 2}") for i in range(24)],
    }


def run(folder, services, *, stop=None, steps=12, stop_after=None, dtype=torch.float32, examples=None, kind=Ruin):
    model = tiny_model("llama").to(dtype)
    rows, weights = [], []

    def on_step(step, scalars):
        rows.append(scalars)
        weights.append({n: p.detach().clone() for n, p in model.named_parameters()})

    job = StageJob(
        index=0,
        objective=kind(Config()),
        train=Train(steps=steps, lr=3e-3, batch=4, length=32, save_every=2, stop=stop),
        required_roles=("forget", "retain"),
        examples=examples or texts(),
        seed=0,
        artifacts=folder / "a",
        checkpoints=folder / "c",
        services=services,
        on_step=on_step,
        should_stop=lambda: stop_after is not None and len(rows) >= stop_after,
    )
    return model, rows, weights, run_stage(model, tiny_tokenizer(), job)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("limit", ["retain_kl", "ppl_rise"])
def test_the_last_good_weights_are_kept_to_the_bit_and_it_says_so(tmp_path, services, limit, dtype):
    free, readings, weights, _ = run(tmp_path / "free", services, stop=Stop(**{limit: 1e6}, every=2), dtype=dtype)
    name = {"retain_kl": "guard_retain_kl", "ppl_rise": "guard_ppl_rise"}[limit]
    levels = {i: row[name] for i, row in enumerate(readings) if name in row}
    assert list(levels) == [1, 3, 5, 7, 9, 11] and levels[5] < levels[7]
    most = (max(levels[i] for i in (1, 3, 5)) + levels[7]) / 2
    services.said.clear()
    model, rows, _, result = run(tmp_path / "guarded", services, stop=Stop(**{limit: most}, every=2), dtype=dtype)
    assert len(rows) == 8 and rows == readings[:8]
    for n, p in model.named_parameters():
        assert torch.equal(p, weights[5][n]), n
    assert (result.collapse["stopped_after"], result.collapse["kept"]) == (8, 6)
    assert result.closing["guard_kept_step"] == 6.0
    (told,) = [line for line in services.said if "stopped" in line]
    assert "stopped after step 8 of 12" in told and "after step 6 are kept" in told
    (item,) = json.loads((tmp_path / "guarded" / "a" / "report.json").read_text())["items"]
    assert item["title"] == "Collapse guard" and "stopped after step 8 of 12" in item["note"]
    assert not torch.equal(free.model.layers[1].mlp.down_proj.weight, model.model.layers[1].mlp.down_proj.weight)


@pytest.mark.parametrize("stop_after", [3, 6, 7])
def test_a_resumed_stage_ends_at_the_same_bits(tmp_path, services, stop_after):
    stop = Stop(retain_kl=1e6, every=2)
    _, readings, _, _ = run(tmp_path / "free", services, stop=stop)
    levels = [row["guard_retain_kl"] for row in readings if "guard_retain_kl" in row]
    stop = Stop(retain_kl=(levels[2] + levels[3]) / 2, every=2)
    whole, _, _, ended = run(tmp_path / "whole", services, stop=stop)
    assert run(tmp_path / "cut", services, stop=stop, stop_after=stop_after)[3].stopped
    resumed, rows, _, result = run(tmp_path / "cut", services, stop=stop)
    assert len(rows) == 8 - stop_after and result.collapse == ended.collapse
    for p, q in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(p, q)
    notes = [json.loads((tmp_path / f / "a" / "report.json").read_text()) for f in ("whole", "cut")]
    assert notes[0] == notes[1]


@pytest.mark.parametrize("patience", [1, 9])
def test_a_patient_guard_ends_later_with_the_same_weights(tmp_path, services, patience):
    _, readings, weights, _ = run(tmp_path / "free", services, stop=Stop(retain_kl=1e6, every=2))
    levels = [row["guard_retain_kl"] for row in readings if "guard_retain_kl" in row]
    stop = Stop(retain_kl=(levels[2] + levels[3]) / 2, every=2, patience=patience)
    model, _, _, result = run(tmp_path / "patient", services, stop=stop)
    assert (result.collapse["stopped_after"], result.collapse["kept"]) == (10 if patience == 1 else 12, 6)
    for n, p in model.named_parameters():
        assert torch.equal(p, weights[5][n]), n
    for stop_after in (7, 9):  # a resumed stage knows how often it has been patient
        folder = tmp_path / f"cut{stop_after}"
        assert run(folder, services, stop=stop, stop_after=stop_after)[3].stopped
        assert run(folder, services, stop=stop)[3].collapse == result.collapse


def test_what_recovers_within_the_patience_is_kept(tmp_path, services):
    free, readings, _, _ = run(tmp_path / "free", services, stop=Stop(retain_kl=1e6, every=2), kind=Shake)
    levels = [row["guard_retain_kl"] for row in readings if "guard_retain_kl" in row]
    limit = (levels[-1] + max(levels)) / 2
    bad = [level > limit for level in levels]
    assert levels[-1] < 0.8 * max(levels) and 0 < sum(bad) < 5
    stop = Stop(retain_kl=limit, every=2, patience=sum(bad))
    model, rows, _, result = run(tmp_path / "patient", services, stop=stop, kind=Shake)
    assert result.collapse is None and len(rows) == 12 and result.closing["guard_kept_step"] == 12.0
    for p, q in zip(model.parameters(), free.parameters(), strict=True):
        assert torch.equal(p, q)
    assert run(tmp_path / "not", services, stop=stop.model_copy(update={"patience": 0}), kind=Shake)[3].collapse


def test_a_further_reading_reads_only_the_model_as_it_is_now(tmp_path, services):
    calls = {}
    for every in (12, 2):
        result = run(tmp_path / str(every), services, stop=Stop(retain_kl=1e6, every=every))[3]
        calls[every] = result.views.replay.block_calls
    readings, batches = 5, 1  # more than the other guard takes; six of 24 texts are held out
    assert calls[2] - calls[12] == readings * batches * result.views.shape.n_blocks


def test_a_first_reading_that_is_bad_leaves_the_model_and_an_empty_patch(tmp_path, services):
    model, _, _, result = run(tmp_path, services, stop=Stop(retain_kl=1e-12, every=1))
    assert result.collapse["kept"] == 0
    for p, q in zip(model.parameters(), tiny_model("llama").parameters(), strict=True):
        assert torch.equal(p, q)
    patch.save(tmp_path / "p.safetensors", model, result.original, {})
    assert patch.apply(tmp_path / "p.safetensors", model) == {}


def test_held_out_text_is_whole_units_of_a_quarter_at_most_and_never_trained_on():
    examples = texts()
    trained, held = hold_out(examples, Stop(retain_kl=1, examples=5))
    assert len(held) == 4 and len(trained["retain"]) == 20 and trained["forget"] is examples["forget"]
    assert not {e.unit for e in held} & {e.unit for e in trained["retain"]}
    assert len(hold_out(examples, Stop(retain_kl=1, examples=500))[1]) == 6
    sizes = [10, 10, 3, 1]  # units of many texts, such as the passages of a document
    passages = [Example(f"p{u}.{i}", "rain", unit=f"u{u}") for u, size in enumerate(sizes) for i in range(size)]
    _, held = hold_out({**examples, "retain": passages}, Stop(retain_kl=1))
    assert {e.unit for e in held} == {"u2", "u3"}
    assert hold_out(examples, None) == (examples, ())
    other, held = hold_out({**examples, "general": examples["forget"]}, Stop(retain_kl=1, role="general", examples=3))
    assert other["retain"] == examples["retain"] and len(held) == 3
    for bad in ({"forget": examples["forget"]}, {"retain": examples["retain"][:2]}, {"retain": passages[:20]}):
        with pytest.raises(TrainingError):
            hold_out(bad, Stop(retain_kl=1))


def test_a_guard_without_a_limit_is_refused():
    with pytest.raises(ValidationError, match="needs `retain_kl` or `ppl_rise`"):
        Stop(every=2)


class Edit(Ruin):
    """A closed form: nothing but an edit at the end, to `size` times the weights."""

    size = 5.0

    def finish(self):
        with torch.no_grad():
            for parameter in self.ctx.trainable.values():
                parameter.mul_(self.size)
        return {}


class SlightEdit(Edit):
    size = 1.001


@pytest.mark.parametrize("steps", [0, 2])
def test_an_edit_at_the_end_is_measured_and_taken_back_where_it_does_harm(tmp_path, services, steps):
    _, rows, weights, free = run(tmp_path / "free", services, stop=Stop(retain_kl=1e6, every=2), steps=steps, kind=Edit)
    harm = last_reading(tmp_path / "free")
    trained = weights[-1] if steps else dict(tiny_model("llama").named_parameters())
    before = rows[-1]["guard_retain_kl"] if steps else 0.0
    assert free.collapse is None and harm > 2 * before
    stop = Stop(retain_kl=(before + harm) / 2, every=2)
    model, _, _, result = run(tmp_path / "harm", services, stop=stop, steps=steps, kind=Edit)
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, trained[name]), name
    assert result.collapse["kept"] == steps and "retain KL" in result.collapse["why"]
    (told,) = [line for line in services.said if "took its last edit back" in line]
    assert ("after step 2 are kept" if steps else "from before the stage are kept") in told
    model, _, _, result = run(tmp_path / "slight", services, stop=stop, steps=steps, kind=SlightEdit)
    assert result.collapse is None and result.closing["guard_kept_step"] == steps
    assert not torch.equal(model.model.layers[1].mlp.down_proj.weight, trained["model.layers.1.mlp.down_proj.weight"])


def last_reading(folder):
    (item,) = json.loads((folder / "a" / "report.json").read_text())["items"]
    return item["lines"]["KL, nats per token"][-1][1]
