"""probe-directions: every option of the objective, in equations against float64 and in stages on tiny models."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file

from unlearn_suite import ModelShape, TrainingError
from unlearn_suite.testing.tiny import tiny_model
from unlearn_suite_toxicity.probe_directions import closed_form, weights
from unlearn_suite_toxicity.probe_directions import losses as own
from unlearn_suite_toxicity.probe_directions.config import ProbeDirectionsConfig
from unlearn_suite_toxicity.probe_directions.directions import Axis, Direction
from unlearn_suite_toxicity.probe_directions.greedy import confined
from unlearn_suite_toxicity.probe_directions.objective import ProbeDirections

D = 8


def draw(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def two_axes() -> Direction:
    basis, _ = torch.linalg.qr(draw(1, D, 2))
    axes = [Axis(basis[:, i], basis[:, i], 0.1 * i, 0.5, 0.7 + i, draw(3 + i, D), 0.2 - i) for i in range(2)]
    return Direction(tuple(axes), draw(9, D))


def transcription(loss: str, h: np.ndarray, ref: np.ndarray, d: Direction) -> np.ndarray:
    values = []
    target = ref.copy()
    for a in d.axes:
        v, w = a.read.double().numpy(), a.weight.double().numpy()
        if loss == "hinge":
            values.append(np.maximum(0, (h @ v - (a.mu0 + 0.5 * a.sd0)) / a.scale))
        elif loss == "cosine":
            away = h - d.centre.double().numpy()
            values.append(np.maximum(0, away @ v / np.linalg.norm(away, axis=-1) - 0.1))
        elif loss == "match":
            values.append(((h @ v - a.mu0) / a.scale) ** 2)
        elif loss == "logit":
            values.append(np.log1p(np.exp(h @ w + a.bias)))
        target = target - np.maximum(0, ref @ v - a.mu0)[..., None] * v
    if loss == "counterfactual":
        return ((h - target) ** 2).sum(-1) / (ref**2).sum(-1)
    return np.mean(values, axis=0)


@pytest.mark.parametrize("loss", ["hinge", "cosine", "match", "logit", "counterfactual"])
def test_forget_losses_equal_a_float64_transcription(loss):
    h, ref, d = draw(20, 2, 3, D), draw(21, 2, 3, D), two_axes()
    config = ProbeDirectionsConfig(loss=loss, kappa=0.5, cosine_floor=0.1)
    expected = transcription(loss, h.double().numpy(), ref.double().numpy(), d)
    assert expected.min() < expected.max()
    np.testing.assert_allclose(own.forget(config, h, ref, d).numpy(), expected, rtol=2e-5, atol=1e-6)


def test_leace_edits_until_the_reading_is_the_benign_mean():
    read, edit = (torch.nn.functional.normalize(draw(i, D), dim=0) for i in (30, 31))
    edit = edit * torch.sign(read @ edit)
    axis = Axis(read, edit, 0.3, 1.0, 1.0, read, 0.0)
    h = draw(32, 50, D)
    after = own.ablated(h, [axis])
    torch.testing.assert_close(after @ read, (h @ read).clamp_max(0.3), rtol=1e-4, atol=1e-5)
    moved = (after - h)[(h @ read) > 0.3]
    torch.testing.assert_close(torch.nn.functional.cosine_similarity(moved, edit[None]).abs(), torch.ones(len(moved)))


def test_the_orthogonal_term_is_blind_to_the_whole_subspace():
    d, ref = two_axes(), draw(40, 5, D)
    edits = [a.edit for a in d.axes]
    inside = ref + draw(41, 5, 2) @ torch.stack(edits)
    assert float(own.orthogonal_error(inside, ref, edits).max()) < 1e-10
    h = draw(42, 5, D)
    basis = torch.stack(edits).double().numpy()
    delta = (h - ref).double().numpy()
    across = delta - delta @ basis.T @ basis
    expected = (across**2).sum(-1) / (ref.double().numpy() ** 2).sum(-1)
    np.testing.assert_allclose(own.orthogonal_error(h, ref, edits).numpy(), expected, rtol=1e-5)


@pytest.mark.parametrize("transposed", [False, True])
def test_closed_form_takes_the_direction_out_of_what_is_written(transposed):
    d = two_axes()
    weight = draw(50, D, 5)
    kept = closed_form.without(weight.T if transposed else weight, d.axes, 1.0, transposed=transposed)
    kept = kept.T if transposed else kept
    projector = np.eye(D) - sum(np.outer(v, v) for v in (a.read.double().numpy() for a in d.axes))
    np.testing.assert_allclose(kept.numpy(), projector @ weight.double().numpy(), atol=1e-5)
    half = closed_form.without(weight, d.axes[:1], 0.5, transposed=False)
    torch.testing.assert_close(d.axes[0].read @ half, 0.5 * (d.axes[0].read @ weight), rtol=1e-4, atol=1e-5)


def test_gpt2_matrices_are_known_to_be_transposed():
    from unlearn_suite import ModelShape

    assert closed_form.writes_columns(ModelShape.of(tiny_model("gpt2")))
    assert not closed_form.writes_columns(ModelShape.of(tiny_model("llama")))


def test_block_weights_sum_to_one_and_follow_their_rule():
    assert weights.proportional({1: 0.3, 2: 0.1, 3: -0.2}) == pytest.approx({1: 0.75, 2: 0.25, 3: 0.0})
    assert weights.proportional({1: -1.0, 2: 0.0}) == {1: 0.5, 2: 0.5}
    learned = weights.Learned([1, 2], rate=0.5)
    assert learned.weights == {1: 0.5, 2: 0.5}
    learned.update({1: 0.2, 2: 1.0})
    expected = np.exp([0.1, 0.5]) / np.exp([0.1, 0.5]).sum()
    assert list(learned.weights.values()) == pytest.approx(expected)


def test_a_confined_term_has_the_same_value_and_a_gradient_for_its_parameters_only():
    a, b = (torch.nn.Parameter(draw(i, 3)) for i in (60, 61))
    term = (a * b).sum().sin() + b.square().sum()
    full = torch.autograd.grad(term, [a, b], retain_graph=True)
    value = confined(term, [b])
    torch.testing.assert_close(value, term.detach())
    grads = torch.autograd.grad(value, [a, b], allow_unused=True)
    assert grads[0] is None
    torch.testing.assert_close(grads[1], full[1])


@pytest.mark.parametrize(
    ("option", "needed"),
    [({}, False), *(({name: 1.0}, True) for name in ("kl_weight", "ce_weight", "nll_weight"))],
)
def test_what_reads_the_next_tokens_asks_for_the_whole_depth(option, needed):
    config = ProbeDirectionsConfig(blocks=(1, 2), **{"kl_weight": 0.0, **option})
    assert ProbeDirections(config).requirements(ModelShape.of(tiny_model())).logits is needed


@pytest.mark.parametrize(
    "options",
    [
        {"loss": "cosine", "positions": "all", "match_lengths": True},
        {"loss": "match", "direction": "lda", "layer_weights": "auroc", "pool": "last"},
        {"loss": "logit", "detach_below": True},
        {"direction": "leace-edit"},
        {"direction": "multi", "subspace": 2},
        {"nll_weight": 1.0, "kl_weight": 0.0},
        {"layer_weights": "learned", "ce_weight": 1.0, "train": {"steps": 6, "micro_batch": 2}},
    ],
    ids=lambda o: ",".join(map(str, o.items())),
)
def test_each_option_lowers_what_it_steers(stage, options):
    ran = stage(**{"train": {"steps": 6}, **options})
    assert ran.changed == set(ran.result.views.trainable)
    name = "forget" if "direction" not in options else "projection_2"
    assert ran.rows[-1][name] < ran.rows[0][name]
    assert ran.rows[0]["retain"] == ran.rows[0]["shift_1"] == 0.0


def test_one_shared_direction_is_that_of_the_block_with_the_best_probe(stage, unsure):
    options = {"roles": unsure, "blocks": (0, 1, 2), "train": {"steps": 0}}
    own_ones = stage(**options).objective.steering
    best = max(own_ones.probes, key=lambda b: own_ones.probes[b].auroc)
    assert len({p.auroc for p in own_ones.probes.values()}) > 1
    shared = stage(shared=True, **options).objective.steering.directions
    for block, d in shared.items():
        assert torch.equal(d.v, own_ones.directions[best].v) or torch.equal(d.v, -own_ones.directions[best].v)
        assert block == best or not torch.allclose(d.v.abs(), own_ones.directions[block].v.abs(), atol=1e-3)


def test_a_weak_block_is_left_out_and_a_better_one_kept(stage, unsure):
    areas = {b: p.auroc for b, p in stage(roles=unsure, train={"steps": 0}).objective.steering.probes.items()}
    weak, strong = sorted(areas, key=areas.__getitem__)
    assert areas[weak] < areas[strong]
    ran = stage(roles=unsure, min_auroc=(areas[weak] + areas[strong]) / 2, train={"steps": 2})
    steering = ran.objective.steering
    assert steering.blocks == [strong] and "is below" in steering.left_out[weak]
    assert f"projection_{strong}" in ran.rows[0] and f"projection_{weak}" not in ran.rows[0]
    shape = ran.objective.ctx.shape
    assert {shape.block_of(name) for name in ran.changed} <= {0, 1, 2}


def test_detach_below_trains_each_block_for_its_own_term(stage):
    """The gradient of the lower blocks must not see the upper block's term."""
    ran = stage(detach_below=True, retain_weight=0.0, perp_weight=0.0, train={"steps": 0})
    ctx, objective = ran.objective.ctx, ran.objective
    batch = {"forget": ctx.draw("forget", 0)}

    def grads(config_change):
        objective.config = objective.config.model_copy(update=config_change)
        ctx.views.clear()
        ctx.backward(objective.loss, batch)
        found = {n: None if p.grad is None else p.grad.clone() for n, p in ctx.trainable.items()}
        ctx.optimizer.zero_grad()
        return found

    greedy, whole = grads({"detach_below": True}), grads({"detach_below": False})
    only_first = objective.steering.directions[1]
    objective.steering.directions = {1: only_first}
    objective.steering._weights = {1: 0.5}
    first = grads({"detach_below": False})
    for name, grad in greedy.items():
        block = ctx.shape.block_of(name)
        if block <= 1:
            torch.testing.assert_close(grad, first[name])
            assert not torch.allclose(grad, whole[name])
        else:
            torch.testing.assert_close(grad, whole[name])


