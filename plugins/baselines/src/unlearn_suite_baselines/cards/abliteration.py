"""Direction removal in closed form (abliteration): what writes into the residual stream can no longer write along r.

    r = mean h_l(forget) - mean h_l(retain), normalised;   W <- (I - r r^T) W  for every W_O and W_down
    b <- b - r r^T b  for their biases, where the model has them;   E <- E (I - r r^T)  for embeddings

Means over response tokens of one block's output. The paper chooses block and position by tests on refusals, among
directions that keep KL on harmless text within 0.1; here, among blocks at a fifth to four fifths of the depth, the
one that raises the forget loss most within that bound (none: nothing is removed, and that is said). E is the token
embedding, and the learned positions of GPT-2 and OPT. On models whose blocks end in a norm (OLMo-2, Gemma 2 and 3) the
norm's weights can bring r back.
"""

from __future__ import annotations

from pydantic import Field

from unlearn_suite import Config

from .common import method


class AbliterationConfig(Config):
    """Options of `abliteration`."""

    block: int | None = Field(None, ge=0)
    """block whose output gives the direction, 0-based (none: the best of seven depths)"""
    max_kl: float | None = Field(0.1, gt=0)
    """largest mean KL(base || model) on a retain batch, nats per token (none: not measured, the last candidate)"""
    embeddings: bool = True
    """remove the direction from the embeddings of tokens, and of positions where they are learned, too"""
    strength: float = Field(1.0, gt=0, le=2)
    """1 removes the direction, 2 reflects it"""
    texts: int = Field(128, ge=2)
    """examples of each role that the means are taken over"""


SPEC = method(
    "abliteration",
    "Remove the difference of forget and retain activations from everything that writes to the residual stream",
    "directions:Abliteration",
    AbliterationConfig,
    "Arditi et al. 2024, arXiv:2406.11717",
    "variant",
    train={"steps": 1, "batch": 8, "length": 64},
)
