"""The simulated attacker: what it computes, and that it leaves no trace."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.func import functional_call

from unlearn_suite import PlanError
from unlearn_suite.engine.adversary import Adversary
from unlearn_suite.engine.batch import Batch
from unlearn_suite.engine.shape import ModelShape
from unlearn_suite.engine.views import ModelViews
from unlearn_suite.testing.tiny import tiny_model

SETS = ["same", "lora", "all"]


class Toy:
    """Two blocks in float64, an inner loss on logits and an outer loss on activations."""

    def __init__(self, make_batch: Callable[..., Batch], dtype: torch.dtype = torch.float64, arch: str = "llama"):
        layers = {"n_layer": 2} if arch == "gpt2" else {"num_hidden_layers": 2}
        self.model = tiny_model(arch, **layers).to(dtype)
        shape = ModelShape.of(self.model)
        self.views = ModelViews(self.model, shape, shape.select("mlp_out", [1]))
        self.attacked = [make_batch([6, 9], seed=10 + k) for k in range(4)]
        self.asked = make_batch([7, 5], seed=3)
        self.u = torch.randn(shape.hidden_size, generator=torch.Generator().manual_seed(9), dtype=dtype)
        self.said: list[str] = []

    @property
    def adversary(self) -> Adversary:
        """A new one with the same generator: it draws the same adapters each time."""
        return Adversary(self.views, torch.Generator().manual_seed(5), self.said.append)

    def inner(self, k: int) -> Tensor:
        batch = self.attacked[k]
        logits = self.views.policy.logits(batch)[:, :-1]
        found = torch.log_softmax(logits, -1).gather(-1, batch.input_ids[:, 1:, None])[..., 0]
        return -found[batch.mask("content")[:, 1:]].mean()

    def outer(self) -> Tensor:
        h = self.views.policy.hidden(self.asked, [1])[1]
        return torch.cosine_similarity(h, self.u.expand_as(h), dim=-1)[self.asked.mask("content")].mean()

    def value(self, readouts: dict[int, float], **options) -> float:
        """The map itself, by steps in place."""
        found = self.adversary.attack(self.inner, self.outer, readouts=readouts, **options)
        return sum(w * found.outer_losses[k] for k, w in readouts.items())


@pytest.fixture
def toy(make_batch) -> Toy:
    return Toy(make_batch)


def flat(gradient: dict[str, Tensor]) -> Tensor:
    return torch.cat([g.double().flatten() for g in gradient.values()])


def state(toy: Toy) -> dict[str, tuple]:
    """Everything about the parameters that an attack could leave changed."""
    return {n: (p.detach().clone(), p.grad, p.requires_grad) for n, p in toy.model.named_parameters()}


def assert_same(toy: Toy, before: dict[str, tuple]) -> None:
    after = state(toy)
    assert list(after) == list(before)
    for name, (value, grad, wanted) in before.items():
        assert torch.equal(after[name][0], value) and after[name][1] is grad and after[name][2] == wanted, name
    assert not any(m._forward_hooks for m in toy.model.modules())


@pytest.mark.parametrize("tensors", SETS)
@pytest.mark.parametrize(
    ("optimizer", "order"), [("sgd", "first"), ("adamw", "first"), ("sgd_norm", "finite-difference"), ("sgd", "exact")]
)
def test_everything_is_put_back_bit_for_bit(make_batch, tensors, optimizer, order):
    toy = Toy(make_batch, torch.float32)
    for p in toy.views.trainable.values():
        p.grad = torch.full_like(p, 7.0)
    before = state(toy)
    hidden = toy.views.policy.hidden(toy.asked, [0, 1])
    logits = toy.views.policy.logits(toy.asked).detach().clone()
    found = toy.adversary.attack(
        toy.inner, toy.outer, lr=0.01, readouts={2: 0.5, 3: 0.5}, optimizer=optimizer, tensors=tensors, order=order
    )
    assert found.displacement > 0 and len(found.inner_losses) == 3
    assert set(found.gradient) == set(toy.views.trainable)
    assert_same(toy, before)
    again = toy.views.policy.hidden(toy.asked, [0, 1])
    assert all(torch.equal(hidden[b], again[b]) for b in hidden)
    assert torch.equal(toy.views.policy.logits(toy.asked), logits)


@pytest.mark.parametrize("tensors", SETS)
@pytest.mark.parametrize("order", ["first", "finite-difference", "exact"])
def test_a_failing_attack_leaves_no_trace(toy, tensors, order):
    before = state(toy)

    def broken() -> Tensor:
        raise RuntimeError("no")

    with pytest.raises(RuntimeError):
        toy.adversary.attack(
            toy.inner, broken, lr=0.1, readouts={2: 1.0}, tensors=tensors, order=order, optimizer="sgd"
        )
    assert_same(toy, before)
    assert toy.views.replay.keeps_graph is False
    toy.views.policy.logits(toy.asked)


@pytest.mark.parametrize("arch", ["llama", "gpt2"])
@pytest.mark.parametrize("tensors", SETS)
def test_inside_the_policy_is_attacked_and_the_reference_is_not(make_batch, tensors, arch):
    toy = Toy(make_batch, torch.float32, arch)
    reference = {b: h.clone() for b, h in toy.views.reference.hidden(toy.asked, [0, 1]).items()}
    ref_logits = toy.views.reference.logits(toy.asked).clone()
    with (
        toy.adversary.walk(toy.inner, steps=2, lr=0.02, optimizer="adamw", tensors=tensors, rank=2) as walk,
        torch.no_grad(),
    ):
        for k in torch_enabled(walk):
            assert k == len(walk.losses)
            for b, h in toy.views.reference.hidden(toy.asked, [0, 1]).items():
                assert torch.equal(h, reference[b])
            assert torch.equal(toy.views.reference.logits(toy.asked), ref_logits)
        whole = toy.model(
            input_ids=toy.asked.input_ids, attention_mask=toy.asked.attention_mask, output_hidden_states=True
        )
        mask = toy.asked.attention_mask.bool()
        assert torch.equal(toy.views.policy.hidden(toy.asked, [0])[0][mask], whole.hidden_states[1][mask])
        assert torch.equal(toy.views.policy.logits(toy.asked)[mask], whole.logits[mask])
        assert not torch.equal(whole.logits[mask], ref_logits[mask])
        assert torch.equal(whole.hidden_states[1][mask], reference[0][mask]) == (tensors == "same")


def torch_enabled(walk):
    """The steps of a walk need autograd, its reader here does not."""
    steps = iter(walk)
    while True:
        with torch.enable_grad():
            k = next(steps, None)
        if k is None:
            return
        yield k


def unrolled(toy: Toy, readouts: dict[int, float], lr: float, norm: bool) -> dict[str, Tensor]:
    """transformers' own forward pass and a loop by hand."""
    phi = dict(toy.views.trainable)

    def forward(psi, batch, **kwargs):
        given = {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask, **kwargs}
        return functional_call(toy.model, psi, (), given)

    psi, total = dict(phi), 0.0
    scale = torch.cat([p.flatten() for p in phi.values()]).norm()
    toy.model.set_attn_implementation("eager")
    for k in range(1, max(readouts) + 1):
        batch = toy.attacked[k - 1]
        labels = batch.input_ids.masked_fill(batch.attention_mask == 0, -100)
        loss = forward(psi, batch, labels=labels).loss
        grads = torch.autograd.grad(loss, list(psi.values()), create_graph=True)
        length = torch.cat([g.flatten() for g in grads]).norm()
        size = lr * scale / length if norm else lr
        psi = {n: p - size * g for (n, p), g in zip(psi.items(), grads, strict=True)}
        if k in readouts:
            kept: dict[str, Tensor] = {}
            handle = toy.model.model.layers[1].register_forward_hook(lambda *a, kept=kept: kept.update(h=a[-1]))
            forward(psi, toy.asked)
            handle.remove()
            h = kept["h"][0] if isinstance(kept["h"], tuple) else kept["h"]
            cos = torch.cosine_similarity(h, toy.u.expand_as(h), dim=-1)
            total = total + readouts[k] * cos[toy.asked.mask("content")].mean()
    found = torch.autograd.grad(total, list(phi.values()))
    toy.model.set_attn_implementation("sdpa")
    return dict(zip(phi, found, strict=True))


