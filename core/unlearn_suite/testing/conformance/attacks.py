"""Checks of attacks: they go where their options say, change the weights, and leave nothing behind."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ...plan.text import Node
from ...specs import AttackConfig, AttackPoint, Example
from .check import CheckFailed, check
from .subject import Subject

if TYPE_CHECKING:
    from torch import Tensor

    from ...engine.attack import AttackContext

State = dict[str, "Tensor"]
ANSWER = "what the model answers"


def _context(subject: Subject, case: Node, config: AttackConfig) -> AttackContext:
    """A tiny model that has been unlearned (one matrix is another one), and made-up text for every role."""
    import torch

    from ...engine.attack import AttackContext
    from ..tiny import tiny_model, tiny_tokenizer
    from .bench import made_up

    model = tiny_model(seed=3)
    name, parameter = next((n, p) for n, p in model.named_parameters() if n.endswith("down_proj.weight"))
    original = parameter.detach().clone()
    with torch.no_grad():
        parameter.mul_(0.9)
    told = case.under("data")
    examples: dict[str, list[Example]] = {role: made_up(role) for role in subject.spec.roles_for(config)}
    examples |= {role: subject.examples(node, role) for role, node in (told.map if told else {}).items()}
    return AttackContext(model, tiny_tokenizer(), examples, 0, {name: original}, lambda text: None)


def _state(ctx: AttackContext) -> State:
    """Every weight, and what the model answers, which adapters change as well."""
    import torch

    with torch.no_grad():
        answer = ctx.model(torch.arange(4, 20)[None]).logits
    return {ANSWER: answer} | {name: p.detach().clone() for name, p in ctx.parameters.items()}


def _walked(subject: Subject) -> Iterator[tuple[AttackConfig, State, list[tuple[AttackPoint, State]], State]]:
    """Options, the model before, at each point, and after, of every case."""
    for case in subject.cases():
        config = subject.options(case)
        assert isinstance(config, AttackConfig)
        ctx = _context(subject, case, config)
        before = _state(ctx)
        points = [(point, _state(ctx)) for point in subject.target()(config).run(ctx)]
        ctx.restore()
        yield config, before, points, _state(ctx)


def _changed(one: State, other: State) -> list[str]:
    return [name for name, tensor in one.items() if not tensor.equal(other[name])]


@check("ATT-POINTS", "attack", "it comes by the points that its options promise, in their order")
def points_are_promised(subject: Subject) -> None:
    for config, _, points, _ in _walked(subject):
        promised, found = [p.name for p in config.points()], [p.name for p, _ in points]
        if len(set(promised)) < len(promised):
            raise CheckFailed(f"two of its points have one name: {', '.join(promised)}")
        if found != promised:
            raise CheckFailed(f"it comes by {', '.join(found) or 'none'} and promises {', '.join(promised)}")


@check("ATT-CHANGES", "attack", "at every point the model is another one than that which was attacked")
def model_changes(subject: Subject) -> None:
    for _, before, points, _ in _walked(subject):
        same = [point.name for point, state in points if ANSWER not in _changed(before, state)]
        if same:
            raise CheckFailed(f"at {same[0]!r} the model answers as before")


@check("ATT-RESTORES", "attack", "afterwards every weight has the bits it had, and the model answers as before")
def model_is_put_back(subject: Subject) -> None:
    for _, before, _, after in _walked(subject):
        if changed := _changed(before, after):
            raise CheckFailed(f"{changed[0]} is not put back: change the model with ctx.put or ctx.adversary only")


@check("ATT-SEED", "attack", "the same seed gives the same bits, whatever the global generators are at")
def same_seed_same_bits(subject: Subject) -> None:
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        first = list(_walked(subject))
        torch.manual_seed(2)
        second = list(_walked(subject))
    for (_, _, points, _), (_, _, again, _) in zip(first, second, strict=True):
        for (point, state), (_, others) in zip(points, again, strict=True):
            if changed := _changed(state, others):
                raise CheckFailed(f"{changed[0]} differs at {point.name!r}: draw from ctx.generator")
