"""The largest model that fits 24 GB and 80 GB, for each method, as the pre-flight computes it from configurations.

    python docs/benchmarks/largest_model.py

Nothing is downloaded: the shapes stand below. bf16 weights with fp32 masters of what is trained, one example of 512
tokens per role and forward pass (the gradient of a larger batch is added up, which takes no more memory). "train": the
peak of the stage, with only the blocks in memory that it reads; "all": with the whole model in memory. A process
needs about 0.6 GB more for CUDA itself. Scoring needs the whole model, so "fits" asks both: the stage, and the weights.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import Any

import torch
from logprob_step import LogProbs
from logprob_step import Options as LogProbOptions
from preflight import rmu, texts
from transformers import AutoConfig

from unlearn_suite import ModelShape, Requirements
from unlearn_suite.engine.preflight import Family, StageEstimate, StagePlan, estimate_stage
from unlearn_suite.models.outline import on_meta
from unlearn_suite.specs import Lora, Train
from unlearn_suite_knowledge.cosine_rmu.config import CosineRmuConfig
from unlearn_suite_knowledge.cosine_rmu.objective import CosineRmu
from unlearn_suite_toxicity.probe_directions.config import ProbeDirectionsConfig
from unlearn_suite_toxicity.probe_directions.objective import ProbeDirections

GB = 1e9
CONTEXT = 0.6
LENGTH = 512


def llama(width: int, blocks: int, mlp: int, heads: int, groups: int, tied: bool, **more: Any) -> dict[str, Any]:
    shape = {"hidden_size": width, "num_hidden_layers": blocks, "intermediate_size": mlp}
    shape |= {"num_attention_heads": heads, "num_key_value_heads": groups, "tie_word_embeddings": tied}
    return {"model_type": "llama", "vocab_size": 128256, "max_position_embeddings": 8192, **shape, **more}


SHAPES = {
    "Llama-3.2-3B": llama(3072, 28, 8192, 24, 8, True, head_dim=128),
    "Llama-3-8B": llama(4096, 32, 14336, 32, 8, False),
    "Qwen2.5-14B": llama(5120, 48, 13824, 40, 8, False, model_type="qwen2", vocab_size=152064),
    "Qwen2.5-32B": llama(5120, 64, 27648, 40, 8, False, model_type="qwen2", vocab_size=152064),
    "Llama-3-70B": llama(8192, 80, 28672, 64, 8, False),
}


class AllBlocks(LogProbs):
    """Trains the MLP output of every block."""

    def requirements(self, shape: ModelShape) -> Requirements:
        return Requirements(shape.select("mlp_out", range(shape.n_blocks)), reads=-1, logits=True)


def npo(last: int) -> Any:
    return LogProbs(LogProbOptions(method="npo", last=last))


METHODS: dict[str, tuple[Callable[[], Any], dict[str, Any]]] = {
    "cosine-rmu, no attack": (rmu, {}),
    "cosine-rmu, attack on activations": (
        lambda: CosineRmu(CosineRmuConfig(inner_loss="rep", inner_steps=2, meta_start=0)),
        {},
    ),
    "probe-directions, no KL": (lambda: ProbeDirections(ProbeDirectionsConfig(source="static", kl_weight=0)), {}),
    "NPO, last 3 blocks' MLP output": (lambda: npo(3), {}),
    "NPO, LoRA on all MLP outputs": (
        lambda: AllBlocks(LogProbOptions(method="npo", last=1)),
        {"lora": Lora(rank=16), "recompute": True},
    ),
    "NPO, all tensors": (lambda: npo(0), {"recompute": True}),
}


def estimate(method: str, family: Family) -> StageEstimate:
    objective, options = METHODS[method]
    train = Train(steps=2, batch=1, length=LENGTH, save_every=100, **options)
    found = estimate_stage(family, None, StagePlan(objective, train, ("forget", "retain"), texts(LENGTH)))
    if found.basis != "traced":
        print(f"{method}: {found.note}", file=sys.stderr)
    return found


def main() -> None:
    made = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    made.add_argument("--shapes", nargs="+", choices=list(SHAPES), default=list(SHAPES))
    made.add_argument("--methods", nargs="+", choices=list(METHODS), default=list(METHODS))
    args = made.parse_args()
    torch.set_num_threads(1)
    families = {}
    for name in args.shapes:
        shape = dict(SHAPES[name])
        families[name] = Family(on_meta(AutoConfig.for_model(shape.pop("model_type"), **shape)), torch.bfloat16)
    weights = {name: family.weight_bytes() / GB for name, family in families.items()}
    heads = [f"{name} ({weights[name]:.0f} GB)" for name in families]
    print(f"| method, train / all GB | {' | '.join(heads)} | fits 24 GB | fits 80 GB |")
    print(f"| --- |{' ---: |' * len(heads)} --- | --- |", flush=True)
    for method in args.methods:
        needs: dict[str, float] = {}
        cells = []
        for name, family in families.items():
            found = estimate(method, family)
            train = max(found.peak_bytes.values()) / GB
            whole = train + weights[name] - found.weight_bytes / GB
            needs[name] = max(train, weights[name]) + CONTEXT
            cells.append(f"{train:.1f} / {whole:.1f}")
        fits = [next((n for n in reversed(needs) if needs[n] <= room), "none") for room in (24, 80)]
        print(f"| {method} | {' | '.join([*cells, *fits])} |", flush=True)


if __name__ == "__main__":
    main()
