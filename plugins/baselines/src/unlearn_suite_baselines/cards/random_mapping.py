"""Random mapping: every forget token's activations turn to a random vector of that token, at every block.

    L = NLL(x_r) + mean_{l, t} (1 - |cos(h_l(x_f)_t, R[id_t])|),   R ~ N(0, 1)^{V x D}

The safeguard that TAR starts from (there it also acts on the embeddings, and averages over padding and first tokens).
R's rows are drawn when they are needed, from the stage's seed and the token's id.
"""

from __future__ import annotations

from pydantic import Field

from .common import Trains, method


class RandomMappingConfig(Trains):
    """Options of `random-mapping`."""

    retain_weight: float = Field(1.0, ge=0)
    """weight of the next-token loss on retain text"""


SPEC = method(
    "random-mapping",
    "Turn every forget token's activations to a random vector of that token, train on retain text",
    "random_mapping:RandomMapping",
    RandomMappingConfig,
    "Tamirisa et al. 2024 (TAR), arXiv:2408.00761",
    "faithful",
    train={"steps": 40, "lr": 2e-5, "batch": 8, "length": 64},
)
