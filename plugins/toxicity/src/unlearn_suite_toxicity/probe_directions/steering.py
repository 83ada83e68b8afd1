"""What a stage steers: probes, directions and block weights, fitted at the start and, if asked, again on the way."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

from torch import Tensor

from unlearn_suite import StageContext, TrainingError

from . import causal, directions, probes, weights
from .causal import Effect
from .config import ProbeDirectionsConfig
from .corpus import Corpus
from .directions import Axis, Direction, on_device
from .features import Features, Reader
from .probes import Probe

MOST_ROUNDS = 5
"""times that probes are fitted anew"""


class Steering:
    """`directions` and `probes` by block of S; blocks that fail a filter are in `left_out` with the reason.

    `judged`: the probes with the AUROC and accuracy that are told; with `test_share` nothing is chosen by these.
    """

    def __init__(self, ctx: StageContext, config: ProbeDirectionsConfig, corpus: Corpus, blocks: list[int]) -> None:
        self.ctx = ctx
        self.config = config
        self.corpus = corpus
        self.left_out: dict[int, str] = {}
        self.effects: dict[int, Effect] = {}
        self.rounds = 0
        self.reader = Reader(ctx, blocks, config.pool)
        self.features: Mapping[int, Features] = self.reader.features(ctx.reference, corpus)
        self.probes: dict[int, Probe] = {b: _fit(self.features[b]) for b in blocks}
        self.judged = {b: probes.judged(p, *self.features[b].judged) for b, p in self.probes.items()}
        self.directions: dict[int, Direction] = {}
        self._first_directions([b for b in blocks if self._strong_enough(b)])
        if config.needs_causal:
            self._measure_effects()
        if not self.directions:
            reasons = "; ".join(f"block {b}: {why}" for b, why in self.left_out.items())
            hint = "loosen the thresholds, try other blocks, or `direction: diffmean`"
            raise TrainingError(f"no block passes the filters ({reasons})", code="probe-blocks", hint=hint)
        self.learned = weights.Learned(self.blocks, config.weight_rate)
        self._weights = self._fixed_weights()

    @property
    def blocks(self) -> list[int]:
        return list(self.directions)

    @property
    def weights(self) -> dict[int, float]:
        """lambda_l, which sum to 1."""
        return self.learned.weights if self.config.layer_weights == "learned" else self._weights

    def refresh(self) -> None:
        """Fit probes on the model as it is now, outside the axes so far, and add what they find."""
        if self.rounds >= MOST_ROUNDS:
            return
        self.rounds += 1
        view = self.ctx.policy
        read = self.reader.features(view, self.corpus)
        benign, toxic = (self.reader.tokens(view, p) for p in (self.corpus.benign_val, self.corpus.toxic_val))
        for block, direction in self.directions.items():
            taken = [a.edit.double().cpu().numpy() for a in direction.axes]
            probe = directions.probe_outside(read[block], taken)
            raw = directions.Raw(probe.weight, probe.weight, probe.bias)
            axes = [on_device(a, "cpu") for a in direction.axes]
            axis = directions.next_axis(axes, raw, benign[block], toxic[block])
            if axis is not None:
                axes = [*direction.axes, on_device(axis, self.ctx.device)]
                self.directions[block] = replace(direction, axes=tuple(axes))

    def state_dict(self) -> dict[str, Any]:
        """Plain values and tensors: what `refresh` and the learned weights have changed."""
        found = {b: [_axis_state(a) for a in d.axes] for b, d in self.directions.items()}
        return {"rounds": self.rounds, "axes": found, "alpha": dict(self.learned.alpha)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.rounds = int(state["rounds"])
        self.learned.alpha.update(state["alpha"])
        for block, axes in state["axes"].items():
            restored = tuple(on_device(Axis(**axis), self.ctx.device) for axis in axes)
            self.directions[block] = replace(self.directions[block], axes=restored)

    def _strong_enough(self, block: int) -> bool:
        area = self.probes[block].auroc
        if area < self.config.min_auroc:
            self.left_out[block] = f"AUROC {area:.3f} is below {self.config.min_auroc:g}"
        return block not in self.left_out

    def _first_directions(self, blocks: list[int]) -> None:
        reference, corpus, config = self.ctx.reference, self.corpus, self.config
        benign, toxic = (self.reader.tokens(reference, p) for p in (corpus.benign_val, corpus.toxic_val))
        control = config.direction in {"random", "shuffled"} or config.shared
        best = max(blocks, key=lambda b: self.probes[b].auroc) if blocks else -1
        for block in blocks:
            home = best if config.shared else block
            raws = directions.raw_axes(config, self.features[home], self.probes[home], home, self.ctx.seed)
            found = directions.measure(raws, benign[block], toxic[block], block, control=control)
            axes = tuple(on_device(a, self.ctx.device) for a in found.axes)
            self.directions[block] = Direction(axes, found.centre.to(self.ctx.device))

    def _measure_effects(self) -> None:
        if not self.corpus.prompts:
            raise TrainingError(
                "the effect of a direction on what the model writes cannot be measured without prompts",
                code="no-prompts",
                hint="give the problem a role `prompts`, or leave out `causal_filter` and `layer_weights: causal`",
            )
        self.effects = causal.effects(self.ctx, self.config, self.corpus, self.directions)
        if not self.config.causal_filter:
            return
        for block, effect in self.effects.items():
            if not effect.passes(self.config):
                self.left_out[block] = f"not causal (toxicity {-effect.drop:+.0%}, KL {effect.kl:.3f})"
                del self.directions[block]
        if len(self.directions) == 1:
            self.ctx.services.warn(f"only block {self.blocks[0]} passes the causal filter")

    def _fixed_weights(self) -> dict[int, float]:
        if self.config.layer_weights == "auroc":
            return weights.proportional({b: self.probes[b].auroc - 0.5 for b in self.blocks})
        if self.config.layer_weights == "causal":
            return weights.proportional({b: self.effects[b].drop for b in self.blocks})
        return weights.uniform(self.blocks)


def _fit(data: Features) -> Probe:
    return probes.fit(data.x, data.y, data.x_val, data.y_val)


def _axis_state(axis: Axis) -> dict[str, Any]:
    values = {f.name: getattr(axis, f.name) for f in fields(Axis)}
    return {name: v.cpu().clone() if isinstance(v, Tensor) else v for name, v in values.items()}
