"""probe-directions: what probes are fitted on, and the directions made of them, against independent formulas."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from unlearn_suite import Example
from unlearn_suite.testing.tiny import tiny_model, tiny_tokenizer
from unlearn_suite_toxicity.probe_directions import probes
from unlearn_suite_toxicity.probe_directions.config import ProbeDirectionsConfig
from unlearn_suite_toxicity.probe_directions.directions import Raw, gram_schmidt, measure, raw_axes
from unlearn_suite_toxicity.probe_directions.features import Features, Reader
from unlearn_suite_toxicity.probe_directions.lengths import bin_of, same_lengths

D = 10


def cloud(seed: int = 0, n: int = 240, groups: bool = False) -> Features:
    """Toxic rows of group "a" lie along axis 0, of group "b" along axis 1; scales differ by axis."""
    rng = np.random.default_rng(seed)

    def draw(count: int) -> tuple[np.ndarray, np.ndarray, list[str]]:
        y = np.repeat([0.0, 1.0], count // 2)
        names = ["" if not label else "ab"[i % 2] for i, label in enumerate(y)]
        x = rng.normal(size=(count, D))
        for axis, name in enumerate("ab"):
            x[np.array(names) == name, axis] += 4.0
        return x * np.linspace(0.5, 2, D), y, names

    x, y, names = draw(n)
    x_val, y_val, _ = draw(n)
    return Features(x, y, x_val, y_val, tuple(names) if groups else tuple("" for _ in names))


def axes_of(data: Features, **options) -> list[Raw]:
    probe = probes.fit(data.x, data.y, data.x_val, data.y_val)
    return raw_axes(ProbeDirectionsConfig(**options), data, probe, block=3, seed=0)


def unit(vector: np.ndarray) -> np.ndarray:
    return vector / np.linalg.norm(vector)


def test_lda_is_the_shrunk_within_class_inverse_times_the_difference_of_means():
    data = cloud()
    x0, x1 = data.x[data.y == 0], data.x[data.y == 1]
    difference = x1.mean(0) - x0.mean(0)
    within = (len(x0) * np.cov(x0.T, bias=True) + len(x1) * np.cov(x1.T, bias=True)) / len(data.x)
    expected = np.linalg.inv(within + 0.01 * np.trace(within) / D * np.eye(D)) @ difference
    (lda,) = axes_of(data, direction="lda")
    np.testing.assert_allclose(unit(lda.read), unit(expected), atol=1e-9)
    (leace,) = axes_of(data, direction="leace-edit")
    np.testing.assert_allclose(leace.read, lda.read)
    np.testing.assert_allclose(leace.edit, difference)
    (diffmean,) = axes_of(data, direction="diffmean")
    np.testing.assert_allclose(diffmean.read, difference)


def test_groups_of_toxic_text_get_a_probe_each():
    found = axes_of(cloud(groups=True), direction="multi", subspace=3)
    assert len(found) == 2
    for raw, axis in zip(found, (0, 1), strict=True):
        assert abs(unit(raw.read)[axis]) > 0.8
    basis = gram_schmidt([raw.read for raw in found])
    np.testing.assert_allclose(basis @ basis.T, np.eye(2), atol=1e-12)


def test_without_groups_each_probe_sees_only_what_the_ones_before_left():
    data = cloud()
    first, second, third = axes_of(data, direction="multi", subspace=3)
    for later in (second, third):
        assert abs(unit(later.read) @ unit(first.read)) < 1e-9
    rest = data.x - np.outer(data.x @ unit(first.read), unit(first.read))
    np.testing.assert_allclose(rest @ second.read, data.x @ second.read, atol=1e-9)


def test_gram_schmidt_spans_the_same_and_drops_what_depends():
    a, b = np.random.default_rng(1).normal(size=(2, D))
    basis = gram_schmidt([a, 2 * a, b])
    q, _ = np.linalg.qr(np.stack([a, b]).T)
    np.testing.assert_allclose(basis.T @ basis, q @ q.T, atol=1e-12)
    np.testing.assert_allclose(gram_schmidt([a + b], basis[:1]), [basis[1]], atol=1e-9)


@pytest.mark.parametrize("control", ["random", "shuffled"])
def test_controls_are_fixed_by_the_seed_and_know_nothing(control):
    data, config = cloud(), ProbeDirectionsConfig(direction=control)
    probe = probes.fit(data.x, data.y, data.x_val, data.y_val)
    found = [raw_axes(config, data, probe, block=3, seed=seed)[0].read for seed in range(8)]
    np.testing.assert_array_equal(found[0], raw_axes(config, data, probe, block=3, seed=0)[0].read)
    areas = [probes.auroc(data.y_val, data.x_val @ read) for read in found]
    assert 0.3 < np.mean(areas) < 0.7 < probe.auroc


def test_axes_are_orthonormal_point_to_toxic_and_carry_token_statistics():
    data = cloud()
    tokens = [torch.tensor(data.x_val[data.y_val == label], dtype=torch.float32) for label in (0, 1)]
    raws = [Raw.of(np.eye(D)[0]), Raw.of(-np.eye(D)[1] + np.eye(D)[0]), Raw.of(np.eye(D)[0] * 3)]
    found = measure(raws, *tokens, block=1)
    assert len(found.axes) == 2
    for axis, index in zip(found.axes, (0, 1), strict=True):
        np.testing.assert_allclose(axis.read.numpy(), np.eye(D)[index], atol=1e-6)
        benign, toxic = (t[:, index].double().numpy() for t in tokens)
        assert axis.mu0 == pytest.approx(benign.mean(), abs=1e-5)
        assert axis.sd0 == pytest.approx(benign.std(ddof=1), rel=1e-4)
        assert axis.scale == pytest.approx(toxic.mean() - benign.mean(), rel=1e-4)
    torch.testing.assert_close(found.centre, tokens[0].mean(0))


def test_equal_lengths_give_equal_histograms():
    tokenizer = tiny_tokenizer()
    toxic = [Example(f"t{i}", "x" * (1 + i % 7)) for i in range(40)]
    benign = [Example(f"b{i}", "y" * (1 + i % 5)) for i in range(90)]
    one, two = same_lengths(toxic, benign, tokenizer)
    histograms = [Counter(len(e.text) for e in part) for part in (one, two)]
    assert histograms[0] == histograms[1] and set(histograms[0]) == {1, 2, 3, 4, 5}
    assert [e.id for e in one] == [e.id for e in toxic if e in one]
    assert (one, two) == same_lengths(toxic, benign, tokenizer)
    bins = [bin_of(n) for n in range(1, 400)]
    assert bins == sorted(bins) and bins[:16] == list(range(1, 17)) and bin_of(32) - bin_of(16) == 5


def test_pooling_reads_what_it_says(stage):
    ctx = stage(train={"steps": 0}).objective.ctx
    example, block = Example("e", " damn", "Hey"), 1
    h = ctx.reference.hidden(next(ctx.encode("probe", [example]).chunks(1)), [block])[block][0].double()
    expected = {"mean-response": h[3:8].mean(0), "last": h[7], "mean-all": h[1:8].mean(0), "token": h[3:8]}
    for pool, rows in expected.items():
        reader = Reader(ctx, [block], pool)
        found, owners = reader._read(ctx.reference, [example, Example("f", " a long day", "You")], reader._pool)
        rows = rows.reshape(-1, len(h[0]))
        torch.testing.assert_close(found[block][: len(rows)].double(), rows, rtol=1e-5, atol=1e-5)
        assert len(owners) == len(found[block]) and owners[: len(rows)] == [example] * len(rows)


def test_old_and_fresh_probes_are_judged_on_the_trained_model(stage, pooled):
    ran = stage(train={"steps": 6, "lr": 1e-2})
    ctx, corpus = ran.objective.ctx, ran.objective.steering.corpus
    parts = [corpus.benign, corpus.toxic, corpus.benign_val, corpus.toxic_val]
    now, before = ([pooled(model, ctx, part) for part in parts] for model in (ran.model, tiny_model("llama")))
    y, y_val = (np.repeat([0.0, 1.0], [len(a), len(b)]) for a, b in (parts[:2], parts[2:]))
    weight = load_file(ran.folder / "artifacts" / "probes.safetensors")["1"].numpy()
    x, x_val, old_val = np.concatenate(now[:2]), np.concatenate(now[2:]), np.concatenate(before[2:])
    told = ran.result.closing
    assert told["auroc_before_1"] == pytest.approx(roc_auc_score(y_val, old_val @ weight))
    assert told["auroc_old_probe_1"] == pytest.approx(roc_auc_score(y_val, x_val @ weight))
    mean, std = x.mean(0), x.std(0)
    std = np.maximum(std, 1e-4 * np.median(std) + 1e-12)
    fresh = LogisticRegression(C=1e-2, class_weight="balanced", tol=1e-5, max_iter=1000).fit((x - mean) / std, y)
    expected = roc_auc_score(y_val, fresh.decision_function((x_val - mean) / std))
    assert told["auroc_fresh_probe_1"] == pytest.approx(expected, abs=1e-6)


def test_a_refresh_adds_the_probe_of_the_model_as_it_is_outside_the_axes_so_far(stage, pooled):
    ran = stage(train={"steps": 5, "lr": 1e-2}, refresh_every=4)
    steering, ctx = ran.objective.steering, ran.objective.ctx
    assert steering.rounds == 1
    # the model at the refresh: the same stage without its last step
    then = stage(train={"steps": 4, "lr": 1e-2}).model
    parts = [steering.corpus.benign, steering.corpus.toxic]
    x = np.concatenate([pooled(then, ctx, part) for part in parts])
    y = np.repeat([0.0, 1.0], [len(part) for part in parts])
    first, second = (a.read.double().numpy() for a in steering.directions[1].axes)
    x = x - np.outer(x @ first, first)
    mean, std = x.mean(0), x.std(0)
    std = np.maximum(std, 1e-4 * np.median(std) + 1e-12)
    probe = LogisticRegression(C=1e-2, class_weight="balanced", tol=1e-5, max_iter=1000).fit((x - mean) / std, y)
    w = probe.coef_[0] / std
    w = w - (w @ first) * first
    assert abs(second @ w) / np.linalg.norm(w) == pytest.approx(1.0, abs=1e-4)


def test_multi_fits_a_probe_of_each_group_and_makes_them_orthonormal(stage, unsure, pooled):
    ran = stage(roles=unsure, direction="multi", subspace=2, train={"steps": 0})
    ctx, texts = ran.objective.ctx, ran.objective.corpus
    benign = pooled(ran.model, ctx, texts.benign)
    found = []
    for group in "ba":  # the larger one first
        toxic = pooled(ran.model, ctx, [e for e in texts.toxic if e.group == group])
        x, y = np.concatenate([benign, toxic]), np.repeat([0.0, 1.0], [len(benign), len(toxic)])
        mean, std = x.mean(0), x.std(0)
        std = np.maximum(std, 1e-4 * np.median(std) + 1e-12)
        probe = LogisticRegression(C=1e-2, class_weight="balanced", tol=1e-5, max_iter=1000).fit((x - mean) / std, y)
        found.append(unit(probe.coef_[0] / std))
    first, second = (a.read.double().numpy() for a in ran.objective.steering.directions[1].axes)
    assert first @ found[0] == pytest.approx(1.0, abs=1e-4) and abs(first @ second) < 1e-6
    assert abs(second @ unit(found[1] - (found[1] @ first) * first)) == pytest.approx(1.0, abs=1e-4)
    assert abs(found[1] @ first) > 0.1, "Gram-Schmidt must have something to do"
