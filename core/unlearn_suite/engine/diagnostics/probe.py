"""Can a linear probe still tell text to forget from text to keep, and has kept text moved along it?"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from hashlib import sha256
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..batch import Batch
from ..objective import Scalars
from ..views import View
from .detector import Alarm, Bench, Detector, fixed_batches, pooled

Array = NDArray[Any]
C = 1e-2
"""inverse regularisation strength, on standardised activations"""
TOLD = 0.75
"""AUROC before training below which the probe's direction means nothing"""


class Probe(Detector):
    """A class-balanced logistic regression on pooled activations (means over content tokens) of the block that is read:
    w is fitted on one half of the texts, by unit, and judged on the other. Beside the AUROC before training, and now of
    the old and of a freshly fitted w, how far the texts of a role have gone along the old one:

        shift = (mean(h.w) - mean(h_ref.w)) / (mean(h_ref.w | forget) - mean(h_ref.w | retain))

    A fresh probe that works is no failure by itself: what a model knows may stay readable where it is no longer told.
    """

    alarms = {  # noqa: RUF012
        "diag_probe_gap": Alarm("a fresh probe finds what the old one no longer does", at_most=0.1),
        "diag_probe_retain_shift": Alarm("kept text moved along the probe", at_least=-0.2, at_most=0.2),
    }

    def __init__(self) -> None:
        self._texts: list[list[Batch]] = []
        """to keep (label 0), to forget (label 1)"""
        self._before: Array | None = None
        """what the first model makes of them: it reads them once"""
        self._w: Array | None = None
        """the first model's probe"""

    def measure(self, bench: Bench) -> Scalars:
        if self._before is None:
            roles = (bench.options.retain, bench.options.forget)
            self._texts = [fixed_batches(bench.ctx, role, bench.options.probe_examples) for role in roles]
            self._before = self._read(bench, bench.ctx.reference)
        labels = np.repeat([0, 1], [sum(len(b.examples) for b in batches) for batches in self._texts])
        fit = np.concatenate([_first_half(batches) for batches in self._texts])
        if len(set(labels[fit])) < 2 or len(set(labels[~fit])) < 2:
            return {}
        if self._w is None:
            self._w = _fitted(self._before[fit], labels[fit])
        w, before, y = self._w, self._before[~fit], labels[~fit]
        found = {"diag_probe_before": _auroc(y, before @ w)}
        if found["diag_probe_before"] < TOLD:
            return found
        now = self._read(bench, bench.ctx.policy)
        if not np.isfinite(now).all():  # which is alarming, and nothing to fit on
            return found | dict.fromkeys(self.alarms, math.nan)
        found["diag_probe_old"] = _auroc(y, now[~fit] @ w)
        found["diag_probe_fresh"] = _auroc(y, now[~fit] @ _fitted(now[fit], labels[fit]))
        found["diag_probe_gap"] = found["diag_probe_fresh"] - found["diag_probe_old"]
        way = (before[y == 1] @ w).mean() - (before[y == 0] @ w).mean()
        moved = (now[~fit] - before) @ w / way
        found["diag_probe_retain_shift"] = float(moved[y == 0].mean())
        found["diag_probe_forget_shift"] = float(moved[y == 1].mean())
        return found

    def _read(self, bench: Bench, view: View) -> Array:
        """[N, D] float64: all texts in order."""
        rows = []
        for batch in (b for batches in self._texts for b in batches):
            rows.append(pooled(view.hidden(batch, [bench.block])[bench.block], batch).cpu())
            bench.ctx.views.clear()
        return torch.cat(rows).double().numpy()


def _first_half(batches: Sequence[Batch]) -> Array:
    """[N] bool: the texts of every other unit, in an order by hash."""
    units = [e.unit or e.id for b in batches for e in b.examples]
    first = set(sorted(set(units), key=lambda unit: sha256(unit.encode()).digest())[::2])
    return np.array([unit in first for unit in units])


def _fitted(x: Array, y: Array) -> Array:
    """[D]: w on raw activations [N, D]."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    std = x.std(axis=0)
    floor = 1e-4 * np.median(std) + 1e-12
    model = LogisticRegression(C=C, class_weight="balanced", max_iter=1000)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit((x - x.mean(axis=0)) / np.maximum(std, floor), y)
    weight: Array = model.coef_[0] / np.maximum(std, floor)
    return weight


def _auroc(y: Array, scores: Array) -> float:
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(y, scores))
