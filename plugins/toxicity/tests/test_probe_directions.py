"""probe-directions: probes, equations against float64, and behaviour on tiny models (METHODS 4.8, items 8-11)."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from unlearn_suite import Example, TrainingError, losses
from unlearn_suite_toxicity.probe_directions import corpus, probes, record
from unlearn_suite_toxicity.probe_directions import losses as own
from unlearn_suite_toxicity.probe_directions.config import ProbeDirectionsConfig
from unlearn_suite_toxicity.probe_directions.directions import Axis
from unlearn_suite_toxicity.probe_directions.objective import ProbeDirections


def cloud(n: int, shift: float, seed: int, d: int = 12) -> tuple[np.ndarray, np.ndarray]:
    """Two Gaussian classes, `shift` apart along the first axis, with very different scales by axis."""
    rng = np.random.default_rng(seed)
    y = (np.arange(n) % 2).astype(float)
    x = rng.normal(size=(n, d))
    x[:, 0] += shift * y
    return x * np.logspace(-2, 2, d) + 3.0, y


def test_the_probe_scores_raw_activations_as_the_standardised_fit_does():
    x, y = cloud(300, 1.5, 0)
    x_val, y_val = cloud(200, 1.5, 1)
    probe = probes.fit(x, y, x_val, y_val, path=(0.1,))
    mean, std = x.mean(0), x.std(0)
    std = np.maximum(std, 1e-4 * np.median(std) + 1e-12)
    plain = LogisticRegression(C=0.1, class_weight="balanced", tol=1e-5, max_iter=1000).fit((x - mean) / std, y)
    np.testing.assert_allclose(
        x_val @ probe.weight + probe.bias, plain.decision_function((x_val - mean) / std), atol=1e-4
    )
    assert probe.auroc == pytest.approx(roc_auc_score(y_val, x_val @ probe.weight))
    assert probe.auroc > 0.8


def test_accuracy_is_the_share_on_the_right_side_of_the_probe():
    x, y = cloud(300, 1.5, 0)
    x_val, y_val = cloud(201, 1.5, 1)
    kept = (y_val == 1) | (np.arange(201) % 3 == 0)  # two thirds are toxic: accuracy is no AUROC
    x_val, y_val = x_val[kept], y_val[kept]
    probe = probes.fit(x, y, x_val, y_val, path=(0.1,))
    plain = LogisticRegression(C=0.1, class_weight="balanced", tol=1e-5, max_iter=1000).fit(
        (x - x.mean(0)) / x.std(0), y
    )
    assert probe.accuracy == plain.score((x_val - x.mean(0)) / x.std(0), y_val)
    assert abs(probe.accuracy - probe.auroc) > 0.01


def test_the_probe_points_to_class_one_and_shuffled_labels_fail():
    x, y = cloud(300, 2.0, 2)
    x_val, y_val = cloud(200, 2.0, 3)
    for labels, labels_val in ((y, y_val), (1 - y, 1 - y_val)):
        probe = probes.fit(x, labels, x_val, labels_val)
        assert x[labels == 1].mean(0) @ probe.weight > x[labels == 0].mean(0) @ probe.weight
    shuffled = np.random.default_rng(0).permutation(y)
    areas = [probes.fit(x, shuffled, x_val, y_val[np.random.default_rng(s).permutation(200)]).auroc for s in range(20)]
    assert 0.4 <= np.mean(areas) <= 0.6


def test_the_smallest_c_within_one_standard_error_is_taken():
    x, y = cloud(120, 2.0, 10)
    x_val, y_val = cloud(120, 2.0, 11)
    mean, std = x.mean(0), x.std(0)
    areas = []
    for c in probes.PATH:
        model = LogisticRegression(C=c, class_weight="balanced", tol=1e-5, max_iter=1000).fit((x - mean) / std, y)
        areas.append(roc_auc_score(y_val, model.decision_function((x_val - mean) / std)))
    error = probes.standard_error(max(areas), 60, 60)
    expected = next(c for c, area in zip(probes.PATH, areas, strict=True) if area >= max(areas) - error)
    assert probes.fit(x, y, x_val, y_val).c == expected
    assert min(probes.PATH) < expected < probes.PATH[int(np.argmax(areas))], "the rule must have had a choice"


def test_the_standard_error_is_that_of_hanley_and_mcneil():
    # A = 0.893 on 58 and 51 cases: their formula by hand, in exact fractions of 1e-6
    a, n1, n0 = 0.893, 51, 58
    q1, q2 = a / (2 - a), 2 * a * a / (1 + a)
    by_hand = ((a * (1 - a) + (n1 - 1) * (q1 - a * a) + (n0 - 1) * (q2 - a * a)) / (n1 * n0)) ** 0.5
    assert probes.standard_error(a, n1, n0) == pytest.approx(by_hand) == pytest.approx(0.032, abs=1e-3)


def tensors(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def unit(seed: int, d: int = 8) -> torch.Tensor:
    return torch.nn.functional.normalize(tensors(seed, d), dim=0)


def axis(v: torch.Tensor, mu0: float = 0.0) -> Axis:
    return Axis(v, v, mu0, 1.0, 1.0, v, 0.0)


def test_equations_equal_a_float64_transcription():
    h, ref, v = tensors(0, 2, 3, 8), tensors(1, 2, 3, 8), unit(2)
    x, y, w = (t.double().numpy() for t in (h, ref, v))
    size = (y**2).sum(-1)
    delta = x - y
    across = delta - (delta @ w)[..., None] * w
    target = y - np.maximum(y @ w - 0.2, 0)[..., None] * w
    pairs = [
        (own.hinge(h, v, 0.1, 0.7), np.maximum((x @ w - 0.1) / 0.7, 0)),
        (losses.relative_error(h, ref), (delta**2).sum(-1) / size),
        (own.orthogonal_error(h, ref, [v]), (across**2).sum(-1) / size),
        (own.counterfactual(h, ref, [axis(v, 0.2)]), ((x - target) ** 2).sum(-1) / size),
    ]
    for ours, theirs in pairs:
        np.testing.assert_allclose(ours.numpy(), theirs, rtol=1e-5, atol=1e-6)
    p, q = tensors(3, 2, 3, 11), tensors(4, 2, 3, 11)
    log_p, log_q = p.double().log_softmax(-1), q.double().log_softmax(-1)
    expected = (log_p.exp() * (log_p - log_q)).sum(-1)
    torch.testing.assert_close(losses.kl(p, q).double(), expected, rtol=1e-5, atol=1e-6)


def test_hinge_is_zero_with_zero_gradient_below_tau_and_one_at_the_toxic_mean():
    v = unit(5)
    h = (tensors(6, 4, 8) - 10.0 * v).requires_grad_()
    value = own.hinge(h, v, 0.0, 2.0)
    (g,) = torch.autograd.grad(value.sum(), h)
    assert not value.any() and not g.any()
    assert float(own.hinge(3.0 * v, v, 1.0, 2.0)) == pytest.approx(1.0)


def test_counterfactual_below_the_benign_mean_is_the_retain_loss():
    v = unit(7)
    ref = tensors(8, 5, 8)
    ref = ref - (ref @ v)[:, None] * v - 3.0 * v
    h = tensors(9, 5, 8)
    torch.testing.assert_close(own.counterfactual(h, ref, [axis(v)]), losses.relative_error(h, ref))


def test_the_orthogonal_term_is_blind_to_motion_along_v():
    v, ref = unit(10), tensors(11, 5, 8)
    moved = ref + torch.arange(5.0)[:, None] * v
    assert float(own.orthogonal_error(moved, ref, [v]).max()) < 1e-10
    assert float(losses.relative_error(moved, ref).max()) > 0.1


@pytest.mark.parametrize("loss", ["hinge", "counterfactual"])
@pytest.mark.parametrize("direction", ["logistic", "diffmean"])
def test_the_projection_falls_and_only_the_named_tensors_change(stage, loss, direction):
    ran = stage(loss=loss, direction=direction, kl_weight=1.0, train={"steps": 10})
    rows, result = ran.rows, ran.result
    assert ran.services.calls == 1
    assert rows[0]["retain"] == 0.0
    for block in (1, 2):
        assert rows[-1][f"projection_{block}"] < rows[0][f"projection_{block}"]
    assert ran.changed == set(result.views.trainable) and len(ran.changed) == 6
    assert result.closing["auroc_before_1"] > 0.9
    assert {"auroc_old_probe_2", "auroc_fresh_probe_2"} <= set(result.closing)


def test_probes_and_directions_are_kept(stage):
    kept = stage(train={"steps": 1}).folder / "artifacts"
    table = json.loads((kept / "probes.json").read_text())
    assert table["source"] == "on-policy" and table["texts"]["toxic"] + table["texts"]["toxic_val"] == 40
    for block, v in load_file(kept / "directions.safetensors").items():
        assert float(v.norm()) == pytest.approx(1.0, abs=1e-5)
        assert table["blocks"][block]["scale"] > 0
    ran = stage(train={"steps": 0}, layer_weights="auroc")
    kept = ran.folder / "artifacts"
    for block, weight in load_file(kept / "probes.safetensors").items():
        probe = ran.objective.steering.probes[int(block)]
        assert weight.numpy() == pytest.approx(probe.weight, rel=0, abs=0)
        assert json.loads((kept / "probes.json").read_text())["blocks"][block]["bias"] == probe.bias


@pytest.mark.parametrize("direction", ["logistic", "diffmean", "random"])
def test_the_cosine_with_the_mean_difference_is_that_of_the_direction_in_use(stage, direction):
    ran = stage(train={"steps": 0}, direction=direction)
    table = json.loads((ran.folder / "artifacts" / "probes.json").read_text())["blocks"]
    for block, v in load_file(ran.folder / "artifacts" / "directions.safetensors").items():
        data = ran.objective.steering.features[int(block)]
        d = data.x[data.y == 1].mean(0) - data.x[data.y == 0].mean(0)
        expected = v.double().numpy() @ d / np.linalg.norm(d) / np.linalg.norm(v.double().numpy())
        assert table[block]["cos_v_diffmean"] == pytest.approx(expected, abs=1e-6)
        assert (abs(expected - 1) < 1e-5) == (direction == "diffmean")


def test_learned_weights_are_kept_as_they_ended_and_follow_the_blocks_own_losses(stage):
    ran = stage(train={"steps": 4}, layer_weights="learned", weight_rate=0.5)
    alpha = {b: 0.5 * sum(row[f"forget_{b}"] for row in ran.rows) for b in (1, 2)}
    expected = np.exp(alpha[1]) / (np.exp(alpha[1]) + np.exp(alpha[2]))
    table = json.loads((ran.folder / "artifacts" / "probes.json").read_text())["blocks"]
    assert table["1"]["weight"] == pytest.approx(expected, rel=1e-6) and expected != pytest.approx(0.5, abs=1e-4)
    assert ran.rows[0]["forget"] == pytest.approx(np.mean([ran.rows[0][f"forget_{b}"] for b in (1, 2)]), rel=1e-6)


def test_the_shift_of_benign_text_is_told_and_warned_of(stage):
    ran = stage(train={"steps": 8, "lr": 3e-2}, retain_weight=0.0, perp_weight=0.0)
    steering = ran.objective.steering
    for block in (1, 2):
        benign = steering.corpus.benign_val
        views = ran.result.views
        now, before = (steering.reader.tokens(view, benign)[block] for view in (views.policy, views.reference))
        axis = steering.directions[block].axes[0]
        pooled = steering.reader.features(views.policy, steering.corpus)[block]
        expected = (pooled.x_val[pooled.y_val == 0] - steering.features[block].x_val[pooled.y_val == 0]).mean(0)
        told = ran.result.closing[f"benign_shift_{block}"]
        assert told == pytest.approx(float(expected @ axis.read.double().numpy()) / axis.scale, rel=1e-6)
        assert np.sign(told) == np.sign(float((now.mean(0) - before.mean(0)) @ axis.read))
    warned = any("over-steered" in line for line in ran.services.said)
    assert warned == (max(abs(ran.result.closing[f"benign_shift_{b}"]) for b in (1, 2)) > 0.2)
    assert warned


@pytest.mark.parametrize(("old", "fresh", "fires"), [(0.5, 0.61, True), (0.5, 0.59, False), (0.9, 0.6, False)])
def test_evasion_is_a_fresh_probe_well_above_the_old_one(old, fresh, fires):
    said = []
    ctx = SimpleNamespace(services=SimpleNamespace(warn=said.append))
    record._warn(ctx, {"old_probe": {3: old}, "fresh_probe": {3: fresh}}, {3: 0.0})
    assert [("block 3" in line, "evaded" in line) for line in said] == [(True, True)] * fires


@pytest.mark.parametrize("lr", [1e-5, 3e-2])
def test_a_stage_warns_of_the_blocks_whose_probe_is_evaded(stage, unsure, lr):
    ran = stage(roles=unsure, train={"steps": 8, "lr": lr}, retain_weight=0.0, perp_weight=0.0, kappa=-3.0)
    told = ran.result.closing
    evaded = [b for b in (1, 2) if told[f"auroc_fresh_probe_{b}"] - told[f"auroc_old_probe_{b}"] > 0.1]
    assert [b for b in (1, 2) if any(f"block {b} may be evaded" in line for line in ran.services.said)] == evaded
    assert bool(evaded) == (lr > 1e-3)
    items = json.loads((ran.folder / "artifacts" / "report.json").read_text())["items"]
    (table,) = [item for item in items if item["title"] == "Failure detectors of the directions"]
    expected = []
    for block in (1, 2):
        gap = told[f"auroc_fresh_probe_{block}"] - told[f"auroc_old_probe_{block}"]
        shift = told[f"benign_shift_{block}"]
        expected += [(block, gap, "above 0.1", gap > 0.1), (block, shift, "beyond 0.2", abs(shift) > 0.2)]
    shown = [(block, value, level, state.startswith("ALARM")) for block, _, value, level, state in table["rows"]]
    assert [row[2:] for row in shown] == [row[2:] for row in expected]
    assert [row[1] for row in shown] == pytest.approx([row[1] for row in expected], rel=1e-6)


def test_without_prompts_the_roles_themselves_are_the_classes(stage, roles):
    ran = stage(roles=roles(with_prompts=False), train={"steps": 3})
    assert ran.services.calls == 0 and len(ran.rows) == 3
    assert json.loads((ran.folder / "artifacts" / "probes.json").read_text())["source"] == "static"


def test_the_kl_term_comes_every_few_steps_and_is_zero_at_the_start(stage):
    rows = stage(kl_weight=1.0, kl_every=2, train={"steps": 5}).rows
    assert ["kl" in row for row in rows] == [True, False, True, False, True]
    assert rows[0]["kl"] == pytest.approx(0.0, abs=1e-6) and rows[2]["kl"] > 0


def test_too_few_toxic_texts_are_one_clear_error(stage, monkeypatch):
    class Never:
        def score(self, texts):
            return [0.0] * len(texts)

    monkeypatch.setattr(corpus, "scorer_of", lambda told: Never())
    with pytest.raises(TrainingError, match="only 0 toxic and 80 benign texts"):
        stage()


def test_a_large_class_is_thinned_the_same_way_every_time():
    examples = [Example(f"e{i}", "x") for i in range(100)]
    some = corpus.some(examples, 30)
    assert len(some) == 30 and some == corpus.some(examples, 30)
    assert [e.id for e in some] == [e.id for e in examples if e in some]
    assert max(int(e.id[1:]) for e in some) > 60, "not just the first ones"
    assert corpus.some(examples, 100) == examples


def test_retain_text_comes_from_all_datasets_of_the_role():
    general = [Example(f"a{i}", "x", group="first") for i in range(300)]
    general += [Example(f"b{i}", "x", group="last") for i in range(60)]
    roles = {"retain": SimpleNamespace(encoded=[SimpleNamespace(example=e) for e in general])}
    objective = ProbeDirections(ProbeDirectionsConfig())
    objective.ctx = SimpleNamespace(roles=roles)
    objective.corpus = SimpleNamespace(benign=[Example(f"c{i}", "x", group="own") for i in range(100)])
    groups = [e.group for e in objective._retain_mix()]
    assert groups.count("own") == 100 and groups.count("first") + groups.count("last") == 100
    assert groups.count("last") >= 8, "a sixth of it, by hash"


def test_train_and_validation_texts_share_no_prompt(tmp_path):
    examples = [Example(f"{i}-{j}", "x", unit=f"u{i}") for i in range(50) for j in range(3)]
    train, val, test = corpus._split(examples, 0.0)
    assert len(train) + len(val) == 150 and train and val and not test
    assert not {e.unit for e in train} & {e.unit for e in val}
    # a few of many texts without units: both hashes must not be one
    many = [Example(f"text/{i}", "x") for i in range(4000)]
    train, val, _ = corpus._split(corpus.some(many, 200), 0.0)
    assert 100 < len(train) < 180 and len(train) + len(val) == 200
