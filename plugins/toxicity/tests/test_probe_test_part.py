"""probe-directions: texts that are kept apart to judge probes by, which nothing is chosen by."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import pytest
from safetensors.torch import load_file
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from unlearn_suite import Example, TrainingError
from unlearn_suite.testing.tiny import tiny_model
from unlearn_suite_toxicity.probe_directions import corpus, probes


def stacked(read, parts):
    """(rows, labels) of benign and toxic examples."""
    return np.concatenate([read(part) for part in parts]), np.repeat([0.0, 1.0], [len(part) for part in parts])


def test_train_validation_and_test_share_no_prompt_and_the_training_part_stays():
    examples = [Example(f"{i}-{j}", "x", unit=f"u{i}") for i in range(600) for j in range(2)]
    train, val, test = corpus._split(examples, 0.143)
    units = [{e.unit for e in part} for part in (train, val, test)]
    assert not units[0] & units[1] and not units[0] & units[2] and not units[1] & units[2]
    assert len(train) + len(val) + len(test) == 1200
    assert [len(u) / 600 for u in units] == pytest.approx([0.7, 0.157, 0.143], abs=0.04)
    byte = {e.unit: hashlib.sha256(e.unit.encode()).digest()[0] for e in examples}
    assert units[0] == {u for u, b in byte.items() if b < 179} and units[2] == {u for u, b in byte.items() if b >= 219}
    without = corpus._split(examples, 0.0)
    assert without[0] == train and not without[2]
    assert without[1] == [e for e in examples if e in val or e in test]


def test_what_is_told_of_a_probe_is_of_the_test_part(stage, unsure, pooled):
    ran = stage(roles=unsure, test_share=0.143, layer_weights="auroc", train={"steps": 6, "lr": 1e-2})
    ctx, texts, steering = ran.objective.ctx, ran.objective.corpus, ran.objective.steering
    kept = ran.folder / "artifacts"
    saved, weights = json.loads((kept / "probes.json").read_text()), load_file(kept / "probes.safetensors")
    assert saved["texts"]["toxic_test"] == len(texts.toxic_test) > 3 < len(texts.benign_test)
    parts = [(texts.benign, texts.toxic), (texts.benign_val, texts.toxic_val), (texts.benign_test, texts.toxic_test)]
    judged = {}
    for block in (1, 2):
        before, now = (
            [stacked(lambda part, m=m, b=block: pooled(m, ctx, part, b), pair) for pair in parts]
            for m in (tiny_model(), ran.model)
        )
        w, row, told = weights[str(block)].numpy(), saved["blocks"][str(block)], ran.result.closing
        (x_val, y_val), (x_test, y_test) = before[1:]
        judged[block] = area = roc_auc_score(y_test, x_test @ w)
        assert row["auroc"] == told[f"auroc_before_{block}"] == pytest.approx(area)
        assert row["accuracy"] == pytest.approx(((x_test @ w + row["bias"] > 0) == y_test).mean())
        assert row["auroc_validation"] == pytest.approx(roc_auc_score(y_val, x_val @ w))
        (x, y), _, (x_test, y_test) = now
        assert told[f"auroc_old_probe_{block}"] == pytest.approx(roc_auc_score(y_test, x_test @ w))
        mean, std = x.mean(0), x.std(0)
        std = np.maximum(std, 1e-4 * np.median(std) + 1e-12)
        fresh = LogisticRegression(C=1e-2, class_weight="balanced", tol=1e-5, max_iter=1000).fit((x - mean) / std, y)
        expected = roc_auc_score(y_test, fresh.decision_function((x_test - mean) / std))
        assert told[f"auroc_fresh_probe_{block}"] == pytest.approx(expected, abs=1e-6)
    validation = {b: saved["blocks"][str(b)]["auroc_validation"] for b in (1, 2)}
    assert all(abs(validation[b] - judged[b]) > 1e-3 for b in (1, 2)), "the parts must be told apart"
    total = sum(validation.values()) - 1.0
    assert steering.weights == pytest.approx({b: (area - 0.5) / total for b, area in validation.items()})


@pytest.mark.parametrize("share", [0.0, 0.143])
def test_no_test_text_is_trained_on(stage, unsure, share):
    ran = stage(roles=unsure, test_share=share, probe_texts=40, train={"steps": 0})
    texts, trained = ran.objective.corpus, ran.objective.ctx.roles
    kept = {e.example.id for e in trained["retain"].encoded}
    # also of those that `probe_texts` left out of the classes
    assert kept == {e.id for e in unsure["retain"]} - {e.id for e in corpus._split(unsure["retain"], share)[2]}
    assert (len(kept) < 60) == bool(share)
    assert {e.example.id for e in trained["forget"].encoded} == {e.id for e in texts.toxic}


def test_blocks_are_left_out_by_validation(stage, unsure):
    probes_of = stage(roles=unsure, test_share=0.143, train={"steps": 0}).objective.steering
    between = {b: (probes_of.probes[b].auroc + probes_of.judged[b].auroc) / 2 for b in (1, 2)}
    for block, limit in between.items():
        expected = [b for b in (1, 2) if probes_of.probes[b].auroc >= limit]
        if not expected:
            with pytest.raises(TrainingError, match="no block passes"):
                stage(roles=unsure, test_share=0.143, min_auroc=limit, train={"steps": 0})
            continue
        found = stage(roles=unsure, test_share=0.143, min_auroc=limit, train={"steps": 0}).objective.steering
        assert found.blocks == expected, block


def test_the_page_says_what_probes_were_chosen_and_judged_by(stage, unsure):
    ran = stage(roles=unsure, test_share=0.143, train={"steps": 0})
    table = json.loads((ran.folder / "artifacts" / "report.json").read_text())["items"][0]
    texts = ran.objective.corpus
    assert f"chosen by {len(texts.toxic_val)} and {len(texts.benign_val)}" in table["note"]
    assert f"judged on {len(texts.toxic_test)} and {len(texts.benign_test)} of other prompts" in table["note"]
    assert [row[1] for row in table["rows"]] == [ran.objective.steering.judged[b].auroc for b in (1, 2)]


def test_without_it_probes_are_judged_by_validation_as_before(stage, unsure):
    ran = stage(roles=unsure, train={"steps": 0})
    steering = ran.objective.steering
    saved = json.loads((ran.folder / "artifacts" / "probes.json").read_text())
    assert set(saved["texts"]) == {"toxic", "benign", "toxic_val", "benign_val"}
    for block, data in steering.features.items():
        row, probe = saved["blocks"][str(block)], steering.probes[block]
        assert "auroc_validation" not in row
        assert row["auroc"] == probe.auroc == probes.auroc(data.y_val, data.x_val @ probe.weight + probe.bias)


def test_a_test_part_without_texts_is_one_clear_error(stage, unsure):
    few = {role: [e for e in part if corpus._split([e], 0.01)[2] == []] for role, part in unsure.items()}
    with pytest.raises(TrainingError, match="no text in the test part"):
        stage(roles=few, test_share=0.01)
