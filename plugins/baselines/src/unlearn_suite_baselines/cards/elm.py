"""ELM: erase by self-classification, with low-rank edits of early blocks.

    target_t = softmax_topk(log p(. | x_<t) - eta_t (log p(. | expert, x_<t) - log p(. | novice, x_<t)))
    L = CE(target, p(. | x_f)) + CE(argmax p_base, p(. | x_r)) + NLL(change of subject | x_f)

All on the base model at temperature 1.2; eta_t rises linearly from 1 to 1000 along the text. Published with LoRA rank
256, alpha 16, on blocks 4 to 7, lr 5e-5, 3,000 texts: add `lora: {rank: 256, alpha: 16}` to the stage. Simplified
against the public code (rohitgandikota/erasing-llm): one expert and one novice prefix instead of ten each, in our
words; targets are made once per example; the change of subject is the base model's plain continuation, 24 tokens
long, not one of 100 to 300 guided by the same ratio.
"""

from __future__ import annotations

from pydantic import Field

from .common import Trains, method


class ElmConfig(Trains):
    """Options of `elm`. `blocks` none: an eighth of the depth from an eighth on (4 to 7 of 32)."""

    tensors: str = "linear"
    """`linear`, `all`, `mlp`, `mlp_out`, `attn_out` or a regular expression"""
    concept: str = "the subject of this text"
    """what is erased, as it stands in the prefixes"""
    expert: str = "A leading expert on {concept} wrote this, precise in every detail:\n"
    """prefix of the expert"""
    novice: str = "Someone who has never heard of {concept} wrote this and soon talks of other things:\n"
    """prefix of the novice"""
    eta: tuple[float, float] = (1.0, 1000.0)
    """strength at the first and at the last token"""
    top_k: int = Field(50, ge=1)
    """tokens that a target keeps"""
    temperature: float = Field(1.2, gt=0)
    """divides the logits that targets are made of"""
    erase_weight: float = Field(1.0, ge=0)
    """weight of the erase loss"""
    retain_weight: float = Field(1.0, ge=0)
    """weight of the retain loss"""
    consistency_weight: float = Field(1.0, ge=0)
    """weight of the loss on changes of subject (0: none are sampled)"""
    change: str = " But let us talk about something more pleasant:"
    """how a change of subject begins"""
    max_new_tokens: int = Field(24, ge=1)
    """tokens sampled after it"""


SPEC = method(
    "elm",
    "Distil a novice's view of forget text, hold retain predictions, train on changes of subject",
    "elm:Elm",
    ElmConfig,
    "Gandikota et al. 2024, arXiv:2410.02760",
    "simplified",
    train={"steps": 60, "lr": 5e-5, "batch": 8, "length": 64},
)
