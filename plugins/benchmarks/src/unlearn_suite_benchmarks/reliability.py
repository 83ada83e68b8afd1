"""What a meta-evaluation found of the field's measures, to stand beside them on the page."""

from __future__ import annotations


def studied(auc: str, relearnt: str, rounded: str) -> str:
    """The findings of arXiv:2605.24614 on 150 models: faithfulness, and robustness to relearning and to rounding."""
    return (
        f"tells models that know a text from models that never saw it with AUC {auc}; its verdict lasts to {relearnt} "
        f"after an epoch of relearning, to {rounded} after rounding to 4 bits (150 models, arXiv:2605.24614)"
    )
