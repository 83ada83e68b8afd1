"""`compile: true` traces the borrowed blocks (here without making kernels, which takes a C compiler and a minute)."""

from __future__ import annotations

import functools

import pytest
import torch

from unlearn_suite.testing.tiny import tiny_model

from .test_kept import run


@pytest.mark.parametrize("arch", ["llama", "gpt2"])
def test_compiled_blocks_give_the_same_training(arch, examples, tmp_path, services, monkeypatch):
    plain, weights, _ = run(examples, tmp_path / "plain", services, "auto", arch=arch, steps=4)
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=backend))
    ours, compiled, _ = run(examples, tmp_path / "compiled", services, "auto", arch=arch, steps=4, compile=True)
    assert graphs
    assert ours == pytest.approx(plain, rel=1e-5)
    before = dict(tiny_model(arch).named_parameters())
    for name, tensor in weights.items():
        torch.testing.assert_close(compiled[name], tensor, rtol=1e-4, atol=2e-5)
    assert any(not torch.equal(tensor, before[name]) for name, tensor in compiled.items())
