"""A stage of probe-directions on a tiny model, with services and a scorer that need nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from unlearn_suite import Example
from unlearn_suite.engine.loop import StageJob, StageResult, run_stage
from unlearn_suite.specs import Train
from unlearn_suite.testing.tiny import tiny_model, tiny_tokenizer
from unlearn_suite_toxicity.probe_directions import causal, corpus, probes
from unlearn_suite_toxicity.probe_directions.config import ProbeDirectionsConfig
from unlearn_suite_toxicity.probe_directions.objective import ProbeDirections


class Services:
    """`sample` writes marked text for half of the continuations, as a model with two moods would."""

    def __init__(self) -> None:
        self.calls = 0
        self.said: list[str] = []

    def sample(self, prompts: Any, *, n: int, **_: Any) -> list[list[str]]:
        self.calls += 1
        return [[f" you {i} fool, damn!" if i % 2 else f" our {i} lovely day." for i in range(n)] for _ in prompts]

    def memo(self, name: str, key: Any, build: Any) -> Any:
        return build()

    def say(self, text: str) -> None:
        self.said.append(text)

    warn = say


class WordScorer:
    def score(self, texts: list[str]) -> list[float]:
        return [1.0 if "damn" in text else 0.0 for text in texts]


@pytest.fixture(autouse=True)
def word_scorer(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (corpus, causal):
        monkeypatch.setattr(module, "scorer_of", lambda told: WordScorer())


def texts(with_prompts: bool = True) -> dict[str, list[Example]]:
    roles = {
        "forget": [
            Example(f"f{i}", f" what a damn mess {i}", f"Look {i},", unit=f"p{i}", group="ab"[i % 2]) for i in range(30)
        ],
        "retain": [Example(f"r{i}", f"the sun sets at {i}", unit=f"q{i}") for i in range(30)],
    }
    if with_prompts:
        roles["prompts"] = [Example(f"p{i}", prompt=f"Prompt {i}:", unit=f"p{i}") for i in range(20)]
    return roles


@dataclass
class Ran:
    """A finished stage: the model, its values before, the rows of scalars, what the stage gave."""

    model: Any
    before: dict[str, Tensor]
    rows: list[dict[str, float]]
    result: StageResult
    services: Services
    objective: ProbeDirections
    folder: Path
    roles: Mapping[str, list[Example]] = field(default_factory=dict)

    @property
    def changed(self) -> set[str]:
        return {n for n, p in self.model.named_parameters() if not torch.equal(p, self.before[n])}


def run_probe_stage(
    folder: Path,
    roles: dict[str, list[Example]] | None = None,
    services: Any = None,
    arch: str = "llama",
    shape: Mapping[str, int] | None = None,
    train: Mapping[str, Any] | None = None,
    stop_after: int | None = None,
    **options: Any,
) -> Ran:
    model = tiny_model(arch, **(shape or {}))
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    rows: list[dict[str, float]] = []
    services = services or Services()
    objective = ProbeDirections(ProbeDirectionsConfig(**{"blocks": (1, 2), "samples": 4, "kl_weight": 0.0, **options}))
    job = StageJob(
        index=0,
        objective=objective,
        train=Train(**{"steps": 4, "lr": 3e-3, "batch": 4, "length": 48, **(train or {})}),
        required_roles=("forget", "retain"),
        examples=roles or texts(),
        seed=0,
        artifacts=folder / "artifacts",
        checkpoints=folder / "checkpoints",
        services=services,
        on_step=lambda step, scalars: rows.append(scalars),
        should_stop=lambda: stop_after is not None and len(rows) >= stop_after,
    )
    result = run_stage(model, tiny_tokenizer(), job)
    return Ran(model, before, rows, result, services, objective, folder, job.examples)


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Ran]:
    """`stage(**options)` runs one in a folder of its own; `stage("name", ...)` in that folder, to resume it.

    One regularisation strength instead of the whole path: what is chosen of it is tested by itself.
    """
    monkeypatch.setattr(probes.fit, "__defaults__", ((1e-2,),))
    count = iter(range(100))

    def run(folder: str = "", **options: Any) -> Ran:
        return run_probe_stage(tmp_path / (folder or f"stage{next(count)}"), **options)

    return run


@pytest.fixture
def roles() -> Callable[..., dict[str, list[Example]]]:
    return texts


@pytest.fixture
def unsure() -> dict[str, list[Example]]:
    """Roles without prompts, 60 texts of each class, that a tiny model tells apart better than chance and with errors;
    toxic ones are of the groups "a" (a third) and "b"."""
    drawn = np.random.default_rng(0)

    def text(letters: str) -> str:
        return " " + "".join(drawn.choice(list(letters), 8))

    toxic = [
        Example(f"f{i}", text("abcdefgh" if i % 3 else "abcdefxz"), "Say", group="b" if i % 3 else "a")
        for i in range(60)
    ]
    return {"forget": toxic, "retain": [Example(f"r{i}", text("cdefghij"), "Say") for i in range(60)]}


@pytest.fixture
def pooled() -> Callable[..., Any]:
    """`pooled(model, ctx, examples, block=1)`: [N, D] float64, the block's output averaged over the response, by
    transformers' own pass."""

    def read(model: Any, ctx: Any, examples: list[Example], block: int = 1) -> Any:
        rows = []
        for batch in ctx.encode("probe", examples).chunks(8):
            with torch.no_grad():
                out = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask, output_hidden_states=True)
            h, mask = out.hidden_states[block + 1].double(), batch.mask("response")[..., None]
            rows.append(((h * mask).sum(1) / mask.sum(1)).numpy())
        return np.concatenate(rows)

    return read
