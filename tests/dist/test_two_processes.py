"""One stage on two processes (gloo, CPU) against the same stage on one: weights, scalars, resume, errors.

The processes are started once; each test looks at its part of what they did.
"""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from unlearn_suite import Example
from unlearn_suite.testing.distributed import (
    StageCase,
    StageOutcome,
    assert_same,
    assert_trained,
    on_processes,
    run_cases,
)

PLUGIN = (Path(__file__).parent / "objectives.py",)
SENTENCES = [
    "the cat sat on the mat",
    "a dog ran home",
    "rain fell on the hill all day",
    "we ate bread",
    "the old clock stopped at noon",
    "birds sing early",
    "she wrote a long letter",
]
EXAMPLES = {
    "forget": [
        Example(f"f{i}", t[4:], prompt=t[:4], unit=f"f{i}", group="one" if i % 2 else "two")
        for i, t in enumerate(SENTENCES)
    ],
    "retain": [Example(f"r{i}", t[::-1], unit=f"r{i}") for i, t in enumerate(SENTENCES)],
}
MANY = {
    "forget": [Example(f"f{i}", f"you are {'bad' * (i % 3 + 1)} {i}!", unit=f"f{i}") for i in range(24)],
    "retain": [Example(f"r{i}", f"we like tea {i * 7} times", unit=f"r{i}") for i in range(24)],
}
ALL = (r".*",)
# the gradient of the keys' biases is 0 but for rounding, which AdamW would make a whole step of
ALL_BUT_KEY_BIAS = (r"(?!.*c_attn\.bias).*",)


def own(use: str, **fields) -> StageCase:
    options = {"train": fields.pop("train_these")} if "train_these" in fields else {}
    return StageCase(use, EXAMPLES, options, plugins=PLUGIN, **fields)


SHORT = {"steps": 2}
META = {"block": 2, "meta_start": 0.0}
ATTACK = {**META, "inner_loss": "rep", "inner_optimizer": "adamw", "inner_lr": (1e-4, 1e-3)}
# "one row": a process has no row of any batch
EQUAL = {
    "cosine-rmu": StageCase("cosine-rmu", EXAMPLES, META, {"steps": 3}),
    "cosine-rmu, one row": StageCase("cosine-rmu", EXAMPLES, ATTACK, {**SHORT, "batch": 1}, arch="gpt2"),
    "cosine-rmu, LoRA": StageCase(
        "cosine-rmu", EXAMPLES, META, {**SHORT, "lora": {"rank": 3}, "recompute": True}, arch="qwen3"
    ),
    "probe-directions": StageCase("probe-directions", MANY, {"blocks": (1, 2)}, {**SHORT, "micro_batch": 2}),
    "probe-directions, gemma": StageCase(
        "probe-directions", MANY, {"blocks": (1,), "loss": "counterfactual"}, SHORT, arch="gemma3"
    ),
    "ratio, all tensors": own("ratio", train={**SHORT, "batch": 3, "recompute": True}, train_these=ALL),
    "ratio, all tensors, tied, one row": own(
        "ratio", train={**SHORT, "batch": 1}, train_these=ALL_BUT_KEY_BIAS, arch="gpt2"
    ),
    "logits": own("logits", train=SHORT, arch="gemma2"),
    "rmu, noise by example": StageCase("rmu", EXAMPLES, {"block": 2, "rna_noise": 0.5}, {**SHORT, "batch": 3}),
    "elm, one row": StageCase("elm", EXAMPLES, {"concept": "hats", "top_k": 5}, {**SHORT, "batch": 1}),
    # losses that compare the rows of a batch
    "repnoise, odd rows": StageCase("repnoise", EXAMPLES, {}, {**SHORT, "batch": 3}),
    "orth-circuit-breakers, odd rows": StageCase(
        "orth-circuit-breakers", EXAMPLES, {}, {**SHORT, "batch": 3}, displaced=True
    ),
    "cosine-rmu, diverse, odd rows": StageCase(
        "cosine-rmu", EXAMPLES, {**META, "forget_form": "diverse", "direction": "per_doc"}, {**SHORT, "batch": 3}
    ),
    "flat as published, one row": StageCase("flat", EXAMPLES, {"legacy": True}, {**SHORT, "batch": 1}),
    "whp, one row": StageCase("whp", EXAMPLES, {}, {**SHORT, "batch": 1}),
    "own step, all weights attacked": replace(
        own("own-step", train={**SHORT, "micro_batch": 2}, arch="gpt_neox"), options={"moves": "all"}
    ),
    "own step, fresh adapters attacked": replace(
        own("own-step", train={**SHORT, "recompute": True}), options={"moves": "lora"}
    ),
    # differences of float32 gradients: less exact on any number of processes
    "own step, second order": replace(
        own("own-step", train=SHORT), options={"order": "finite-difference"}, tolerance=2e-4
    ),
    "bf16": replace(own("ratio", train=SHORT, dtype="bfloat16"), tolerance=2e-2),
}
CLOSED = StageCase("probe-directions", MANY, {"blocks": (1, 2), "loss": "closed-form"}, {"steps": 0})
REFUSED = {"exact": {"order": "exact"}}
RESUMED = own("own-step", train={"steps": 3, "save_every": 1})


