"""The objective: hinge (P1) or counterfactual (P5) on probe directions of several blocks, and its retain terms."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unlearn_suite import (
    Batch,
    Example,
    Loss,
    LossObjective,
    ModelShape,
    Requirements,
    Scalars,
    StageContext,
    TrainingError,
    View,
    losses,
)

from . import corpus, probes
from .config import ProbeDirectionsConfig
from .losses import counterfactual, hinge, orthogonal_error

DEPTHS = (0.2, 1 / 3, 7 / 15, 0.6, 11 / 15)
PROBE_BATCH = 16


@dataclass(frozen=True)
class Direction:
    """Of one block: unit vector v [D] towards toxic, token-level benign mean and scale of h.v."""

    v: Tensor
    mu0: float
    sd0: float
    scale: float


class ProbeDirections(LossObjective[ProbeDirectionsConfig]):
    """METHODS 4.3 and 4.4. The forget term is a mean over response tokens, uniform over blocks."""

    def requirements(self, shape: ModelShape) -> Requirements:
        blocks = self._blocks(shape)
        trained = range(max(0, blocks[0] - 1), blocks[-1] + 1)
        return Requirements(
            trainable=shape.select("mlp_out", trained) + shape.select("attn_out", trained),
            reads=blocks[-1],
            logits=self.config.kl_weight > 0,
        )

    def _blocks(self, shape: ModelShape) -> list[int]:
        if self.config.blocks is not None:
            return sorted({shape.check_block(b) for b in self.config.blocks})
        return sorted({min(round(f * shape.n_blocks), shape.n_blocks - 2) for f in DEPTHS})

    def setup(self, ctx: StageContext) -> None:
        super().setup(ctx)
        self.blocks = self._blocks(ctx.shape)
        self.corpus = corpus.build(ctx, self.config)
        self.probes = self._fit_probes(ctx.reference)
        self.directions = self._directions()
        ctx.set_role("forget", self.corpus.toxic)
        if self.corpus.source == "on-policy":
            ctx.set_role("retain", self._retain_mix())
        self._save()

    def _retain_mix(self) -> list[Example]:
        """Benign continuations and the problem's retain text in the proportion of `general_share`."""
        own = self.corpus.benign
        general = [e.example for e in self.ctx.roles["retain"].encoded]
        share = self.config.general_share
        total = int(min(len(own) / max(1 - share, 1e-9), len(general) / max(share, 1e-9)))
        return own[: round(total * (1 - share))] + general[: round(total * share)]

    def _pooled(self, view: View, examples: Sequence[Example]) -> dict[int, probes.Array]:
        """{block: [N, D]}: means over response tokens."""
        rows: dict[int, list[Tensor]] = {b: [] for b in self.blocks}
        with torch.no_grad():
            for batch in self.ctx.encode("probe", examples).chunks(PROBE_BATCH):
                moved = batch.to(self.ctx.device)
                mask = moved.mask("response")[..., None]
                for block, h in view.hidden(moved, self.blocks).items():
                    total = h.float().masked_fill(~mask, 0.0).sum(1)
                    rows[block].append((total / mask.sum(1).clamp_min(1)).cpu())
                self.ctx.views.clear()
        return {b: torch.cat(r).double().numpy() for b, r in rows.items()}

    def _fit_probes(self, view: View) -> dict[int, probes.Probe]:
        """One probe a block on `view`'s activations; keeps the validation features for `finish`."""
        c = self.corpus
        train = [self._pooled(view, part) for part in (c.benign, c.toxic)]
        val = [self._pooled(view, part) for part in (c.benign_val, c.toxic_val)]
        self._val = val
        fitted = {}
        for block in self.blocks:
            x, y = _stack([part[block] for part in train])
            x_val, y_val = _stack([part[block] for part in val])
            fitted[block] = probes.fit(x, y, x_val, y_val)
        return fitted

    def _directions(self) -> dict[int, Direction]:
        benign, toxic = (self._token_activations(part) for part in (self.corpus.benign_val, self.corpus.toxic_val))
        result = {}
        for block, probe in self.probes.items():
            if self.config.direction == "logistic":
                raw = probe.weight
            else:
                raw = self._val[1][block].mean(0) - self._val[0][block].mean(0)
            v = torch.tensor(raw / np.linalg.norm(raw), dtype=torch.float32)
            p0, p1 = benign[block] @ v, toxic[block] @ v
            scale = float(p1.mean() - p0.mean())
            if scale <= 0:
                raise TrainingError(
                    f"the probe of block {block} does not tell toxic from benign tokens (difference {scale:.3g})",
                    code="probe-direction",
                    hint="leave this block out, or give more prompts",
                )
            result[block] = Direction(v.to(self.ctx.device), float(p0.mean()), float(p0.std()), scale)
        return result

    def _token_activations(self, examples: Sequence[Example]) -> dict[int, Tensor]:
        """{block: [tokens, D]} of response tokens, base model."""
        rows: dict[int, list[Tensor]] = {b: [] for b in self.blocks}
        for batch in self.ctx.encode("probe", examples).chunks(PROBE_BATCH):
            moved = batch.to(self.ctx.device)
            mask = moved.mask("response")
            for block, h in self.ctx.reference.hidden(moved, self.blocks).items():
                rows[block].append(h[mask].float().cpu())
            self.ctx.views.clear()
        return {b: torch.cat(r) for b, r in rows.items()}

    def loss(self, batch: Mapping[str, Batch]) -> Loss:
        f, r = batch["forget"], batch["retain"]
        h_f, h_r = (self.ctx.policy.hidden(b, self.blocks) for b in (f, r))
        ref_f, ref_r = (self.ctx.reference.hidden(b, self.blocks) for b in (f, r))
        share = 1.0 / len(self.blocks)
        forget, perp, retain = [], [], []
        for block, d in self.directions.items():
            retain.append(share * r.mean(losses.relative_error(h_r[block], ref_r[block])))
            if self.config.loss == "hinge":
                tau = d.mu0 + self.config.kappa * d.sd0
                forget.append(share * f.mean(hinge(h_f[block], d.v, tau, d.scale), "response"))
                perp.append(share * f.mean(orthogonal_error(h_f[block], ref_f[block], d.v), "response"))
            else:
                gap = counterfactual(h_f[block], ref_f[block], d.v, d.mu0)
                forget.append(share * f.mean(gap, "response"))
        parts = {"forget": sum(forget[1:], forget[0]), "retain": sum(retain[1:], retain[0])}
        weights = {"retain": self.config.retain_weight}
        if perp and self.config.perp_weight:
            parts["perp"], weights["perp"] = sum(perp[1:], perp[0]), self.config.perp_weight
        if self.config.kl_weight and self.ctx.step_index % self.config.kl_every == 0:
            parts["kl"] = r.mean(self.ctx.reference.per_token(r, _kl, against=self.ctx.policy))
            weights["kl"] = self.config.kl_weight * self.config.kl_every
        return Loss(parts, weights, self._diagnostics(f, h_f, ref_f))

    @torch.no_grad()
    def _diagnostics(self, f: Batch, h: dict[int, Tensor], ref: dict[int, Tensor]) -> dict[str, Tensor]:
        last = self.blocks[-1]
        rho = h[last].float().norm(dim=-1) / ref[last].float().norm(dim=-1).clamp_min(losses.EPS)
        scalars = {"rho_forget": f.mean(rho)}
        for block, d in self.directions.items():
            scalars[f"projection_{block}"] = f.mean((h[block].float() @ d.v - d.mu0) / d.scale, "response")
        return scalars

    def finish(self) -> Scalars:
        """AUROC of the old probes and of probes fitted afresh on the trained model (METHODS 4.6, probe evasion)."""
        before = self.probes
        fresh = self._fit_probes(self.ctx.policy)
        scalars: Scalars = {}
        for block in self.blocks:
            x, y = _stack([part[block] for part in self._val])
            scalars[f"auroc_before_{block}"] = before[block].auroc
            scalars[f"auroc_old_probe_{block}"] = probes.auroc(y, x @ before[block].weight)
            scalars[f"auroc_fresh_probe_{block}"] = fresh[block].auroc
        return scalars

    def _save(self) -> None:
        """Probes and directions, kept with the cell."""
        table: dict[str, Any] = {"source": self.corpus.source}
        table["texts"] = {n: len(getattr(self.corpus, n)) for n in ("toxic", "benign", "toxic_val", "benign_val")}
        table["blocks"] = {
            str(b): {
                "auroc": p.auroc,
                "accuracy": p.accuracy,
                "c": p.c,
                "cos_diffmean": p.cos_diffmean,
                "mu0": self.directions[b].mu0,
                "scale": self.directions[b].scale,
            }
            for b, p in self.probes.items()
        }
        (self.ctx.artifacts / "probes.json").write_text(json.dumps(table, indent=1))
        vectors = {str(b): d.v.cpu().contiguous() for b, d in self.directions.items()}
        from safetensors.torch import save_file

        save_file(vectors, self.ctx.artifacts / "directions.safetensors")


def _kl(reference: Tensor, _: Tensor, policy: Tensor) -> Tensor:
    """[N]: KL(reference || policy) of the next-token distributions."""
    return losses.kl(reference, policy)


def _stack(classes: Sequence[probes.Array]) -> tuple[probes.Array, probes.Array]:
    """(features [N, D], labels [N]) of benign then toxic."""
    y = np.concatenate([np.full(len(part), float(label)) for label, part in enumerate(classes)])
    return np.concatenate(list(classes)), y
