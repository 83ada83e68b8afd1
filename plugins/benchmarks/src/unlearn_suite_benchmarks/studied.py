"""What a published study found of measures, as `ValueSpec.reliability`."""

from __future__ import annotations


def studied(auc: str, relearnt: str, rounded: str) -> str:
    """The three figures of arXiv:2605.24614 for one measure."""
    return (
        f"tells models that know a text from models that never saw it with AUC {auc}; its verdict lasts to {relearnt} "
        f"after an epoch of relearning, to {rounded} after rounding to 4 bits (150 models, arXiv:2605.24614)"
    )
