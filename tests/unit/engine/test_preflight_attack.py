"""The pre-flight of attacks against the truth: what an attack really allocates and computes at full width."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from unlearn_suite import Attack, AttackConfig, AttackContext, AttackPoint, Example
from unlearn_suite.engine.accounting import FlopCount
from unlearn_suite.engine.preflight import AttackPlan, Family, Recorder, attack, estimate_attack, play
from unlearn_suite.engine.preflight.scale import Scale
from unlearn_suite.engine.preflight.work import TooLong
from unlearn_suite.models.outline import on_meta
from unlearn_suite.testing.tiny import tiny_model, tiny_tokenizer
from unlearn_suite_attacks.quantise import QuantiseConfig
from unlearn_suite_attacks.quantising import Quantise
from unlearn_suite_attacks.relearn import RelearnConfig
from unlearn_suite_attacks.relearning import Relearn

WIDE = {"hidden_size": 96, "intermediate_size": 160, "num_attention_heads": 6, "num_key_value_heads": 3}
WIDE |= {"head_dim": 16, "vocab_size": 700}
WORDS = ["rain", "snow", "wind", "fog", "sun", "ice", "hail", "storm", "cloud", "frost"]
EXAMPLES = {"attack": [Example(str(i), " ".join(WORDS[: 4 + i])) for i in range(6)]}

RELEARN = {"lr": (1e-3, 1e-2), "steps": 9, "scored_at": (2, 9), "batch": 2, "length": 32}
CASES = {
    "all weights": (lambda: Relearn(RelearnConfig(**RELEARN)), torch.float32),
    "bf16": (lambda: Relearn(RelearnConfig(**RELEARN)), torch.bfloat16),
    "normalised": (lambda: Relearn(RelearnConfig(**RELEARN, optimizer="sgd_norm")), torch.float32),
    "lora": (lambda: Relearn(RelearnConfig(**RELEARN, tensors="lora", rank=4)), torch.float32),
    "quantise": (lambda: Quantise(QuantiseConfig(bits=(8, 4))), torch.float32),
}


def family(dtype: torch.dtype = torch.float32) -> Family:
    return Family(on_meta(tiny_model("llama", **WIDE).config), dtype)


def truth(make, dtype: torch.dtype) -> tuple[float, float, int]:
    """(most bytes in use beside the weights, the same where the model is scored, FLOPs)."""
    model = tiny_model("llama", **WIDE).to(dtype)
    ctx = AttackContext(model, tiny_tokenizer(), EXAMPLES, 0, {}, lambda text: None)
    recorder, count = Recorder(), FlopCount()
    with recorder, count:
        steps = make().run(ctx)
        while True:
            with recorder.phase("attack"):
                if next(steps, None) is None:
                    break
            with recorder.phase("point"):
                pass
    ctx.restore()
    found = play([recorder.tape, recorder.tape], Scale([]))  # equal tapes: every number stands for itself
    return found.peak["attack"], found.peak["point"], count.flops


@pytest.mark.parametrize("case", CASES)
def test_memory_and_flops_are_those_of_the_attack_itself(case):
    make, dtype = CASES[case]
    said = estimate_attack(family(dtype), tiny_tokenizer(), AttackPlan(make, EXAMPLES))
    peak, held, flops = truth(make, dtype)
    weights = family(dtype).weight_bytes()
    assert said.doubtful == 0
    assert said.flops == pytest.approx(flops, rel=0.05)  # steps count by their positions
    assert said.peak_bytes - weights == pytest.approx(peak, rel=0.03)
    assert said.held_bytes - weights == pytest.approx(held, rel=0.03)
    if case == "all weights":  # a copy of every weight, its gradient, and AdamW's two moments
        assert said.peak_bytes >= 5 * weights
    if case == "quantise":
        assert said.flops == 0 and said.held_bytes < 2 * weights


class Endless(Attack[AttackConfig]):
    """Takes its steps without `ctx.adversary`."""

    def run(self, ctx: AttackContext) -> Iterator[AttackPoint]:
        data = ctx.encode("attack", 16)
        for step in range(20):
            ctx.policy.token_logprobs(data.batch(step, 1))
        yield AttackPoint("end")


def test_an_attack_that_would_take_too_long_to_trace_says_so(monkeypatch):
    plan = AttackPlan(lambda: Endless(AttackConfig()), EXAMPLES)
    assert estimate_attack(family(), tiny_tokenizer(), plan).flops > 0
    monkeypatch.setattr(attack, "_MOST_PASSES", 10)
    with pytest.raises(TooLong, match="too often"):
        estimate_attack(family(), tiny_tokenizer(), plan)
