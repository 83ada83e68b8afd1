"""Logits and activations given by hand, to test a loss against its formula alone; and stages on a tiny model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from unlearn_suite.engine.batch import Batch, Encoded, collate
from unlearn_suite.engine.loop import StageJob, run_stage
from unlearn_suite.engine.losses import label_logprobs
from unlearn_suite.plugins import load_target
from unlearn_suite.specs import Example, Train
from unlearn_suite.testing.tiny import tiny_model, tiny_tokenizer
from unlearn_suite_baselines.cards import CARDS

SPECS = {card.SPEC.name: card.SPEC for card in CARDS}
STEPS = 4

VOCAB, PAD_AND_EOS, BLOCKS, WIDTH = 120, 2, 4, 6
ROWS = {
    # ids and where the answer begins; rows end with eos, which is also what pads
    "forget": [([5, 9, 7, 11, 2], 2), ([6, 4, 2], 1), ([8, 3, 10, 2, 7, 6, 2], 0)],
    "retain": [([4, 4, 9, 2], 2), ([10, 11, 5, 6, 3, 2], 3), ([7, 2], 0)],
    "alternate": [([5, 9, 3, 2], 2), ([6, 10, 10, 8, 2], 1), ([8, 3, 10, 2, 4, 2], 3)],
}


def wave(*shape: int, phase: float, scale: float = 2.0) -> torch.Tensor:
    """Numbers that need no random generator: float64 [*shape]."""
    count = 1
    for n in shape:
        count *= n
    k = torch.arange(1, count + 1, dtype=torch.float64)
    return (scale * torch.sin(phase + 0.7 * k) + 0.5 * torch.cos(1.3 * k + phase * k / count)).reshape(shape)


def make_batch(role: str, rows: slice = slice(None)) -> Batch:
    made = [
        Encoded(Example(f"{role}-{i}", "x", group=f"g{i % 2}"), tuple(ids), n) for i, (ids, n) in enumerate(ROWS[role])
    ]
    return collate(made[rows], PAD_AND_EOS)


class GivenView:
    """Answers with stored tensors: logits [B, T, V] and hidden [blocks, B, T, D] by role."""

    def __init__(self, logits: dict[str, torch.Tensor], hidden: dict[str, torch.Tensor]) -> None:
        self.by_role, self.hidden_by_role = logits, hidden

    def rows(self, batch: Batch, mask: torch.Tensor) -> torch.Tensor:
        logits = self.by_role[batch.examples[0].id.split("-")[0]]
        return logits[:, : mask.shape[1] - 1][mask[:, 1:]]

    def hidden(self, batch: Batch, blocks: Any) -> dict[int, torch.Tensor]:
        stored = self.hidden_by_role[batch.examples[0].id.split("-")[0]]
        return {block: stored[block] for block in blocks}

    def token_logprobs(self, batch: Batch, over: Any = "content") -> torch.Tensor:
        return self.per_token(batch, label_logprobs, over)

    def per_token(
        self, batch: Batch, of: Any, over: Any = "content", against: Any = None, given: Any = ()
    ) -> torch.Tensor:
        mask = batch.mask(over)
        views = [self] if against is None else [self, against]
        first, *others = (view.rows(batch, mask) for view in views)
        labels = batch.input_ids[:, 1:][mask[:, 1:]]
        out = torch.zeros(mask.shape)
        constants = [g[:, 1:][mask[:, 1:]] for g in given]
        return out.masked_scatter(mask, of(first, labels, *others, *constants).float())


@pytest.fixture
def toy() -> Any:
    """`toy(dtype)`: batches, leaf tensors by name, and a context whose views give them back.

    `row(role, n)` is one row as a batch of its own; from then on the views answer with that row alone.
    """

    def make(dtype: torch.dtype = torch.float32) -> SimpleNamespace:
        batches = {role: make_batch(role) for role in ROWS}
        shapes = {role: b.input_ids.shape for role, b in batches.items()}
        phases = {role: float(i) for i, role in enumerate(ROWS)}
        logits = {r: wave(*shapes[r], VOCAB, phase=phases[r]).to(dtype).requires_grad_() for r in ROWS}
        base = {r: wave(*shapes[r], VOCAB, phase=phases[r] + 0.3).to(dtype) for r in ROWS}
        h = {r: wave(BLOCKS, *shapes[r], WIDTH, phase=phases[r] + 0.1).to(dtype).requires_grad_() for r in ROWS}
        h0 = {r: wave(BLOCKS, *shapes[r], WIDTH, phase=phases[r] + 0.5).to(dtype) for r in ROWS}
        ctx = SimpleNamespace(
            policy=GivenView(dict(logits), dict(h)),
            reference=GivenView(dict(base), dict(h0)),
            step_index=3,
            rows=lambda batch, x: x,
            train=SimpleNamespace(steps=10, batch=3),
            generator=torch.Generator().manual_seed(0),
            device=torch.device("cpu"),
            shape=SimpleNamespace(n_blocks=BLOCKS, hidden_size=WIDTH),
        )

        def row(role: str, n: int) -> Batch:
            only, width = slice(n, n + 1), len(ROWS[role][n][0])
            for view in (ctx.policy, ctx.reference):
                view.by_role[role] = view.by_role[role][only, :width]
                view.hidden_by_role[role] = view.hidden_by_role[role][:, only, :width]
            return make_batch(role, only)

        return SimpleNamespace(
            batches=batches, logits=logits, base=base, hidden=h, base_hidden=h0, ctx=ctx, rows=ROWS, row=row
        )

    return make


class Services:
    """Samples that are made up, and a memory that forgets."""

    def sample(self, prompts: Sequence[str], *, n: int, **_: Any) -> list[list[str]]:
        return [[f" then {prompt[-3:]} no {i}" for i in range(n)] for prompt in prompts]

    def memo(self, name: str, key: Any, build: Callable[[], Any]) -> Any:
        return build()

    def statistics(self, texts: Sequence[str]) -> dict[str, float]:
        return {"length": sum(map(len, texts)) / max(len(texts), 1)}

    def say(self, text: str) -> None:
        pass

    warn = say


WORDS = ["red", "blue", "green", "black", "white", "brown", "grey", "pink"]


def examples() -> dict[str, list[Example]]:
    """Half with a prompt, half plain text; the retain examples of the same unit are alternates."""
    forget, retain = [], []
    for i, word in enumerate(WORDS):
        prompt = f"the hat of {word} king" if i % 2 else ""
        forget.append(Example(f"f{i}", f" was {word} and tall {i}", prompt, group=f"g{i % 2}", unit=word))
        retain.append(Example(f"r{i}", f" fell on the {word} hill", prompt, group="h", unit=word))
    return {"forget": forget, "retain": retain}


def run_stage_of(
    name: str,
    options: dict[str, Any],
    folder: Path,
    *,
    arch: str = "llama",
    dtype: torch.dtype = torch.float32,
    stop_after: int | None = None,
    given: dict[str, list[Example]] | None = None,
    **train: Any,
) -> tuple[Any, list[dict[str, float]], Any]:
    """One stage on a tiny model: (model, scalars of each step, result)."""
    spec = SPECS[name]
    model = tiny_model(arch).to(dtype)
    rows: list[dict[str, float]] = []
    job = StageJob(
        index=0,
        objective=load_target(spec.load)(spec.config(**options)),
        train=Train(**{"steps": STEPS, "lr": 1e-3, "batch": 4, "length": 32, "save_every": 2, **train}),
        required_roles=spec.roles,
        examples=given or examples(),
        seed=0,
        artifacts=folder / "a",
        checkpoints=folder / "c",
        services=Services(),
        on_step=lambda step, scalars: rows.append(scalars),
        should_stop=lambda: stop_after is not None and len(rows) >= stop_after,
    )
    result = run_stage(model, tiny_tokenizer(), job)
    return model, rows, result


@pytest.fixture
def run() -> Any:
    return run_stage_of
