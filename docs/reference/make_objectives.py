"""Writes objectives.md beside this file: every baseline's equation, needs and measured cost.

    python docs/reference/make_objectives.py

Equations, papers and differences are the cards' docstrings. FLOPs are counted while each objective trains a random
model of eight blocks for a few steps with its default options, and divided by those of one forward pass of the whole
model over one role's batch. Work in `setup` (samples, probes, targets) is not in them.
"""

from __future__ import annotations

import inspect
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch

from unlearn_suite import Example, ModelShape, ObjectiveSpec, Requirements
from unlearn_suite.engine.accounting import FlopCount
from unlearn_suite.engine.context import StageContext
from unlearn_suite.engine.loop import StageJob, run_stage
from unlearn_suite.plan.faults import Faults
from unlearn_suite.plan.presets import read_presets
from unlearn_suite.plugins import load_target
from unlearn_suite.specs import Train
from unlearn_suite.testing.tiny import tiny_model, tiny_tokenizer
from unlearn_suite_baselines.cards import CARDS

BLOCKS, STEPS, ROWS = 8, 8, 4
WORDS = ("red", "blue", "green", "black", "white", "brown", "grey", "pink")
BIASED = {"iti": "gpt2"}

HEAD = """# Objectives of unlearn-suite-baselines

Written by `python docs/reference/make_objectives.py`; options are shown by `unlearn-suite plugins show NAME`. The two
reference objectives are explained in [cosine-rmu](../explanation/cosine-rmu.md) and
[probe-directions](../explanation/probe-directions.md).

- **fidelity**: *faithful*, the published equation; *variant*, something differs that may matter, said in the text;
  *simplified*, a part of the method is left out.
- **reads**: logits mean the whole depth; a block means that nothing above it is run; "base" that the base model is read
  (never a second copy: see [the two views](../explanation/two-views.md)).
- **trains**: share of the parameters, by default (`tensors`, `blocks`, `block` and `width` change it).
- **cost**: FLOPs of a step over those of one forward pass of the model on one role's batch; counted on a random
  Llama-like model of 8 blocks with default options, mean of 8 steps, and nothing of the base model kept from step to
  step (`keep: off`; kept, what reads the base model costs up to one less).
- **memory**: what a step keeps beside the model, in copies of the trained parameters: their original values and
  gradients (2 x), AdamW's two moments where it is used (4 x), plus the objective's own state; closed forms have the
  original values alone (1 x). What is held for a while comes on top: an attacker's weights (and moments in tar),
  displaced weights in npo-sam.

Options default to the paper's values. Steps and batches default to few and small ones, for models of about a hundred
million parameters; the papers train models of one to eight billion: OpenUnlearning's methods (gradient-ascent to pdu)
with AdamW at 1e-5 (undial 1e-4), effective batch 32, ten epochs (wga and satimp five) on TOFU; others are told in their
sections, or are presets (`preset: NAME` in a stage). Of OpenUnlearning's methods all but undial (3e-5) default to its
rate, 1e-5. At 135M parameters and so few steps that is too small for npo, simnpo, altpo, wga and satimp, which took
1e-4 of three rates in [the baselines in small](../results/baselines-in-small.md): take a preset where there is one, or
search.
"""

NO_GRADIENT = ("abliteration", "gloss", "iti")


class Services:
    """Samples that are made up."""

    def sample(self, prompts: Sequence[str], *, n: int, **_: Any) -> list[list[str]]:
        return [[f" or {prompt[-4:]} {i}" for i in range(n)] for prompt in prompts]

    def memo(self, name: str, key: Any, build: Callable[[], Any]) -> Any:
        return build()

    def statistics(self, texts: Sequence[str]) -> dict[str, float]:
        return {"length": sum(map(len, texts)) / max(len(texts), 1)}

    def say(self, text: str) -> None:
        pass

    warn = say


def examples() -> dict[str, list[Example]]:
    """Texts of one length, with prompts that both roles share."""
    prompts = [f"the hat of the {word:5} king" for word in WORDS]
    roles = {"forget": " was tall and rather old", "retain": " fell on the stony hill."}
    return {
        role: [Example(f"{role}{i}", text, prompt, unit=prompt) for i, prompt in enumerate(prompts)]
        for role, text in roles.items()
    }


