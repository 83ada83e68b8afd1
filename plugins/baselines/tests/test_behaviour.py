"""What single objectives promise beyond their loss, on tiny models."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from unlearn_suite import PlanError, TrainingError
from unlearn_suite.engine.batch import collate, encode
from unlearn_suite.engine.shape import ModelShape
from unlearn_suite.specs import Example
from unlearn_suite.testing.tiny import tiny_model, tiny_tokenizer
from unlearn_suite_baselines.cards.elm import ElmConfig
from unlearn_suite_baselines.cards.pdu import PduConfig
from unlearn_suite_baselines.cards.whp import WhpConfig
from unlearn_suite_baselines.methods.directions import embedding
from unlearn_suite_baselines.methods.elm import Elm
from unlearn_suite_baselines.methods.pdu import Pdu
from unlearn_suite_baselines.methods.whp import Whp


def weights(model):
    return dict(model.named_parameters())


@pytest.mark.parametrize("arch", ["llama", "gpt2"])
def test_abliteration_leaves_nothing_that_writes_along_the_direction(arch, run, tmp_path):
    model, _, result = run("abliteration", {"block": 2, "max_kl": None}, tmp_path, arch=arch, steps=1)
    before = weights(tiny_model(arch))
    transposed = arch == "gpt2"
    name = next(n for n in result.original if ("mlp.down_proj" if not transposed else "mlp.c_proj") in n)
    change = before[name] - weights(model)[name]
    u, s, vh = torch.linalg.svd(change)
    assert s[1] < 1e-4 * s[0], "one direction is removed"
    r = vh[0] if transposed else u[:, 0]
    for n in result.original:
        w = weights(model)[n]
        along = w @ r if transposed or "embed" in n else r @ w
        assert along.abs().max() < 1e-4, n


@pytest.mark.parametrize("arch", ["gpt2", "gpt_neox", "phi"])
def test_no_block_has_a_part_along_the_removed_direction(arch, run, tmp_path):
    """Biases and learned positions write to the residual stream too."""
    model, _, result = run("abliteration", {"block": 2, "max_kl": None}, tmp_path, arch=arch, steps=1)
    tokens = embedding(ModelShape.of(model))
    r = torch.linalg.svd(weights(tiny_model(arch))[tokens] - weights(model)[tokens]).Vh[0].detach()
    ids = torch.tensor([tiny_tokenizer()("the hat of the king was tall")["input_ids"]])
    hidden = model(ids, output_hidden_states=True).hidden_states[:-1]  # the last one is behind the final norm
    assert max(float((h @ r).abs().max().detach()) for h in hidden) < 1e-4
    assert {n.rpartition(".")[2] for n in result.original} == {"weight", "bias"}


def test_gloss_removes_a_subspace_of_its_rank_from_every_block(run, tmp_path):
    model, _, result = run("gloss", {"rank": 3, "max_kl": None}, tmp_path, steps=1)
    before = weights(tiny_model())
    changes = torch.cat([before[n] - weights(model)[n] for n in result.original], dim=1)
    s = torch.linalg.svdvals(changes)
    assert len(result.original) == 4 and s[2] > 1e-3 and s[3] < 1e-4 * s[0]


@pytest.mark.parametrize("name", ["abliteration", "gloss"])
@pytest.mark.parametrize("arch", ["olmo2", "gemma3"])
def test_a_model_that_scales_what_it_writes_is_refused(name, arch, run, tmp_path):
    with pytest.raises(PlanError, match="norm and scale"):
        run(name, {}, tmp_path, arch=arch, steps=1)


@pytest.mark.parametrize("name", ["abliteration", "gloss"])
def test_directions_that_would_disrupt_are_not_removed(name, run, tmp_path):
    untouched, rows, _ = run(name, {"max_kl": 1e-9}, tmp_path / "none", steps=1)
    assert rows[0]["removed_norm"] == 0.0 and rows[0]["kl"] > 1e-9
    assert all(torch.equal(p, q) for p, q in zip(untouched.parameters(), tiny_model().parameters(), strict=True))
    _, free, _ = run(name, {"max_kl": 100.0}, tmp_path / "any", steps=1)
    assert free[0]["removed_norm"] > 0 and free[0]["kl"] < 100.0


def test_iti_shifts_biases_and_says_when_there_are_none(run, tmp_path):
    model, rows, result = run("iti", {"heads": 0.25}, tmp_path / "a", arch="gpt2", steps=1)
    assert rows[0]["heads"] == 4.0
    assert all(name.endswith("attn.c_proj.bias") for name in result.original)
    double, *_ = run("iti", {"heads": 0.25, "alpha": 30.0}, tmp_path / "b", arch="gpt2", steps=1)
    before = weights(tiny_model("gpt2"))
    for name in result.original:
        once, twice = (weights(m)[name] - before[name] for m in (model, double))
        torch.testing.assert_close(twice, 2 * once, rtol=1e-4, atol=1e-5)
    with pytest.raises(PlanError, match="has no bias"):
        run("iti", {}, tmp_path / "c", steps=1)


def test_task_arithmetic_goes_exactly_the_other_way(run, tmp_path):
    forth, *_ = run("task-arithmetic", {"scale": 0.0}, tmp_path / "zero")
    assert all(torch.equal(p, q) for p, q in zip(forth.parameters(), tiny_model().parameters(), strict=True))
    once, *_ = run("task-arithmetic", {"scale": 1.0}, tmp_path / "one")
    half, *_ = run("task-arithmetic", {"scale": 0.5}, tmp_path / "half")
    for name, base in weights(tiny_model()).items():
        a, b = weights(once)[name] - base, weights(half)[name] - base
        torch.testing.assert_close(a, 2 * b, rtol=1e-3, atol=1e-6)
    _, rows, _ = run("task-arithmetic", {}, tmp_path / "rows", steps=12)
    assert rows[-1]["fit"] < rows[0]["fit"]


def test_whp_trains_a_reinforced_model_then_starts_again(run, tmp_path):
    _, rows, _ = run("whp", {}, tmp_path, steps=6, lr=1e-2)
    assert ["reinforce" in row for row in rows] == [True] * 3 + [False] * 3


def test_whp_without_scale_learns_the_base_models_own_choices(run, tmp_path):
    """a = 0: the labels are the base model's argmax, whatever the reinforced model says."""
    _, rows, _ = run("whp", {"scale": 0.0}, tmp_path / "a", steps=2, batch=8)
    _, other, _ = run("whp", {"scale": 0.0}, tmp_path / "b", steps=2, batch=8, lr=0.5)
    assert rows[1]["forget"] == pytest.approx(other[1]["forget"], rel=1e-5)


