"""Linear probes on pooled activations (METHODS 4.3). numpy and scikit-learn only."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
PATH = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
"""inverse regularisation strengths C that are tried"""


@dataclass(frozen=True)
class Probe:
    """P(toxic) = sigmoid(w.x + b) on RAW activations x [D]; `auroc`, `accuracy` on the validation set if not `judged`
    on another."""

    weight: Array
    bias: float
    c: float
    auroc: float
    accuracy: float
    cos_diffmean: float


def fit(x: Array, y: Array, x_val: Array, y_val: Array, path: Sequence[float] = PATH) -> Probe:
    """L2 logistic regression on standardised features, class-balanced; the smallest C within one standard
    error of the best validation AUROC. x: [N, D], y: [N] in {0, 1}. Positive scores mean class 1.
    """
    mean, std = x.mean(axis=0), x.std(axis=0)
    std = np.maximum(std, 1e-4 * np.median(std) + 1e-12)
    fitted = [_fit_one((x - mean) / std, y, c) for c in path]
    scores = [auroc(y_val, ((x_val - mean) / std) @ w + b) for w, b in fitted]
    best = max(scores)
    floor = best - standard_error(best, int(y_val.sum()), int((1 - y_val).sum()))
    chosen = next(i for i, score in enumerate(scores) if score >= floor)
    w_z, b_z = fitted[chosen]
    weight = w_z / std
    bias = float(b_z - (w_z * mean / std).sum())
    diffmean = x[y == 1].mean(axis=0) - x[y == 0].mean(axis=0)
    if x[y == 1].mean(axis=0) @ weight < x[y == 0].mean(axis=0) @ weight:
        weight, bias = -weight, -bias
    cosine = float(weight @ diffmean / (np.linalg.norm(weight) * np.linalg.norm(diffmean) + 1e-12))
    return judged(Probe(weight, bias, path[chosen], 0.5, 0.5, cosine), x_val, y_val)


def judged(probe: Probe, x: Array, y: Array) -> Probe:
    """The same probe with its AUROC and accuracy on these rows [N, D] and labels [N]."""
    scores = x @ probe.weight + probe.bias
    return replace(probe, auroc=auroc(y, scores), accuracy=float(((scores > 0) == (y == 1)).mean()))


def _fit_one(z: Array, y: Array, c: float) -> tuple[Array, float]:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    model: Any = LogisticRegression(C=c, class_weight="balanced", tol=1e-5, max_iter=1000)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(z, y)
    return model.coef_[0].astype(np.float64), float(model.intercept_[0])


def auroc(y: Array, scores: Array) -> float:
    """Area under the ROC curve; 0.5 when a class is missing."""
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(y, scores)) if 0 < y.sum() < len(y) else 0.5


def standard_error(area: float, positives: int, negatives: int) -> float:
    """Of an AUROC (Hanley and McNeil 1982)."""
    if not positives or not negatives:
        return 0.0
    q1, q2 = area / (2 - area), 2 * area**2 / (1 + area)
    spread = area * (1 - area) + (positives - 1) * (q1 - area**2) + (negatives - 1) * (q2 - area**2)
    return float(np.sqrt(max(spread, 0.0) / (positives * negatives)))
