"""Direct preference optimisation on pairs: a wanted and an unwanted answer to one prompt.

    L_f = -(2 / beta) mean log sigmoid(beta (log p(w)/p_base(w) - log p(l)/p_base(l))),   L = gamma L_f + alpha L_retain

l is the forget example, w its alternate: an example of the optional role `alternate`, else of `retain`, with the
same `unit` and prompt (everyday-toxicity brings benign continuations of its toxic prompts). Forget examples without
an alternate are left out. The factor 2 / beta is NPO's and OpenUnlearning's; Rafailov et al. have none. Lee et al.
(arXiv:2401.01967) use it for toxicity with RMSprop at 1e-6 and no retain loss.
"""

from __future__ import annotations

from pydantic import Field

from .common import Retains, method


class DpoConfig(Retains):
    """Options of `dpo`."""

    beta: float = Field(0.1, gt=0)
    """inverse temperature, per nat"""


SPEC = method(
    "dpo",
    "Prefer each forget example's alternate (same prompt) to it, relative to the base model",
    "preference:Dpo",
    DpoConfig,
    "Rafailov et al. 2023, arXiv:2305.18290; toxicity: Lee et al. 2024, arXiv:2401.01967",
    "faithful",
    optional_roles=("alternate",),
    train={"steps": 60, "lr": 1e-5, "batch": 8, "length": 64},
)
