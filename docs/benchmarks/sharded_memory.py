"""What one process holds when a stage that trains every tensor is spread over processes (gloo, CPU).

    python docs/benchmarks/sharded_memory.py

A random Llama of 12 blocks, width 512, float32; three steps of a loss on block outputs and log-probs. "held" counts
the bytes of the tensors a process keeps between two steps: weights, the originals that the reference reads,
gradients after a backward pass, and AdamW's moments. "peak" is the most memory of the process in RAM over the
steps, less what it had before the model was made.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from unlearn_suite import Batch, Config, Example, Loss, LossObjective, ModelShape, Requirements
from unlearn_suite.engine.accounting import PeakMemory
from unlearn_suite.engine.loop import StageJob, run_stage
from unlearn_suite.specs import Train
from unlearn_suite.testing.distributed import on_processes
from unlearn_suite.testing.tiny import tiny_model, tiny_tokenizer

MODEL = {
    "num_hidden_layers": 12,
    "hidden_size": 512,
    "intermediate_size": 1536,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "vocab_size": 16000,
}
TEXTS = [Example(str(i), "a text of some length, to be read by the model " * 2 + str(i)) for i in range(8)]


class Everything(LossObjective[Config]):
    """Trains all tensors."""

    held: Mapping[str, int]

    def requirements(self, shape: ModelShape) -> Requirements:
        return Requirements(tuple(shape.tensors), reads=shape.n_blocks - 1, logits=True)

    def loss(self, batch: Mapping[str, Batch]) -> Loss:
        b = batch["retain"]
        h, ref = (view.hidden(b, [6])[6] for view in (self.ctx.policy, self.ctx.reference))
        keep = b.mean((h - ref).float().square().mean(-1))
        return Loss({"keep": keep, "nll": -b.mean(self.ctx.policy.token_logprobs(b))})

    def step(self, batch: Mapping[str, Batch]) -> dict[str, float]:
        scalars = self.ctx.backward(self.loss, batch)
        model, views = self.ctx.views.replay.model, self.ctx.views
        weights = size(model.parameters())
        gradients = size(p.grad for p in self.ctx.trainable.values())
        scalars |= self.ctx.update()
        moments = size(t for state in self.ctx.optimizer._adamw.state.values() for t in state.values())
        self.held = {
            "weights": weights,
            "originals": size(views.original.values()),
            "gradients": gradients,
            "moments": moments,
        }
        return scalars


def size(tensors: Any) -> int:
    """Bytes in this process."""
    local = (getattr(t, "to_local", lambda t=t: t)() for t in tensors if t is not None)
    return sum(t.numel() * t.element_size() for t in local)


class Silent:
    """No services."""

    def say(self, text: str) -> None:
        pass

    warn = say


def measure() -> dict[str, float]:
    import torch.distributed.fsdp
    import torch.distributed.tensor  # their code must not count as the stage's memory

    before = PeakMemory(torch.device("cpu")).peak() or 0
    model, objective = tiny_model("llama", **MODEL), Everything(Config())
    with tempfile.TemporaryDirectory() as folder:
        job = StageJob(
            0,
            objective,
            Train(steps=3, lr=1e-4, batch=4, length=64),
            ("retain",),
            {"retain": TEXTS},
            0,
            Path(folder),
            Path(folder),
            Silent(),  # type: ignore[arg-type]
            lambda step, scalars: None,
        )
        result = run_stage(model, tiny_tokenizer(), job)
    return {**objective.held, "peak": result.cost.peak_bytes["train"] - before}


def main() -> None:
    names = ["weights", "originals", "gradients", "moments", "peak"]
    print("| processes | " + " | ".join(f"{name}, MB" for name in names) + " |")
    print("|" + " --- |" * (len(names) + 1))
    for n in (1, 2):
        for rank, found in enumerate(on_processes(measure, n)):
            cells = " | ".join(f"{found[name] / 1e6:.0f}" for name in names)
            print(f"| {n}, process {rank} | {cells} |", flush=True)


if __name__ == "__main__":
    main()
