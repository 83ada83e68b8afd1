"""Membership inference: one number per text, larger for a text that the model is less likely to have trained on.

The report makes an AUC of the numbers: 1 = every non-member scores above every member, 0.5 = no difference. Published
reliability (arXiv:2605.24614; AUC of telling models that know the texts from models that never saw them | agreement
after one epoch of relearning | after 4-bit rounding): min-k .91 | .37 | .87, loss .90 | .36 | .89, zlib .87 | .33 |
.89, min-k++ .82 | .28 | .80.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unlearn_suite import Example, Metric, PlanError, Row, TokenScores, reference_model, token_scores

from .config import MiaConfig

if TYPE_CHECKING:
    from unlearn_suite import EvalModel

GROUPS = ("member", "non-member")
LEAST_VARIANCE = 1e-6
"""of log p at a position, where min-k++ divides by its root"""


def min_k(logprobs: Sequence[float], k: float) -> float:
    """-mean of the lowest k n of n log-probabilities, at least one (arXiv:2310.16789). Nats, 0 or more."""
    lowest = sorted(logprobs)[: max(int(k * len(logprobs)), 1)]
    return -sum(lowest) / len(lowest)


def min_k_plus_plus(scores: TokenScores, k: float) -> float:
    """`min_k` of (log p(x_t) - mu_t) / sigma_t, mu and sigma those of log p(v), v ~ p(. | x_<t) (arXiv:2404.02936)."""
    moments = zip(scores.logprobs, scores.means, scores.variances, strict=True)
    return min_k([(x - mean) / max(variance, LEAST_VARIANCE) ** 0.5 for x, mean, variance in moments], k)


def zlib_ratio(nll: float, text: str) -> float:
    """Mean NLL / length of the compressed text in bytes (arXiv:2012.07805): a repetitive text is likely anyway."""
    return nll / len(zlib.compress(text.encode()))


class Mia(Metric[MiaConfig]):
    """Scores `text` (after any `prompt`) of examples of the groups member and non-member; each score becomes an AUC.

        loss = -(1/n) sum_t log p_t;  zlib = loss / bytes of the compressed text;  reference = loss - a reference's
        min-k = -mean of the lowest k n of log p_t;  min-k++ = the same of (log p_t - mu_t) / sigma_t
        gradnorm = mean over parameter tensors of |d loss / d tensor|_2;  privleak = 100 (A_oracle - A) / (1 - A_oracle)

    Source: arXiv:2310.16789, arXiv:2404.02936, arXiv:2012.07805; PrivLeak arXiv:2407.06460. Reliability: at the top.
    """

    def score(self, model: EvalModel, examples: Sequence[Example], seed: int) -> Iterable[Row]:
        for example in examples:
            _check(example)
        config = self.config
        found = token_scores(model, examples, separator=config.separator, moments=True)
        before = self._reference_losses(model, examples)
        for index, (example, scores) in enumerate(zip(examples, found, strict=True)):
            if not scores.tokens:
                continue
            values = {
                "min-k": min_k(scores.logprobs, config.k),
                "min-k-plus-plus": min_k_plus_plus(scores, config.k),
                "loss": scores.mean_nll,
                "zlib": zlib_ratio(scores.mean_nll, example.text),
            }
            if before:
                values["reference"] = scores.mean_nll - before[index]
            if config.gradnorm:
                values["gradnorm"] = gradient_norm(model, example, config.separator)
            yield Row(example.id, values, group=example.group, unit=example.unit or example.id)

    def _reference_losses(self, model: EvalModel, examples: Sequence[Example]) -> list[float]:
        if self.config.reference is None:
            return []
        if self.config.reference == "published":
            with model.published() as before:
                return self._losses(before, examples)
        return self._losses(reference_model(Path(self.config.reference), model), examples)

    def _losses(self, model: EvalModel, examples: Sequence[Example]) -> list[float]:
        found = token_scores(model, examples, separator=self.config.separator)
        return [scores.mean_nll if scores.tokens else 0.0 for scores in found]


def gradient_norm(model: EvalModel, example: Example, separator: str = " ") -> float:
    """Mean over all parameter tensors of |d loss / d tensor|_2, loss = mean NLL of the tokens of the text."""
    import torch
    from torch.nn.functional import cross_entropy

    touching = example.prompt and not example.prompt[-1].isspace() and not example.text[0].isspace()
    given, scored = model.encode(example.prompt, separator + example.text if touching else example.text)
    ids = torch.tensor([[*given, *scored]], device=model.device)
    with _differentiable(model.hf) as parameters:
        logits = model.hf(input_ids=ids[:, :-1], use_cache=False).logits[0, len(given) - 1 :]
        loss = cross_entropy(logits.float(), ids[0, len(given) :])
        gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
    norms = [float(g.float().norm()) if g is not None else 0.0 for g in gradients]
    return sum(norms) / len(norms)


@contextmanager
def _differentiable(hf: Any) -> Iterator[list[Any]]:
    """All parameters with gradients on, in evaluation mode, for a while."""
    import torch

    parameters, training = list(hf.parameters()), hf.training
    before = [p.requires_grad for p in parameters]
    hf.eval()
    try:
        for p in parameters:
            p.requires_grad_(True)
        with torch.enable_grad():
            yield parameters
    finally:
        for p, wanted in zip(parameters, before, strict=True):
            p.requires_grad_(wanted)
        hf.train(training)


def _check(example: Example) -> None:
    if example.group not in GROUPS:
        raise PlanError(
            f"example {example.id!r} is of the group {example.group!r}",
            code="mia-group",
            hint="give the examples of `mia` the group member or non-member",
        )
