"""LoRA, recomputation, and that a failing stage leaves the model as it was."""

from __future__ import annotations

import copy

import pytest
import torch
from peft import PeftModel

from unlearn_suite import Config, Loss, LossObjective, PlanError, Requirements, TrainingError
from unlearn_suite.engine import patch
from unlearn_suite.engine.loop import StageJob, run_stage
from unlearn_suite.engine.lora import Adapters
from unlearn_suite.specs import Lora, Train
from unlearn_suite.testing.tiny import ARCHITECTURES, tiny_model, tiny_tokenizer


class Push(LossObjective[Config]):
    """Forget activations away, retain activations where they are; looks at everything as it goes."""

    tensors = ("mlp_out", "attn_out")
    fail_at = -1

    def requirements(self, shape):
        return Requirements(tuple(n for k in self.tensors for n in shape.select(k, [1, 2])), reads=2)

    def setup(self, ctx):
        super().setup(ctx)
        self.reference_seen = []

    def loss(self, batch):
        if self.ctx.step_index == self.fail_at:
            raise TrainingError("on purpose", code="test")
        f, r = batch["forget"], batch["retain"]
        h = self.ctx.policy.hidden(f, [2])[2]
        now, ref = (view.hidden(r, [2])[2] for view in (self.ctx.policy, self.ctx.reference))
        self.reference_seen.append((r, ref))
        return Loss({"push": -f.mean(h.square().mean(-1)), "keep": r.mean((now - ref).square().mean(-1))})


def run(examples, tmp_path, services, *, arch="llama", objective=None, stop_after=None, **train):
    model = tiny_model(arch)
    rows: list[dict[str, float]] = []
    objective = objective or Push(Config())
    settings = {"steps": 6, "lr": 1e-2, "batch": 3, "length": 24, "save_every": 2, **train}
    job = StageJob(
        index=0,
        objective=objective,
        train=Train(**settings),
        required_roles=("forget", "retain"),
        examples=examples,
        seed=3,
        artifacts=tmp_path,
        checkpoints=tmp_path,
        services=services,
        on_step=lambda step, scalars: rows.append(scalars),
        should_stop=lambda: stop_after is not None and len(rows) >= stop_after,
    )
    return model, rows, objective, lambda: run_stage(model, tiny_tokenizer(), job)


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_lora_trains_adapters_against_the_base_and_merges_them(arch, examples, tmp_path, services):
    base = tiny_model(arch)
    names = [n for n, _ in base.named_parameters()]
    model, rows, objective, go = run(examples, tmp_path, services, arch=arch, lora=Lora(rank=2, alpha=4), lr=5e-2)
    result = go()
    assert rows[0]["keep"] == 0.0 and rows[-1]["push"] < rows[0]["push"]
    assert all(".lora_" in name for name in result.views.trainable)
    assert [n for n, _ in model.named_parameters()] == names  # no trace of the adapters
    before, after = dict(base.named_parameters()), dict(model.named_parameters())
    changed = {n for n in names if not torch.equal(before[n], after[n])}
    assert changed == set(result.original) and len(changed) == 4
    for name in changed:
        assert torch.equal(result.original[name], before[name])
        delta = (after[name] - before[name]).detach()
        assert torch.linalg.matrix_rank(delta, rtol=1e-3) <= 2
    batch, seen = objective.reference_seen[-1]  # the reference is the base model, after many steps too
    views_of_base = copy.deepcopy(base)
    out = views_of_base(batch.input_ids, attention_mask=batch.attention_mask, output_hidden_states=True)
    real = batch.attention_mask.bool()
    torch.testing.assert_close(seen[real], out.hidden_states[3][real], rtol=0, atol=0)


def test_lora_resumes_to_the_same_bits(examples, tmp_path, services):
    lora = Lora(rank=2)
    whole, _, _, go = run(examples, tmp_path / "whole", services, lora=lora)
    go()
    cut, _, _, go = run(examples, tmp_path / "cut", services, lora=lora, stop_after=3)
    assert go().stopped
    base = dict(tiny_model("llama").named_parameters())
    assert all(torch.equal(p, base[n]) for n, p in cut.named_parameters())
    resumed, rows, _, go = run(examples, tmp_path / "cut", services, lora=lora)
    go()
    assert len(rows) == 3
    final = dict(resumed.named_parameters())
    assert all(torch.equal(p, final[n]) for n, p in whole.named_parameters())