@pytest.mark.parametrize(("optimizer", "lr"), [("sgd", 0.3), ("sgd_norm", 0.1)])
def test_exact_equals_a_loop_by_hand_and_the_orders_agree_as_they_should(toy, optimizer, lr):
    readouts = {1: 0.3, 3: 0.7}
    expected = unrolled(toy, readouts, lr, optimizer == "sgd_norm")
    found = {
        order: flat(
            toy.adversary.attack(
                toy.inner, toy.outer, lr=lr, readouts=readouts, optimizer=optimizer, order=order
            ).gradient
        )
        for order in ("first", "finite-difference", "exact")
    }
    torch.testing.assert_close(found["exact"], flat(expected), rtol=1e-4, atol=1e-6)
    assert torch.cosine_similarity(found["finite-difference"], found["exact"], dim=0) > 0.999
    error = {order: float((g - found["exact"]).norm() / found["exact"].norm()) for order, g in found.items()}
    assert error["finite-difference"] < 0.1 * error["first"] and error["first"] > 0.01


@pytest.mark.parametrize("order", ["exact", "finite-difference"])
@pytest.mark.parametrize("tensors", SETS)
@pytest.mark.parametrize(("optimizer", "lr"), [("sgd", 0.2), ("sgd_norm", 0.05)])
def test_second_orders_equal_numeric_differentiation_of_the_whole_map(toy, order, tensors, optimizer, lr):
    options = {"lr": lr, "optimizer": optimizer, "tensors": tensors, "rank": 2}
    readouts = {0: 0.2, 1: 0.3, 2: 0.5}
    gradient = flat(toy.adversary.attack(toy.inner, toy.outer, readouts=readouts, order=order, **options).gradient)
    (weight,) = toy.views.trainable.values()
    start = weight.detach().clone()
    generator = torch.Generator().manual_seed(1)
    for direction in (gradient.view_as(start), torch.randn(start.shape, generator=generator, dtype=start.dtype)):
        along = direction / direction.norm()
        values = []
        for sign in (1.0, -1.0):
            weight.data.copy_(start + sign * 1e-3 * along)
            values.append(toy.value(readouts, **options))
        weight.data.copy_(start)
        numeric = (values[0] - values[1]) / 2e-3
        assert float(gradient @ along.flatten()) == pytest.approx(
            numeric, rel=1e-3 if order == "exact" else 2e-2, abs=float(gradient.norm()) * 1e-2
        )