def test_dpo_without_pairs_says_what_to_do(run, tmp_path, monkeypatch):
    from unlearn_suite_baselines.methods import preference

    monkeypatch.setattr(preference.Dpo, "pairs_of", lambda self, example: [])
    with pytest.raises(TrainingError, match="no forget example has an alternate"):
        run("dpo", {}, tmp_path)


def test_repselect_stops_one_step_before_its_budget(run, tmp_path):
    tight, rows, _ = run("repselect", {"inner_steps": 2, "budget": 1e-12}, tmp_path)
    assert [row["spent"] for row in rows] == [1.0] * 4
    assert all(torch.equal(p, q) for p, q in zip(tight.parameters(), tiny_model().parameters(), strict=True))


def test_averaged_weights_are_the_mean_of_the_late_ones(run, tmp_path):
    options = {"smoothness": "wa", "average_from": 0.5, "average_every": 1}
    averaged, *_ = run("npo-sam", options, tmp_path / "wa", steps=3)
    # steps 2 and 3 are averaged; with every learning rate constant, the shorter runs end at those weights
    late = [run("npo-sam", {"smoothness": "wa", "average_from": 0.99}, tmp_path / str(n), steps=n)[0] for n in (2, 3)]
    for name, p in weights(averaged).items():
        mean = (weights(late[0])[name] + weights(late[1])[name]) / 2
        torch.testing.assert_close(p, mean, rtol=1e-4, atol=1e-6)


def test_the_guard_measures_the_averaged_weights_and_keeps_what_it_gives_back(run, tmp_path):
    options = {"smoothness": "wa", "average_from": 0.5, "average_every": 1}
    good, rows, result = run("npo-sam", options, tmp_path / "good", stop={"ppl_rise": 100.0, "every": 1})
    assert result.collapse is None and rows[-1]["averaged"] == 3.0
    bad, _, result = run("npo-sam", options, tmp_path / "bad", stop={"ppl_rise": 1e-9, "every": 1, "patience": 9})
    assert result.collapse["kept"] == 0
    assert all(torch.equal(p, q) for p, q in zip(bad.parameters(), tiny_model().parameters(), strict=True))
    free, *_ = run("npo-sam", options, tmp_path / "free", stop={"ppl_rise": 100.0, "every": 4})
    assert all(torch.equal(p, q) for p, q in zip(good.parameters(), free.parameters(), strict=True))


@pytest.mark.parametrize("name", ["task-arithmetic", "whp"])
def test_what_reinforces_first_takes_no_guard(name, run, tmp_path):
    with pytest.raises(PlanError, match="nothing to keep"):
        run(name, {}, tmp_path, stop={"ppl_rise": 1.0})


