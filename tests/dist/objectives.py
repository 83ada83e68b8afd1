"""Objectives that touch everything the engine spreads over processes. A single-file plugin."""

from __future__ import annotations

import torch

from unlearn_suite import Config, Loss, LossObjective, ObjectiveSpec, Requirements, hookimpl, losses


class Options(Config):
    train: tuple[str, ...] = (r".*\.[12]\.mlp\.(down_proj|c_proj|dense_4h_to_h)\.weight",)
    """patterns of the tensors to train"""
    moves: str = "same"
    """what the simulated attacker moves"""
    order: str = "first"
    """of the gradient through the attack"""


class Ratio(LossObjective[Options]):
    """NPO on the log-ratio, and KL to the reference on retain text: two heads at once, the whole depth."""

    def requirements(self, shape):
        names = [n for pattern in self.config.train for n in shape.match(pattern)]
        return Requirements(tuple(dict.fromkeys(names)), reads=-1, logits=True)

    def loss(self, batch):
        f, r = batch["forget"], batch["retain"]
        ratio = self.ctx.policy.token_logprobs(f, "response") - self.ctx.reference.token_logprobs(f, "response")
        npo = -2.0 * torch.nn.functional.logsigmoid(-f.sum_per_example(ratio))
        drift = self.ctx.reference.per_token(r, _kl, against=self.ctx.policy)
        return Loss({"npo": f.mean_examples(npo) * self.noise, "kl": r.mean(drift)})

    def step(self, batch):
        self.noise = 0.5 + torch.rand((), generator=self.ctx.generator)
        return super().step(batch)


def _kl(reference, labels, policy):
    return losses.kl(reference, policy)


class Logits(Ratio):
    """The plain logits, and a block above the lowest trained one, in one graph."""

    def loss(self, batch):
        f, r = batch["forget"], batch["retain"]
        z = self.ctx.policy.logits(f).float()
        h, ref = (view.hidden(r, [0, 3]) for view in (self.ctx.policy, self.ctx.reference))
        return Loss({"flat": -f.mean(losses.entropy(z)), "keep": r.mean(losses.squared_error(h[3], ref[3]))})


class OwnStep(Ratio):
    """Adds to `.grad` by hand what the adversary found and what `autograd.grad` gives; samples in `setup`."""

    def setup(self, ctx):
        super().setup(ctx)
        texts = ctx.services.memo(
            "own",
            {},
            lambda: ctx.services.sample(["a ", "the "], n=1, max_new_tokens=4, temperature=1.0, top_p=1.0, seed=0),
        )
        self.weight = 1.0 + len(texts[0][0]) / 100

    def step(self, batch):
        self.noise = 1.0 + torch.rand((), generator=self.ctx.generator)
        scalars = self.ctx.backward(self.loss, batch)
        forget = batch["forget"]

        def attacker(k):
            drawn = self.ctx.draw("forget", k)
            return -drawn.mean(self.ctx.policy.token_logprobs(drawn))

        def meta():
            return forget.mean(self.ctx.policy.token_logprobs(forget))

        found = self.ctx.adversary.attack(
            attacker,
            meta,
            lr=1e-2,
            readouts={1: 0.3, 2: 0.7},
            optimizer="sgd_norm",
            tensors=self.config.moves,
            order=self.config.order,
        )
        plain = torch.autograd.grad(meta(), list(self.ctx.trainable.values()))
        for (name, parameter), g in zip(self.ctx.trainable.items(), plain, strict=True):
            parameter.grad += self.weight * found.gradient[name] + 0.1 * g
        norm = float(self.ctx.global_norm(list(found.gradient.values())))
        extra = {"inner": found.inner_losses[-1], "outer": found.outer_losses[2], "meta_norm": norm}
        return {**scalars, **extra, "weight": self.weight, **self.ctx.update()}


class Watched(Ratio):
    """Reads block 2 of 4 and tells what was gathered for a step, and what this process holds."""

    def setup(self, ctx):
        super().setup(ctx)
        weights = ctx.views.replay.weights
        self.gathered: dict[str, int] = {}
        gather = weights.gather

        def noted(key):
            self.gathered[str(key)] = self.gathered.get(str(key), 0) + 1
            gather(key)

        weights.gather = noted

    def loss(self, batch):
        r = batch["retain"]
        h, ref = (view.hidden(r, [2])[2] for view in (self.ctx.policy, self.ctx.reference))
        return Loss({"keep": r.mean(losses.squared_error(h + 1.0, ref))})

    def step(self, batch):
        self.gathered.clear()
        scalars = super().step(batch)
        model = self.ctx.views.replay.model
        held = sum(getattr(p, "to_local", lambda p=p: p)().numel() for p in model.parameters())
        share = held / sum(p.numel() for p in model.parameters())
        return {**scalars, **{f"gathered_{k}": float(n) for k, n in self.gathered.items()}, "held": share}


class WholeBatch(Ratio):
    """Makes the mistake of training on batches that are not this process's share."""

    def step(self, batch):
        whole = {role: self.ctx.roles[role].batch(0, 4) for role in batch}
        return {**self.ctx.backward(self.loss, whole), **self.ctx.update()}


class NotFinite(Ratio):
    """One process alone meets the row whose loss is not finite."""

    def loss(self, batch):
        loss = super().loss(batch)
        bad = self.ctx.processes.rank == 1 and self.ctx.step_index == 1
        return Loss({"npo": loss.parts["npo"] * (float("nan") if bad else 1.0)})


class Second(Ratio):
    """Asks for what cannot be had: the gradient of a gradient."""

    noise = 1.0

    def step(self, batch):
        loss = self.loss(batch).total()
        grads = torch.autograd.grad(loss, list(self.ctx.trainable.values()), create_graph=True)
        sum(g.square().sum() for g in grads).backward()
        return self.ctx.update()


@hookimpl
def register_objectives(register):
    for cls in (Ratio, Logits, OwnStep, Watched, WholeBatch, NotFinite, Second):
        name = "".join("-" + c.lower() if c.isupper() else c for c in cls.__name__).strip("-")
        register(ObjectiveSpec(name=name, summary="for tests", load=f"{__name__}:{cls.__name__}", config=Options))