@pytest.mark.parametrize("arch", ["olmo2", "gemma3"])
def test_closed_form_is_refused_where_what_is_written_is_scaled(stage, arch):
    with pytest.raises(TrainingError, match="norm and scale"):
        stage(loss="closed-form", train={"steps": 0}, arch=arch)


def test_closed_form_does_not_train(stage):
    ran = stage(loss="closed-form", train={"steps": 0})
    shape = ran.objective.ctx.shape
    assert ran.changed == {*shape.select("mlp_out", [1, 2]), *shape.select("attn_out", [1, 2])}
    for block, d in ran.objective.steering.directions.items():
        for kind in ("mlp_out", "attn_out"):
            weight = dict(ran.model.named_parameters())[shape.select(kind, [block])[0]]
            assert float((d.v @ weight).detach().abs().max()) < 1e-5
    with pytest.raises(TrainingError, match="does not train"):
        stage(loss="closed-form")


@pytest.mark.parametrize("arch", ["llama", "gpt2"])
def test_closed_form_with_leace_takes_what_is_read_out_along_what_is_edited(stage, arch):
    ran = stage(loss="closed-form", direction="leace-edit", edit_strength=0.6, train={"steps": 0}, arch=arch)
    shape, now = ran.objective.ctx.shape, dict(ran.model.named_parameters())
    vectors = load_file(ran.folder / "artifacts" / "directions.safetensors")
    for block in (1, 2):
        r, e = (vectors[name].double().numpy() for name in (str(block), f"{block}.edit"))
        assert abs(r @ e) < 0.99
        editor = np.eye(len(r)) - 0.6 * np.outer(e, r) / (r @ e)
        for kind in ("mlp_out", "attn_out"):
            (name,) = shape.select(kind, [block])
            before, after = (w.detach().double().numpy() for w in (ran.before[name], now[name]))
            expected = before @ editor.T if arch == "gpt2" else editor @ before
            np.testing.assert_allclose(after, expected, atol=1e-5)
            assert np.abs(after - before).max() > 1e-2