def test_whp_always_forgets_in_the_end(run, tmp_path):
    _, rows, _ = run("whp", {"reinforce": 0.99}, tmp_path, steps=2)
    assert ["reinforce" in row for row in rows] == [True, False]


SAME_LENGTH = {
    role: [Example(f"{role}{i}", f" {words}", f"{role} {i}", unit=str(i)) for i, words in enumerate(["a b c d"] * 4)]
    for role in ("forget", "retain")
}


@pytest.mark.parametrize("cut", [1, 2])
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("graddiff", {"retain": "kl"}),
        ("undial", {}),
        ("pdu", {"eps": 0.1}),
        ("rmu", {"block": 2, "rna_noise": 0.5}),
        ("rmu", {"block": 2, "legacy": "open-unlearning"}),
        ("jensun", {"refusals": ["No", " No idea"]}),
    ],
)
def test_legacy_means_of_pieces_add_up(name, options, cut, run, tmp_path):
    """Without padding, where the plain mean of a batch is that of its pieces."""
    whole, pieces = (
        run(name, {"legacy": True, **options}, tmp_path / str(size), given=SAME_LENGTH, steps=2, micro_batch=size)[1]
        for size in (None, cut)
    )
    for row, other in zip(whole, pieces, strict=True):
        assert {k: v for k, v in row.items() if k in ("forget", "retain", "loss", "grad_norm")} == pytest.approx(
            {k: v for k, v in other.items() if k in ("forget", "retain", "loss", "grad_norm")}, rel=1e-3, abs=1e-6
        )


@pytest.mark.parametrize(
    ("name", "options"), [("repnoise", {}), ("orth-circuit-breakers", {}), ("flat", {"legacy": True})]
)
def test_what_compares_examples_takes_no_micro_batch(name, options, run, tmp_path):
    with pytest.raises(PlanError, match="which micro_batch cuts"):
        run(name, options, tmp_path, micro_batch=2)


def test_blocks_choose_among_the_tensors_of_a_pattern(run, tmp_path):
    _, _, result = run("npo", {"tensors": r".*down_proj\.weight", "blocks": [1, 2]}, tmp_path)
    assert sorted(result.original) == [f"model.layers.{b}.mlp.down_proj.weight" for b in (1, 2)]
    with pytest.raises(PlanError, match="no tensor is left"):
        run("npo", {"tensors": "model.embed_tokens.weight", "blocks": [1, 2]}, tmp_path / "none")


def test_targets_by_example_take_a_row_that_counts_as_none():
    """What a process is given that has fewer examples than others."""
    none = collate(encode(tiny_tokenizer(), SAME_LENGTH["forget"], 32), 0).nothing()
    elm = Elm(ElmConfig(concept="hats"))
    elm.targets = {e.id: (torch.ones(4, 2, dtype=torch.long), torch.ones(4, 2)) for e in SAME_LENGTH["forget"]}
    assert not any(found.any() for found in elm._targets_of(none))
    whp = Whp(WhpConfig())
    whp.labels = {e.id: torch.ones(4, dtype=torch.long) for e in SAME_LENGTH["forget"]}
    policy = SimpleNamespace(per_token=lambda batch, of, over, given: given[0].float())
    whp.ctx = SimpleNamespace(policy=policy)
    assert float(whp.loss({"forget": none}).parts["forget"]) == 0


@pytest.mark.parametrize("smoothness", ["sam", "rs", "gp", "cr"])
def test_bfloat16_weights_take_no_small_perturbation(smoothness, run, tmp_path):
    with pytest.raises(PlanError, match="needs float32 weights") as refused:
        run("npo-sam", {"smoothness": smoothness, "rho": 1e-5}, tmp_path, dtype=torch.bfloat16)
    assert refused.value.code == "inner-precision"


@pytest.mark.parametrize(
    "options", [{"smoothness": "rs", "rho": 0.1}, {"smoothness": "wa"}, {"smoothness": "gp", "legacy": True}]
)
def test_bfloat16_weights_take_what_it_does_not_round_away(options, run, tmp_path):
    _, rows, _ = run("npo-sam", options, tmp_path, dtype=torch.bfloat16, steps=1)
    assert rows


