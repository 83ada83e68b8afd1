"""ITI-like shifts baked into biases: the heads that tell forget from retain best are shifted towards retain.

    v = mean a(retain) - mean a(forget), normalised;   b_O <- b_O + alpha sigma W_O[:, head] v   for the top heads

a: a head's output on response tokens, averaged per example; sigma: its standard deviation along v, with divisor n - 1.
Public code (likenneth/honest_llama) takes the last token's outputs and divisor n. Heads are ranked by how well v
separates held-out examples (the paper: a logistic probe for each head). K 48 heads of 1,024 and alpha 15 are the
paper's for LLaMA-7B. It shifts activations at inference; the shift is a constant, so it fits the output
projection's bias. Models without that bias (Llama, Mistral, Qwen 2 and 3, Gemma, OLMo) cannot hold it: that is an
error.
"""

from __future__ import annotations

from pydantic import Field

from unlearn_suite import Config

from .common import method


class ItiConfig(Config):
    """Options of `iti`."""

    heads: float = Field(48 / 1024, gt=0, le=1)
    """share of all heads that is shifted"""
    alpha: float = Field(15.0, gt=0)
    """strength, in standard deviations"""
    texts: int = Field(128, ge=4)
    """examples of each role"""


SPEC = method(
    "iti",
    "Shift the attention heads that tell forget from retain, in the output projections' biases",
    "iti:Iti",
    ItiConfig,
    "Li et al. 2023, arXiv:2306.03341",
    "variant",
    train={"steps": 1, "batch": 8, "length": 64},
)