@pytest.mark.parametrize(
    "bad",
    [
        {"loss": "logit", "direction": "lda"},
        {"refresh_every": 2, "direction": "diffmean"},
        {"direction": "multi", "subspace": 7},
        {"blocks": ()},
        {"test_share": 0.3},
    ],
)
def test_options_that_do_not_go_together_are_refused(bad):
    with pytest.raises(ValidationError):
        ProbeDirectionsConfig(**bad)


def test_refresh_adds_orthogonal_axes_at_most_five_times_and_resumes_to_the_same_bits(stage):
    options = {"refresh_every": 1, "layer_weights": "learned", "train": {"steps": 7, "save_every": 3}}
    whole = stage(**options)
    steering = whole.objective.steering
    assert steering.rounds == 5
    for d in steering.directions.values():
        edits = torch.stack([a.edit for a in d.axes])
        assert 1 < len(edits) <= 6
        torch.testing.assert_close(edits @ edits.T, torch.eye(len(edits)), atol=1e-5, rtol=0)
    cut = stage("cut", stop_after=4, **options)
    assert cut.result.stopped
    resumed = stage("cut", **options)
    assert len(resumed.rows) == 3
    for (name, p), q in zip(whole.model.named_parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(p, q), name
    assert resumed.result.closing == whole.result.closing


class CausalServices:
    """Half of the prompts are continued toxically, and `left[b]` of them while block b is edited: none for block 1."""

    def __init__(self) -> None:
        self.left = {1: 0}
        self.said: list[str] = []

    def sample(self, prompts, *, n, **_):
        if n > 1:  # for the corpus
            return [[f" damn {i}, you fool" if i % 2 else f" have a nice day {i}" for i in range(n)] for _ in prompts]
        edited = next((b for b in (1, 2) if "forward" in self.blocks[b].__dict__), None)
        toxic = self.left.get(edited, len(prompts) // 2)
        return [[" damn" if i < toxic else " fine"] for i in range(len(prompts))]

    @property
    def blocks(self):
        return self.objective.ctx.views.replay.blocks

    def memo(self, name, key, build):
        json.dumps(key)
        return json.loads(json.dumps(build()))

    def say(self, text):
        self.said.append(text)

    warn = say


@pytest.fixture
def causal_services(monkeypatch):
    from unlearn_suite_toxicity.probe_directions.objective import ProbeDirections

    services = CausalServices()
    setup = ProbeDirections.setup

    def remembered(self, ctx):
        services.objective = self
        self.ctx = ctx
        setup(self, ctx)

    monkeypatch.setattr(ProbeDirections, "setup", remembered)
    return services


def test_the_causal_filter_keeps_the_blocks_that_matter(stage, causal_services):
    ran = stage(services=causal_services, causal_filter=True, causal_kl=100.0, layer_weights="causal")
    steering = ran.objective.steering
    assert steering.blocks == [1] and "not causal" in steering.left_out[2]
    assert steering.effects[1].drop == 1.0 and steering.effects[2].drop == 0.0 and steering.effects[2].kl > 0
    assert any("only block 1" in line for line in causal_services.said)
    assert "projection_2" not in ran.rows[0]
    assert ran.objective.steering.weights == {1: 1.0}


def test_causal_weights_are_in_proportion_to_the_drop_in_toxicity(stage, causal_services):
    causal_services.left = {1: 2, 2: 6}  # of 20 prompts, 10 of them toxic as the model is: drops of .8 and .4
    ran = stage(services=causal_services, causal_filter=True, causal_kl=100.0, layer_weights="causal")
    assert {b: e.drop for b, e in ran.objective.steering.effects.items()} == pytest.approx({1: 0.8, 2: 0.4})
    assert ran.objective.steering.weights == pytest.approx({1: 2 / 3, 2: 1 / 3})
    first = ran.rows[0]
    assert first["forget"] == pytest.approx(2 / 3 * first["forget_1"] + 1 / 3 * first["forget_2"], rel=1e-6)


def test_the_causal_filter_has_a_second_threshold_and_says_when_nothing_is_left(stage, causal_services):
    with pytest.raises(TrainingError, match="no block passes"):
        stage(services=causal_services, causal_filter=True, causal_kl=0.0)
    with pytest.raises(TrainingError, match=r"AUROC .* is below 1"):
        stage(min_auroc=1.0, pool="token")


def test_causal_kl_is_that_of_the_ablated_model(stage, causal_services):
    """Against a model whose block is patched by a plain forward hook."""
    ran = stage(services=causal_services, causal_filter=True, causal_drop=0.0, causal_kl=100.0, train={"steps": 0})
    ctx, steering = ran.objective.ctx, ran.objective.steering
    axes = steering.directions[2].axes
    total = count = 0.0
    for batch in ctx.encode("probe", ran.objective.corpus.benign_val).chunks(64):
        kwargs = {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask, "use_cache": False}
        with torch.no_grad():
            base = ran.model(**kwargs).logits.double().log_softmax(-1)
            hook = ran.model.model.layers[2].register_forward_hook(
                lambda _m, _i, out: own.ablated(out[0] if isinstance(out, tuple) else out, axes)
            )
            after = ran.model(**kwargs).logits.double().log_softmax(-1)
            hook.remove()
        kl = (base.exp() * (base - after)).sum(-1)[:, :-1]
        mask = batch.mask("response")[:, 1:]
        total, count = total + float(kl[mask].sum()), count + float(mask.sum())
    assert steering.effects[2].kl == pytest.approx(total / count, rel=1e-4)


def test_the_page_gets_tables_and_a_series(stage):
    ran = stage()
    items = json.loads((ran.folder / "artifacts" / "report.json").read_text())["items"]
    titles = [item["title"] for item in items]
    assert titles == [
        "Probes",
        "Directions compared",
        "Tokens along the directions",
        "Failure detectors of the directions",
        "Projections before and after training",
        "Probes before and after training",
    ]
    table, cosines, tokens, _, projections, series = items
    assert [row[:2] for row in projections["rows"]] == [[b, text] for b in (1, 2) for text in ("benign", "toxic")]
    assert [row[0] for row in table["rows"]] == [1, 2]
    v = [ran.objective.steering.directions[b].v for b in (1, 2)]
    assert cosines["rows"][0][2] == pytest.approx(float(v[0] @ v[1]), abs=1e-5)
    head = ran.model.lm_head.weight
    top = ran.objective.ctx.tokenizer.decode([int((head @ v[0]).argmax())])
    assert tokens["rows"][0][1].startswith(repr(top))
    assert set(series["lines"]) == {"before", "old probe", "fresh probe"}


def test_the_table_of_probes_has_the_values_that_are_saved(stage, unsure):
    ran = stage(roles=unsure, train={"steps": 0})
    table = json.loads((ran.folder / "artifacts" / "report.json").read_text())["items"][0]
    saved = json.loads((ran.folder / "artifacts" / "probes.json").read_text())["blocks"]
    for row in table["rows"]:
        shown, probe = dict(zip(table["columns"], row, strict=True)), ran.objective.steering.probes[row[0]]
        assert probe.auroc != probe.accuracy
        assert (shown["AUROC"], shown["accuracy"], shown["C"]) == (probe.auroc, probe.accuracy, probe.c)
        assert [saved[str(row[0])][name] for name in ("auroc", "accuracy", "c")] == row[1:4]