def test_smooth_npo_tells_the_loss_it_steps_on(run, tmp_path):
    _, rows, _ = run("npo-sam", {"gamma": 0.25, "alpha": 3.0}, tmp_path, steps=1)
    assert rows[0]["loss"] == pytest.approx(0.25 * rows[0]["forget"] + 3.0 * rows[0]["retain"], rel=1e-6)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("repselect", {"inner_steps": 1, "texts": 4, "rate": 1e-4, "budget": 1e9}),
        ("cir", {"components": 0, "rate": 1e-3}),
    ],
)
def test_bfloat16_weights_lose_no_small_steps(name, options, run, tmp_path):
    """Steps far below the spacing of bf16: together they come as far as in float32, over an interruption too."""
    train = {"given": SAME_LENGTH, "batch": 4, "steps": 32, "save_every": 5}
    exact, _, result = run(name, options, tmp_path / "exact", **train)

    def moved(model):
        start = weights(tiny_model().to(model.dtype))
        return torch.cat([(weights(model)[n].float() - start[n].float()).flatten() for n in result.original])

    rough, *_ = run(name, options, tmp_path / "rough", dtype=torch.bfloat16, **train)
    run(name, options, tmp_path / "cut", dtype=torch.bfloat16, stop_after=7, **train)
    resumed, *_ = run(name, options, tmp_path / "cut", dtype=torch.bfloat16, **train)
    ours, theirs = moved(rough), moved(exact)
    assert float((ours @ theirs / theirs.norm() ** 2).detach()) == pytest.approx(1.0, abs=0.1)
    assert all(torch.equal(p, q) for p, q in zip(rough.parameters(), resumed.parameters(), strict=True))


@pytest.mark.parametrize("name", ["idk-dpo", "flat", "jensun"])
def test_a_single_word_has_no_answer_to_forget(name, run, tmp_path):
    given = {**SAME_LENGTH, "forget": [Example("w", "Hogwarts")]}
    with pytest.raises(TrainingError, match="no forget example has an alternate"):
        run(name, {}, tmp_path, given=given)


@pytest.mark.parametrize("options", [{"retain": "kl", "alpha": 0.0}, {"retain": "nll"}])
def test_pdu_says_whether_it_reads_the_base_model(options):
    """lambda may grow from 0, so that the retain loss is always read."""
    made = Pdu(PduConfig(**options))
    assert made.requirements(ModelShape.of(tiny_model())).reference == (options["retain"] == "kl")


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("smoothness", ["sam", "gp", "cr"])
def test_smooth_npo_runs_both_ways(smoothness, legacy, run, tmp_path):
    _, rows, _ = run("npo-sam", {"smoothness": smoothness, "legacy": legacy, "retain": "kl"}, tmp_path, steps=2)
    assert all(torch.isfinite(torch.tensor(list(row.values()))).all() for row in rows)


@pytest.mark.parametrize("name", ["graddiff", "undial", "pdu", "rmu", "npo", "flat", "jensun"])
def test_legacy_forms_run_and_differ(name, run, tmp_path):
    options = {"retain": "kl"} if name in ("graddiff", "npo") else {}
    _, new, _ = run(name, options, tmp_path / "new", steps=2)
    _, old, _ = run(name, {**options, "legacy": True}, tmp_path / "old", steps=2)
    assert new[-1]["loss"] != old[-1]["loss"]


def test_rmu_has_two_legacy_forms_and_adaptive_rmu_one(run, tmp_path):
    rows = [run("rmu", {"legacy": form}, tmp_path / str(form), steps=1)[1] for form in (True, "open-unlearning")]
    assert rows[0][0]["loss"] != rows[1][0]["loss"]
    with pytest.raises(ValueError, match="legacy"):
        run("adaptive-rmu", {"legacy": "open-unlearning"}, tmp_path / "none")


def test_circuit_breakers_train_with_lora(run, tmp_path):
    pytest.importorskip("peft")
    model, _, result = run("circuit-breakers", {}, tmp_path, lora={"rank": 2, "alpha": 4})
    before = weights(tiny_model())
    changed = {n for n, p in weights(model).items() if not torch.equal(p, before[n])}
    assert changed and changed <= set(result.original)


def test_representation_methods_are_shallow():
    from unlearn_suite_baselines.cards import adaptive_rmu, circuit_breakers, rmu
    from unlearn_suite_baselines.methods.circuit_breakers import CircuitBreakers
    from unlearn_suite_baselines.methods.rmu import AdaptiveRmu, Rmu

    shape = ModelShape.of(tiny_model("llama", num_hidden_layers=8))
    config = circuit_breakers.CircuitBreakersConfig(retain_at="targets", targets=(1, 3))
    for objective, reads in (
        (Rmu(rmu.RmuConfig()), 2),
        (AdaptiveRmu(adaptive_rmu.AdaptiveRmuConfig(block=1)), 1),
        (CircuitBreakers(config), 3),
    ):
        needs = objective.requirements(shape)
        assert needs.reads == reads and not needs.logits
        assert max(shape.block_of(n) for n in needs.trainable) <= reads