@pytest.mark.parametrize("arch", ["llama", "gpt2"])
def test_the_adapter_is_kept_as_peft_reads_it(arch, examples, tmp_path, services):
    model, *_, go = run(examples, tmp_path, services, arch=arch, lora=Lora(rank=2, alpha=4), lr=5e-2)
    result = go()
    folder = tmp_path / "adapter"
    again = PeftModel.from_pretrained(tiny_model(arch), folder)
    ids = torch.arange(4, 20)[None]
    with torch.no_grad():
        torch.testing.assert_close(again(ids).logits, model(ids).logits)
        assert not torch.equal(model(ids).logits, tiny_model(arch)(ids).logits)
    merged = dict(again.merge_and_unload().named_parameters())
    trained = dict(model.named_parameters())
    assert merged.keys() == trained.keys() and len(result.original) == 4
    assert all(torch.equal(merged[name], trained[name]) for name in trained)


def test_a_merged_adapter_is_a_patch_like_any_other(examples, tmp_path, services):
    model, *_, go = run(examples, tmp_path, services, lora=Lora(rank=2), lr=5e-2)
    result = go()
    patch.save(tmp_path / "patch.safetensors", model, result.original, {})
    base = tiny_model("llama")
    assert patch.names(tmp_path / "patch.safetensors") == tuple(sorted(result.original))
    patch.apply(tmp_path / "patch.safetensors", base)
    other = dict(base.named_parameters())
    assert all(torch.equal(p, other[n]) for n, p in model.named_parameters())


@pytest.mark.filterwarnings("error:Already found a `peft_config`")
def test_a_second_stage_with_adapters_is_as_quiet_as_the_first():
    model = tiny_model()
    weights = ["model.layers.1.mlp.down_proj.weight"]
    for seed in range(2):
        Adapters(model, weights, Lora(), seed).merge()
    assert not hasattr(model, "peft_config")


def test_a_stopped_stage_keeps_no_adapter(examples, tmp_path, services):
    *_, go = run(examples, tmp_path, services, lora=Lora(rank=2), stop_after=3)
    assert go().stopped and not (tmp_path / "adapter").exists()


def test_lora_uses_no_global_randomness(examples, tmp_path, services):
    *_, go = run(examples, tmp_path, services, lora=Lora(rank=2))
    torch.manual_seed(1)
    state = torch.random.get_rng_state()
    go()
    assert torch.equal(state, torch.random.get_rng_state())


def test_lora_on_a_norm_is_one_clear_error(examples, tmp_path, services):
    class Norms(Push):
        def requirements(self, shape):
            return Requirements(shape.match(r"model\.layers\.1\.input_layernorm\.weight"), reads=2)

    *_, go = run(examples, tmp_path, services, objective=Norms(Config()), lora=Lora())
    with pytest.raises(PlanError, match="not the weight of a linear layer"):
        go()


@pytest.mark.parametrize("lora", [None, Lora(rank=2)])
def test_recomputation_changes_nothing_but_memory(lora, examples, tmp_path, services):
    plain, _, _, go = run(examples, tmp_path / "a", services, lora=lora)
    go()
    again, _, _, go = run(examples, tmp_path / "b", services, lora=lora, recompute=True)
    go()
    other = dict(again.named_parameters())
    for name, parameter in plain.named_parameters():
        torch.testing.assert_close(parameter, other[name], rtol=0, atol=0)


@pytest.mark.parametrize("lora", [None, Lora(rank=2)])
def test_a_failing_stage_leaves_the_model_as_it_was(lora, examples, tmp_path, services):
    class Fails(Push):
        fail_at = 3

    model, rows, _, go = run(examples, tmp_path, services, objective=Fails(Config()), lora=lora)
    with pytest.raises(TrainingError):
        go()
    assert len(rows) == 3
    base = tiny_model("llama")
    assert [n for n, _ in model.named_parameters()] == [n for n, _ in base.named_parameters()]
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), base.parameters(), strict=True))
