"""AltPO: DPO towards alternate answers that the model itself made up.

    L_f = -(2 / beta) mean log sigmoid(beta (log p(a)/p_base(a) - log p(y)/p_base(y))),   L = gamma L_f + alpha L_retain

a: one of `alternates` sampled answers to the same prompt; each makes a pair of its own. The base model samples them
once, with `template`. Public code: OpenUnlearning's community script, whose prompt is for instruction-tuned 1B
models, and which samples up to 200 tokens; ours is a plain continuation of 24. Answers that equal the original are
dropped. Text without a prompt is cut in two.
"""

from __future__ import annotations

from pydantic import Field

from .dpo import DpoConfig, method


class AltPoConfig(DpoConfig):
    """Options of `altpo`."""

    alternates: int = Field(5, ge=1)
    """sampled answers per forget example"""
    template: str = "{prompt}"
    """what the model continues; {prompt} and {answer} stand for the example's"""
    max_new_tokens: int = Field(24, ge=1)
    """length of an alternate answer, tokens"""
    temperature: float = Field(1.0, gt=0)
    """sampling temperature"""
    top_p: float = Field(1.0, gt=0, le=1)
    """nucleus mass"""
    prompt_share: float = Field(0.5, gt=0, lt=1)
    """share of the words that is the question, where an example has no prompt"""


SPEC = method(
    "altpo",
    "Prefer self-generated alternate answers to each forget answer, relative to the base model",
    "preference:AltPo",
    AltPoConfig,
    "Mekala et al. 2024, arXiv:2409.13474",
    "variant",
    train={"steps": 60, "lr": 1e-5, "batch": 8, "length": 64},
)
