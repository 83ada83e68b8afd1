"""An objective on a tiny model: one stage, run as the host runs it, with everything that happened written down."""

from __future__ import annotations

import copy
import json
import random
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ...engine.loop import StageJob, run_stage
from ...engine.objective import Objective, Scalars
from ...evaluate.model import EvalModel
from ...evaluate.text import text_statistics
from ...plan.text import Node
from ...specs import Example, Train
from ..distributed import StageCase
from ..tiny import tiny_model, tiny_tokenizer
from .subject import Subject

STEPS = 4
DEFAULT_TRAIN = {"steps": STEPS, "batch": 4, "length": 32}
WORDS = (
    "the cat sat on the mat",
    "a dog ran home",
    "rain fell on the hill all day",
    "we ate bread",
    "the old clock stopped at noon",
    "birds sing early",
    "she wrote a long letter to him",
    "ice melts in spring",
)


@dataclass
class Run:
    """What a stage did. `weights`: every parameter and buffer afterwards. `stopped`: it was told to stop early."""

    weights: dict[str, Tensor]
    rows: list[Scalars]
    closing: Scalars
    stopped: bool
    original: dict[str, Tensor]


@dataclass
class Bench:
    """One case of an objective: its options, its data and a tiny model."""

    subject: Subject
    case: Node
    model_words: Mapping[str, Any] = field(init=False)
    roles: tuple[str, ...] = field(init=False)
    examples: Mapping[str, list[Example]] = field(init=False)

    def __post_init__(self) -> None:
        words = self.case.under("model")
        self.model_words = words.plain() if words else {}
        told = self.case.under("data")
        self.roles = self.subject.spec.roles_for(self.subject.options(self.case))
        self.examples = {role: made_up(role) for role in self.roles} | {
            role: self.subject.examples(node, role) for role, node in (told.map if told else {}).items()
        }

    def objective(self) -> Objective[Any]:
        """A new objective with the case's options."""
        made: Objective[Any] = self.subject.target()(self.subject.options(self.case))
        return made

    def model(self) -> nn.Module:
        """A new model; all are equal."""
        return copy.deepcopy(_template(json.dumps(self.model_words, sort_keys=True)))

    def train_words(self) -> dict[str, Any]:
        """What is told of training, by the objective, the kit and the sheet."""
        told = self.case.under("train")
        return dict(self.subject.spec.train) | DEFAULT_TRAIN | (told.plain() if told else {})

    def train(self, **changes: Any) -> Train:
        return Train(**{**self.train_words(), **changes})

    def stage_case(self) -> StageCase:
        """Two steps of the same as plain data, for other processes; they begin away from the base model."""
        model = dict(self.model_words)
        assert self.subject.entry is not None
        return StageCase(
            use=self.subject.entry.qualified,
            examples=self.examples,
            options=self.subject.options(self.case).model_dump(exclude_defaults=True),
            train={"lr": self.train().lr, **self.train_words(), "steps": STEPS // 2},
            arch=model.pop("arch", "llama"),
            model=model,
            plugins=self.subject.files,
            displaced=True,
        )

    def run(
        self,
        *,
        model: nn.Module | None = None,
        objective: Objective[Any] | None = None,
        global_seed: int = 0,
        stop_after: int | None = None,
        checkpoints: Path | None = None,
        on_step: Callable[[int], None] = lambda step: None,
        pause: Callable[[], AbstractContextManager[None]] = nullcontext,
        **train: Any,
    ) -> Run:
        """Run the stage. `pause` is entered while the host samples from the model for the objective."""
        model = model if model is not None else self.model()
        rows: list[Scalars] = []

        def note(step: int, scalars: Scalars) -> None:
            rows.append(dict(scalars))
            on_step(step)

        with tempfile.TemporaryDirectory() as folder, global_randomness(global_seed):
            result = run_stage(
                model,
                tiny_tokenizer(),
                StageJob(
                    index=0,
                    objective=objective if objective is not None else self.objective(),
                    train=self.train(**train),
                    required_roles=self.roles,
                    examples=self.examples,
                    seed=0,
                    artifacts=Path(folder) / "artifacts",
                    checkpoints=checkpoints or Path(folder) / "checkpoints",
                    services=TinyServices(model, pause),
                    on_step=note,
                    should_stop=lambda: stop_after is not None and len(rows) >= stop_after,
                ),
            )
        original = {name: tensor.detach().clone() for name, tensor in result.original.items()}
        return Run(snapshot(model), rows, result.closing, result.stopped, original)


class TinyServices:
    """The host's services on the bench's own model."""

    def __init__(self, model: nn.Module, pause: Callable[[], AbstractContextManager[None]]) -> None:
        self.model = model
        self.pause = pause

    def sample(self, prompts: Sequence[str], **how: Any) -> list[list[str]]:
        with self.pause():
            return EvalModel(self.model, tiny_tokenizer(), device="cpu").generate(prompts, **how)

    def memo(self, name: str, key: Any, build: Callable[[], Any]) -> Any:
        return json.loads(json.dumps(build()))

    def statistics(self, texts: Sequence[str]) -> Mapping[str, float]:
        return text_statistics(texts, [tiny_tokenizer()(text)["input_ids"] for text in texts])

    def say(self, text: str) -> None:
        pass

    def warn(self, text: str) -> None:
        pass


@lru_cache(maxsize=8)
def _template(words: str) -> nn.Module:
    model: nn.Module = tiny_model(**json.loads(words))
    return model


def made_up(role: str) -> list[Example]:
    """Eight short texts of different lengths, others for each role; every second one begins with a prompt."""
    made = []
    for i, words in enumerate(WORDS):
        text = words if role == "forget" else f"{role}: {words[::-1]}"
        cut = text.index(" ") if i % 2 else 0
        made.append(Example(f"{role}/{i}", text[cut:], text[:cut], unit=f"{role}{i}", group=f"words{i % 2}"))
    return made


def snapshot(model: nn.Module) -> dict[str, Tensor]:
    """Every parameter and buffer, copied."""
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    return {name: tensor.detach().clone() for name, tensor in tensors.items()}


@contextmanager
def global_randomness(seed: int) -> Iterator[None]:
    """Other global random numbers inside, and the ones from before afterwards."""
    before = random.getstate(), np.random.get_state(), torch.get_rng_state()
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    try:
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])
        torch.set_rng_state(before[2])


def benches(subject: Subject) -> list[Bench]:
    """One per case, made once per run of the kit."""
    key = ("benches", subject.spec.name)
    if key not in subject.memo:
        subject.memo[key] = [Bench(subject, case) for case in subject.cases()]
    found: list[Bench] = subject.memo[key]
    return found


def plain_run(bench: Bench) -> Run:
    """The case run from start to end, once per run of the kit."""
    key = ("run", id(bench))
    if key not in bench.subject.memo:
        bench.subject.memo[key] = bench.run()
    found: Run = bench.subject.memo[key]
    return found
