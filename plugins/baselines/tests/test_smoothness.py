"""The smoothness variants of NPO on losses whose gradients are known, and against public trainers."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from unlearn_suite_baselines.cards.npo_sam import NpoSamConfig
from unlearn_suite_baselines.methods.npo_sam import NpoSam

GOLDEN = json.loads((Path(__file__).parent / "golden.json").read_text())


def numbers(*shape: int, seed: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


A = numbers(5, 5, seed=13)
HESSIAN = A @ A.T


class Quadratic(NpoSam):
    """L = w' H w / 2 in place of the NPO loss: its gradient and Hessian are known."""

    def __init__(self, **options: Any) -> None:
        super().__init__(NpoSamConfig(**options))
        self.w = torch.nn.Parameter(numbers(5, seed=14))
        self.ctx = SimpleNamespace(  # type: ignore[assignment]
            trainable={"w": self.w},
            global_norm=lambda tensors: torch.stack([t.norm() for t in tensors]).norm(),
            generator=torch.Generator().manual_seed(0),
            placed=lambda value, like: value,
        )

    def _gradient(self, forget: Any) -> Any:
        return {}, {"w": HESSIAN @ self.w.detach()}

    def found(self) -> Tensor:
        start = self.w.detach().clone()
        result: Tensor = getattr(self, f"_{self.config.smoothness}")({}, self._gradient({})[1])["w"]
        assert torch.equal(self.w, start), "the weights are put back bit for bit"
        return result


def test_smoothness_gradients_on_a_quadratic():
    w = numbers(5, seed=14)
    g = HESSIAN @ w
    unit = g / g.norm()
    torch.testing.assert_close(Quadratic(smoothness="sam", rho=0.1).found(), HESSIAN @ (w + 0.1 * unit))
    expected = g + 3.0 * HESSIAN @ unit
    torch.testing.assert_close(Quadratic(smoothness="gp", rho=3.0).found(), expected, rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(Quadratic(smoothness="gp", rho=3.0, legacy=True).found(), g)
    generator = torch.Generator().manual_seed(0)
    z = torch.stack([torch.randn(5, generator=generator).double() for _ in range(3)]).mean(0)
    torch.testing.assert_close(Quadratic(smoothness="rs", rho=0.1).found(), HESSIAN @ (w + 0.1 * z))


class Quartic(Quadratic):
    """L = sum w^4 / 4: its Hessian, 3 w^2 on the diagonal, changes along the way."""

    def _gradient(self, forget: Any) -> Any:
        return {}, {"w": self.w.detach() ** 3}


def test_curvature_penalty_on_a_quartic():
    w = numbers(5, seed=14)
    g = w**3
    near = w + 1e-3 * g / g.norm()
    d = near**3 - g
    torch.testing.assert_close(
        Quartic(smoothness="cr", rho=4.0, difference=1e-3).found(),
        g + 2 * 4.0 * (3 * near**2 - 3 * w**2) * d,
        rtol=1e-6,
        atol=1e-8,
    )
    torch.testing.assert_close(Quartic(smoothness="cr", rho=4.0, legacy=True).found(), g)


class Combined(Quadratic):
    """With a retain loss sum w^4 / 4; what the optimizer is given is kept."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.w = torch.nn.Parameter(numbers(5, seed=14, dtype=torch.float32))
        self.ctx.trainable = {"w": self.w}  # type: ignore[misc]
        self.ctx.backward = self._retained  # type: ignore[method-assign]
        self.ctx.update = lambda: {"grad_norm": 0.0}  # type: ignore[method-assign]
        self.ctx.step_index, self.ctx.train = 0, SimpleNamespace(steps=1)  # type: ignore[assignment]

    def _gradient(self, forget: Any) -> Any:
        return {"loss": 0.0, "forget": 0.0}, {"w": HESSIAN.float() @ self.w.detach()}

    def _retained(self, loss: Any, batch: Any) -> dict[str, float]:
        self.w.grad = self.config.alpha * self.w.detach() ** 3
        return {"loss": 0.0, "retain": 0.0}


@pytest.mark.parametrize(("smoothness", "trainer"), [("sam", "SAMTrainer"), ("rs", "RSTrainer")])
def test_steps_equal_those_of_unlearn_smooth(smoothness, trainer):
    """A step's gradient of its trainers; rs draws from the same seed."""
    made = Combined(smoothness=smoothness, rho=0.1, alpha=2.25)
    made.step({"forget": None, "retain": None})
    golden = torch.tensor(GOLDEN[f"Unlearn-Smooth/{trainer}"]["value"])
    assert made.w.grad is not None
    torch.testing.assert_close(made.w.grad, golden, rtol=1e-5, atol=1e-5)
