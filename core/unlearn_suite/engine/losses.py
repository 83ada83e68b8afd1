"""The mathematics that objectives share, once. Activations are [..., D], logits [..., V]; results are float32.

Every function works position by position and reduces the last dimension only: means are taken with
`Batch.mean`, so that masks and micro-batches stay right. Use the logit functions through `View.per_token`,
which hands them a few positions at a time.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

EPS = 1e-6


def cosine(h: Tensor, u: Tensor) -> Tensor:
    """[...]: cos(h, u) for h [..., D] and u that broadcasts to it."""
    return functional.cosine_similarity(h.float(), u.float().expand_as(h), dim=-1, eps=EPS)


def relative_error(h: Tensor, h_ref: Tensor) -> Tensor:
    """[...]: |h - h_ref|^2 / |h_ref|^2, exactly 0 where they are equal."""
    h, h_ref = h.float(), h_ref.float()
    return (h - h_ref).square().sum(-1) / h_ref.square().sum(-1).clamp_min(EPS)


def squared_error(h: Tensor, target: Tensor) -> Tensor:
    """[...]: |h - target|^2 / D, the summand of torch's `mse_loss` (RMU's code, arXiv:2403.03218)."""
    return (h.float() - target.float()).square().mean(-1)


def norm_ratio(h: Tensor, h_ref: Tensor) -> Tensor:
    """[...]: |h| / |h_ref|."""
    return h.float().norm(dim=-1) / h_ref.float().norm(dim=-1).clamp_min(EPS)


def distance(h: Tensor, h_ref: Tensor) -> Tensor:
    """[...]: |h - h_ref|, with gradient 0 where they are equal."""
    return (h.float() - h_ref.float()).norm(dim=-1)


def label_logprobs(logits: Tensor, labels: Tensor) -> Tensor:
    """[...]: log p(label), from logits [..., V] and labels [...]."""
    logits = logits.float()
    return logits.gather(-1, labels[..., None])[..., 0] - logits.logsumexp(dim=-1)


def kl(logits_p: Tensor, logits_q: Tensor) -> Tensor:
    """[...]: KL(p || q) in nats; KL(reference || policy) has the reference's logits first."""
    log_p, log_q = (functional.log_softmax(z.float(), dim=-1) for z in (logits_p, logits_q))
    return functional.kl_div(log_q, log_p, reduction="none", log_target=True).sum(-1)


def entropy(logits: Tensor) -> Tensor:
    """[...]: entropy of softmax(logits), nats."""
    log_p = functional.log_softmax(logits.float(), dim=-1)
    return -(log_p.exp() * log_p).sum(-1)


def soft_cross_entropy(logits: Tensor, target_logits: Tensor) -> Tensor:
    """[...]: cross-entropy of softmax(logits) against softmax(target_logits); targets may be -inf."""
    return -(target_logits.float().softmax(dim=-1) * functional.log_softmax(logits.float(), dim=-1)).sum(-1)


def jensen_shannon(logits_p: Tensor, logits_q: Tensor) -> Tensor:
    """[...]: Jensen-Shannon divergence in nats, between 0 and log 2."""
    log_p, log_q = (functional.log_softmax(z.float(), dim=-1) for z in (logits_p, logits_q))
    log_m = torch.logaddexp(log_p, log_q) - math.log(2.0)
    return 0.5 * ((log_p.exp() * (log_p - log_m)).sum(-1) + (log_q.exp() * (log_q - log_m)).sum(-1))


def preference(margin: Tensor, beta: float) -> Tensor:
    """[...]: -(2 / beta) log sigmoid(beta margin), for margins in nats (DPO, NPO, SimNPO; arXiv:2404.05868).

    2 log 2 / beta at margin 0; for beta -> 0 it falls with slope -1, as gradient ascent does.
    """
    return functional.softplus(-beta * margin.float()) * (2.0 / beta)
