"""DPO towards "I don't know": the wanted answer is a refusal.

    L_f = -(2 / beta) mean log sigmoid(beta (log p(idk)/p_base(idk) - log p(y)/p_base(y))),
    L = gamma L_f + alpha L_retain

Public code: OpenUnlearning `DPO` with `QAwithIdkDataset`; TOFU's list of 100 refusals is replaced by a list of our
own. Text without a prompt is cut in two: its first words are the question (`prompt_share`), a choice of this
plugin.
"""

from __future__ import annotations

from pydantic import Field

from .dpo import DpoConfig, method

REFUSALS = (
    " I do not know.",
    " I am not sure about that.",
    " I have no information on this.",
    " That is something I cannot answer.",
    " I never learned about this.",
    " I have no idea.",
    " I am afraid I cannot help with that.",
    " This is not known to me.",
)


class IdkDpoConfig(DpoConfig):
    """Options of `idk-dpo`."""

    refusals: tuple[str, ...] = Field(REFUSALS, min_length=1)
    """the wanted answers; each forget example keeps one of them"""
    prompt_share: float = Field(0.5, gt=0, lt=1)
    """share of the words that is the question, where an example has no prompt"""


SPEC = method(
    "idk-dpo",
    "Prefer a refusal to each forget answer, relative to the base model",
    "preference:IdkDpo",
    IdkDpoConfig,
    "Maini et al. 2024 (TOFU), arXiv:2401.06121",
    "variant",
    train={"steps": 60, "lr": 1e-5, "batch": 8, "length": 64},
)