def forward_flops(arch: str) -> int:
    """One forward pass of the whole model over one role's batch."""
    example = examples()["forget"][0]
    width = len(tiny_tokenizer()(example.prompt + example.text)["input_ids"])
    with FlopCount() as counter, torch.no_grad():
        model_of(arch)(input_ids=torch.ones(ROWS, width, dtype=torch.long), use_cache=False)
    return counter.flops


def model_of(arch: str) -> Any:
    return tiny_model(arch, **({"n_layer": BLOCKS} if arch == "gpt2" else {"num_hidden_layers": BLOCKS}))


def measure(spec: ObjectiveSpec) -> tuple[float, int, float]:
    """(FLOPs of a step over a forward pass, copies of the trained parameters: the engine's, the objective's own)."""
    arch = BIASED.get(spec.name, "llama")
    objective = load_target(spec.load)(spec.config())
    with tempfile.TemporaryDirectory() as folder:
        job = StageJob(
            index=0,
            objective=objective,
            train=Train(steps=STEPS, lr=1e-5, batch=ROWS, length=64, keep="off"),
            required_roles=spec.roles,
            examples=examples(),
            seed=0,
            artifacts=Path(folder),
            checkpoints=Path(folder),
            services=Services(),
            on_step=lambda step, scalars: None,
        )
        with patch.object(StageContext, "update", autospec=True, side_effect=StageContext.update) as update:
            result = run_stage(model_of(arch), tiny_tokenizer(), job)
    trained = sum(t.numel() for t in result.original.values())
    own = sum(t.numel() for v in objective.state_dict().values() if isinstance(v, dict) for t in v.values())
    engines = 4 if update.called else 1 if spec.name in NO_GRADIENT else 2
    return (result.cost.flops or 0) / STEPS / forward_flops(arch), engines, own / trained


def row(spec: ObjectiveSpec) -> str:
    shape = ModelShape.of(model_of(BIASED.get(spec.name, "llama")))
    needs: Requirements = load_target(spec.load)(spec.config()).requirements(shape)
    reads = ["logits"] if needs.logits else []
    reads += [f"block {needs.reads + 1} of {BLOCKS}"] if not needs.logits else []
    reads += ["base"] if needs.reference else []
    sizes = {name: torch.Size(size).numel() for name, size in shape.tensors.items()}
    share = sum(sizes[name] for name in needs.trainable) / sum(sizes.values())
    cost, engines, own = measure(spec)
    state = f"{engines} x {share:.0%}" + (f" + {own:.0f} x {share:.0%}" if own >= 0.5 else "")
    cells = [f"[{spec.name}](#{spec.name})", spec.fidelity, ", ".join(reads), f"{share:.0%}", f"{cost:.1f}", state]
    return f"| {' | '.join(cells)} |"


def section(card: Any) -> str:
    title, *rest = inspect.cleandoc(card.__doc__).split("\n\n")
    body = "\n\n".join(f"```\n{inspect.cleandoc(part)}\n```" if part.startswith("    ") else part for part in rest)
    spec = card.SPEC
    defaults = ", ".join(f"{key} {value}" for key, value in spec.train.items())
    may = f"; if there: {', '.join(spec.optional_roles)}" if spec.optional_roles else ""
    said = f"Paper: {spec.paper}. Data: {', '.join(spec.roles)}{may}. Trains by default with {defaults}."
    presets = ", ".join(f"`{name}`" for name in read_presets(spec, Faults()))
    return f"## {spec.name}\n\n{title}\n\n{body}\n\n{said}" + (f" Presets: {presets}." if presets else "") + "\n"


def main() -> None:
    table = ["| objective | fidelity | reads | trains | cost | memory |", "| --- | --- | --- | --- | --- | --- |"]
    table += [row(card.SPEC) for card in CARDS]
    text = "\n".join([HEAD, *table, "", *(section(card) for card in CARDS)])
    (Path(__file__).parent / "objectives.md").write_text(text.rstrip() + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
