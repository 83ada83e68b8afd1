"""AdamW against its equations in float64; 8-bit moments: resumed to the bit, one clear line without the package."""

from __future__ import annotations

import sys

import pytest
import torch
from torch import nn

from unlearn_suite import PrerequisiteError
from unlearn_suite.engine.optim import Optimizer, global_norm, learning_rate
from unlearn_suite.specs import Train

SIZES = {"a": (70, 64), "b": (9,)}


def parameters(dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    return {name: nn.Parameter(torch.randn(size, generator=generator).to(dtype)) for name, size in SIZES.items()}


def step(optimizer: Optimizer, index: int) -> None:
    generator = torch.Generator().manual_seed(100 + index)
    for p in optimizer.trainable.values():
        p.grad = torch.randn(p.shape, generator=generator).to(p.dtype)
    optimizer.step(index)


@pytest.mark.parametrize("clip", [None, 1.0])
def test_updates_equal_the_equations_in_float64(clip):
    train = Train(lr=1e-2, warmup=3, clip=clip, weight_decay=0.1)
    ours = parameters()
    exact = {name: p.detach().double() for name, p in ours.items()}
    first, second = ({name: torch.zeros_like(x) for name, x in exact.items()} for _ in range(2))
    optimizer = Optimizer(ours, train)
    (b1, b2), eps = train.betas, 1e-8
    for index in range(6):
        generator = torch.Generator().manual_seed(100 + index)
        grads = {name: torch.randn(size, generator=generator).double() for name, size in SIZES.items()}
        norm = sum(float(g.square().sum()) for g in grads.values()) ** 0.5
        factor = min(1.0, clip / (norm + 1e-6)) if clip else 1.0
        lr = learning_rate(train, index)
        for name, x in exact.items():
            g = grads[name] * factor
            first[name] = b1 * first[name] + (1 - b1) * g
            second[name] = b2 * second[name] + (1 - b2) * g * g
            m, v = first[name] / (1 - b1 ** (index + 1)), second[name] / (1 - b2 ** (index + 1))
            exact[name] = x * (1 - lr * train.weight_decay) - lr * m / (v.sqrt() + eps)
        step(optimizer, index)
    for name, p in ours.items():
        torch.testing.assert_close(p.detach().double(), exact[name], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", ["adamw", "adamw8bit"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_saved_optimizer_goes_on_with_the_same_bits(kind, dtype, tmp_path):
    if kind == "adamw8bit":
        pytest.importorskip("bitsandbytes")
    train = Train(lr=1e-2, optimizer=kind)
    whole = Optimizer(parameters(dtype), train)
    for index in range(3):
        step(whole, index)
    weights = {name: p.detach().clone() for name, p in whole.trainable.items()}
    torch.save({"weights": weights, "optimizer": whole.state_dict()}, tmp_path / "state.pt")
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    resumed = Optimizer({name: nn.Parameter(w) for name, w in state["weights"].items()}, train)
    resumed.load_state_dict(state["optimizer"])
    for index in range(3, 6):
        step(whole, index)
        step(resumed, index)
    for name, p in whole.trainable.items():
        assert torch.equal(p, resumed.trainable[name]), name


def test_8_bit_moments_are_8_bits():
    pytest.importorskip("bitsandbytes")
    optimizer = Optimizer(parameters(), Train(lr=1e-2, optimizer="adamw8bit"))
    before = {name: p.detach().clone() for name, p in optimizer.trainable.items()}
    step(optimizer, 0)
    moments = [t for t in _tensors(optimizer.state_dict()) if t.numel() == 70 * 64]
    assert [t.dtype for t in moments] == [torch.uint8, torch.uint8]
    plain = Optimizer(parameters(), Train(lr=1e-2))
    step(plain, 0)
    for name, p in optimizer.trainable.items():  # the first step of Adam is lr x sign: both must agree
        torch.testing.assert_close(p, plain.trainable[name], rtol=0, atol=2e-4)
        assert not torch.equal(p, before[name])


def _tensors(value):
    if isinstance(value, torch.Tensor):
        return [value]
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else []
    return [tensor for item in inner for tensor in _tensors(item)]


def test_without_the_package_there_is_one_clear_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(PrerequisiteError, match=r"unlearn-suite\[lowbit\]"):
        Optimizer(parameters(), Train(optimizer="adamw8bit"))


def test_the_norm_of_bf16_is_taken_in_float32():
    x = torch.full((3000,), 1.0, dtype=torch.bfloat16)  # in bf16 the sum of squares would stop at 256
    assert float(global_norm([x, None])) == pytest.approx(3000**0.5, rel=1e-6)
    assert float(global_norm([])) == 0.0
