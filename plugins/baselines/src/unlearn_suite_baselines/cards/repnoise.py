"""RepNoise: make forget activations look like Gaussian noise at every depth, while ascending on their loss.

    L = NLL(x_r) + beta mean_l MMD(h_l(x_f), N(0, I)) - alpha log(1 + mean_l CE(lens_l(x_f)))

MMD: Gaussian kernels of five widths around the mean distance, on each example's response activations as one vector.
lens_l: final norm and LM head on block l's output (the last one: the logits). The paper and its code
(domenicrosati/representation-noising) take the MLPs' outputs for the MMD; here the residual stream. The code masks
tokens in which paired harmful and harmless texts differ, in the retain loss too; here the response. Its CE sets the
logits before the first of them to 0 (log V, without a gradient) and ignores token id 0; its lens reads the embeddings
too, and norms the last state twice; its sum has one term more than its divisor.
"""

from __future__ import annotations

from pydantic import Field

from .common import Trains, method


class RepNoiseConfig(Trains):
    """Options of `repnoise`."""

    alpha: float = Field(1.0, ge=0)
    """weight of the ascent on forget text"""
    beta: float = Field(1e-3, ge=0)
    """weight of the noise loss"""
    every: int = Field(1, ge=1)
    """depth: every so many blocks, the last one always (1: all, as published)"""


SPEC = method(
    "repnoise",
    "Make forget activations look like noise at every depth, ascend on their loss, train on retain text",
    "repnoise:RepNoise",
    RepNoiseConfig,
    "Rosati et al. 2024, arXiv:2405.14577",
    "variant",
    train={"steps": 40, "lr": 1e-5, "batch": 4, "length": 64},
)