@pytest.mark.parametrize("order", ["first", "finite-difference", "exact"])
@pytest.mark.parametrize("tensors", SETS)
def test_without_displacement_the_gradient_is_the_outer_gradient(toy, order, tensors):
    plain = torch.autograd.grad(toy.outer(), list(toy.views.trainable.values()))
    expected = flat(dict(zip(toy.views.trainable, plain, strict=True)))
    for readouts, lr in (({0: 1.0}, 0.1), ({0: 0.25, 2: 0.75}, 0.0)):
        found = toy.adversary.attack(
            toy.inner, toy.outer, lr=lr, readouts=readouts, order=order, tensors=tensors, optimizer="sgd"
        )
        torch.testing.assert_close(flat(found.gradient), expected, rtol=1e-5, atol=1e-7)
        assert found.displacement == 0.0


def test_first_order_is_the_outer_gradient_at_the_attacked_weights(toy):
    found = toy.adversary.attack(toy.inner, toy.outer, lr=0.1, readouts={1: 1.0, 3: 2.0}, optimizer="sgd")
    expected = torch.zeros_like(flat(found.gradient))
    with toy.adversary.walk(toy.inner, steps=3, lr=0.1, optimizer="sgd") as walk:
        for k in walk:
            if k != 2:
                grads = torch.autograd.grad(toy.outer(), list(toy.views.trainable.values()))
                expected += {1: 1.0, 3: 2.0}[k] * flat(dict(enumerate(grads)))
    torch.testing.assert_close(flat(found.gradient), expected, rtol=1e-5, atol=1e-7)


def test_normalised_steps_move_by_the_given_share(toy):
    found = toy.adversary.attack(toy.inner, toy.outer, lr=0.01, readouts={1: 1.0})
    assert found.displacement == pytest.approx(0.01, rel=1e-4)


def test_bf16_weights_follow_float32_masters(make_batch):
    """Steps far below half a unit in the last place add up instead of being rounded away."""
    toy = Toy(make_batch, torch.bfloat16)
    before = {n: p.detach().clone() for n, p in toy.views.trainable.items()}
    with toy.adversary.walk(lambda k: toy.inner(0).float(), steps=40, lr=1e-4) as walk:
        for _ in walk:
            pass
        assert 1e-3 < walk.displacement < 8e-3
        assert all(p.dtype == torch.bfloat16 for p in walk.space.moved.values())
    assert all(torch.equal(p, before[n]) for n, p in toy.views.trainable.items())


def test_recomputation_does_not_change_exact_gradients(toy):
    def gradient() -> Tensor:
        options = {"lr": 0.2, "readouts": {2: 1.0}, "optimizer": "sgd", "order": "exact"}
        return flat(toy.adversary.attack(inner, toy.outer, **options).gradient)

    def inner(k: int) -> Tensor:
        return -toy.attacked[k].mean(toy.views.policy.token_logprobs(toy.attacked[k]))

    plain = gradient()
    toy.views.replay.checkpoint_blocks = True
    assert torch.equal(gradient(), plain)
    assert any("attention" in line for line in toy.said)


def test_what_second_order_cannot_do_is_said(make_batch):
    toy = Toy(make_batch, torch.bfloat16)
    with pytest.raises(PlanError, match="AdamW"):
        toy.adversary.attack(toy.inner, toy.outer, lr=0.1, readouts={1: 1.0}, optimizer="adamw", order="exact")
    with pytest.raises(PlanError, match="float32"):
        toy.adversary.attack(toy.inner, toy.outer, lr=0.1, readouts={1: 1.0}, order="finite-difference")