@pytest.fixture(scope="module")
def both(tmp_path_factory) -> dict[str, list[StageOutcome]]:
    """{name: what each of two processes got}."""
    folder = tmp_path_factory.mktemp("checkpoints")
    one, two, again = folder / "one", folder / "two", folder / "again"
    run_cases([replace(RESUMED, checkpoints=one, stop_after=2)])
    shutil.copytree(one, folder / "kept")
    cases = {
        **EQUAL,
        "closed": CLOSED,
        "whole": RESUMED,
        "two-stopped": replace(RESUMED, checkpoints=two, stop_after=2),
        "again-stopped": replace(RESUMED, checkpoints=again, stop_after=2),
        "two-to-two": replace(RESUMED, checkpoints=again),
        "one-to-two": replace(RESUMED, checkpoints=one),
        **{name: own(name, train=SHORT) for name in ("watched", "whole-batch", "not-finite", "second")},
        **{f"attack {k}": replace(own("own-step"), options=o) for k, o in REFUSED.items()},
    }
    found = on_processes(run_cases, 2, list(cases.values()))
    (back,) = run_cases([replace(RESUMED, checkpoints=two)])
    outcomes = {name: [process[i] for process in found] for i, name in enumerate(cases)}
    return {**outcomes, "two-to-one": [back], "folders": [folder]}  # type: ignore[list-item]


@pytest.mark.parametrize("name", [*EQUAL, "whole"])
def test_two_processes_equal_one(name, both):
    case = EQUAL.get(name, RESUMED)
    (alone,) = run_cases([case])
    assert_trained(case, alone)
    for outcome in both[name]:
        assert_same(alone, outcome, name, case.tolerance)
    first, second = both[name]
    assert_same(first, second, f"{name}, process against process", 0.0)


def test_an_edit_of_whole_matrices_is_the_same_on_two_processes(both):
    (alone,) = run_cases([CLOSED])
    (untouched,) = run_cases([replace(CLOSED, options={"blocks": (1, 2)})])  # no step, so what it began with
    assert not alone.error and any(not torch.equal(untouched.weights[n], w) for n, w in alone.weights.items())
    for outcome in both["closed"]:
        assert_same(alone, outcome, "closed form")


def test_the_same_number_of_processes_resumes_to_the_same_bits(both):
    for whole, resumed in zip(both["whole"], both["two-to-two"], strict=True):
        assert len(resumed.rows) == len(whole.rows) - 2
        assert_same(replace(whole, rows=whole.rows[2:]), resumed, "resumed", 0.0)


@pytest.mark.parametrize("name", ["two-to-one", "one-to-two"])
def test_another_number_of_processes_goes_on_from_a_checkpoint(name, both):
    (alone,) = run_cases([RESUMED])
    for resumed in both[name]:
        assert len(resumed.rows) == 2, "it must not have begun anew"
        assert_same(replace(alone, rows=alone.rows[2:]), resumed, name)


def test_a_checkpoint_of_two_processes_is_like_one_of_one(both):
    (folder,) = both["folders"]
    one, two = (
        torch.load(sorted((folder / name).glob("*step000002*"))[0], weights_only=True) for name in ("kept", "two")
    )

    def compare(a, b, path):
        assert type(a) is type(b), path
        if isinstance(a, dict):
            assert list(a) == list(b), path
            for key in a:
                compare(a[key], b[key], f"{path}.{key}")
        elif isinstance(a, list):
            assert len(a) == len(b), path
        elif isinstance(a, torch.Tensor):
            assert (a.shape, a.dtype) == (b.shape, b.dtype), path
            torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5, msg=path)

    compare(one, two, "checkpoint")


def test_only_the_blocks_that_run_are_gathered_and_half_is_held(both):
    for outcome in both["watched"]:
        assert not outcome.error
        row = outcome.rows[0]
        gathered = {k.removeprefix("gathered_"): n for k, n in row.items() if k.startswith("gathered_")}
        # block 0 once for both views; 1 and 2 for the policy, the reference, and the policy's backward pass
        assert gathered == {"embed": 1, "0": 1, "1": 3, "2": 3}
        assert 0.45 < row["held"] < 0.55


def test_a_loss_on_a_whole_batch_is_refused(both):
    assert all("ctx.draw" in outcome.error for outcome in both["whole-batch"])


def test_a_loss_that_is_not_finite_on_one_process_stops_all_with_the_one_error(both):
    first, second = both["not-finite"]
    assert first.error == second.error and "not finite at step 1" in first.error
    assert len(first.rows) == len(second.rows) == 1


def test_second_order_gradients_are_one_clear_error(both):
    assert all("second-order" in outcome.error for outcome in both["second"])


@pytest.mark.parametrize("kind", REFUSED)
def test_attacks_that_need_one_device_say_so(kind, both):
    assert all("not supported on several devices" in outcome.error for outcome in both[f"attack {kind}"])
