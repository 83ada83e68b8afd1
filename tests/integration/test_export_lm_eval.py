"""An exported folder is one that lm-evaluation-harness loads as it is, with the trained model's numbers."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("lm_eval")

import torch

from unlearn_suite import models
from unlearn_suite.engine import patch
from unlearn_suite.models.export import export_checkpoint
from unlearn_suite.models.patch_file import PatchFile
from unlearn_suite.testing.tiny import tiny_model, tiny_tokenizer

CONTEXT, CONTINUATION = "the river runs to", " the sea"


def test_log_likelihoods_of_the_harness_are_those_of_the_trained_model(tmp_path: Path) -> None:
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    base = tmp_path / "base"
    tiny_model(tie_word_embeddings=True).save_pretrained(base, max_shard_size="40KB")
    tiny_tokenizer().save_pretrained(base)
    model, tokenizer = models.load({"path": str(base)}, torch.float32, "cpu")
    chosen = {name: value for name, value in model.named_parameters() if "embed" in name or "mlp" in name}
    originals = {name: value.detach().clone() for name, value in chosen.items()}
    with torch.no_grad():
        for value in chosen.values():
            value.mul_(1.1)
    patch.save(tmp_path / "p.safetensors", model, originals, {})
    about = {"ref": {}, "name": "tiny", "source": "", "licence": ""}
    export_checkpoint(base, [PatchFile(tmp_path / "p.safetensors")], tmp_path / "out", about=about)

    ids = tokenizer(CONTEXT + CONTINUATION, return_tensors="pt").input_ids
    count = len(tokenizer(CONTINUATION).input_ids)
    with torch.no_grad():
        logp = model(ids).logits[0, :-1].log_softmax(-1)
    expected = float(logp.gather(-1, ids[0, 1:, None])[-count:].sum())

    scored = {}
    for folder in (base, tmp_path / "out"):
        harness = HFLM(pretrained=str(folder), device="cpu", batch_size=1)
        request = Instance("loglikelihood", {}, (CONTEXT, CONTINUATION), 0)
        scored[folder.name] = harness.loglikelihood([request], disable_tqdm=True)[0][0]
    assert scored["out"] == pytest.approx(expected, rel=1e-5)
    assert abs(scored["base"] - expected) > 0.01
