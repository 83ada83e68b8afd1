"""How much of a text a model has by heart, and whether its likelihood tells what it was trained on."""

from __future__ import annotations

from unlearn_suite import DatasetSpec, MetricSpec, ProblemSpec, ValueSpec

from ..reliability import studied
from .config import ExtractionConfig, MatchConfig, MiaConfig
from .passages import PassagesConfig


def _auc(score: str, *found: str) -> ValueSpec:
    known = studied(*found) if found else ""
    return ValueSpec(f"AUC of: {score}", chance=0.5, lowest=0, highest=1, aggregate="auc", reliability=known)


SPECS = (
    DatasetSpec(
        name="passages",
        summary="Any text as passages, whole or as beginnings with continuations, a share of them kept out",
        load=f"{__name__}.passages:load",
        config=PassagesConfig,
    ),
    ProblemSpec(
        name="verbatim",
        summary="Forget passages of a text that the model has by heart; keep plain English",
        fragment=f"{__name__}:problems/verbatim.yaml",
    ),
    ProblemSpec(
        name="custom",
        summary="Forget the texts of forget.jsonl, keep those of retain.jsonl and plain English",
        fragment=f"{__name__}:problems/custom.yaml",
    ),
    ProblemSpec(
        name="verbatim-finetuned",
        summary="Teach a model a text, then forget passages of it; keep plain English",
        fragment=f"{__name__}:problems/verbatim-finetuned.yaml",
    ),
    ProblemSpec(
        name="custom-finetuned",
        summary="Teach a model both files of a folder, then forget the texts of forget.jsonl; keep the others",
        fragment=f"{__name__}:problems/custom-finetuned.yaml",
    ),
    MetricSpec(
        name="extraction-strength",
        summary="share of a text that the model writes by itself once it is given the rest",
        load=f"{__name__}.matches:ExtractionStrength",
        config=ExtractionConfig,
        by_example=True,
        paper="arXiv:2406.09179",
        values={
            "strength": ValueSpec(
                "1 - k / n, k the tokens that must be given before all others are the most probable ones",
                better="higher",
                lowest=0,
                highest=1,
                reliability=studied(".89", ".66", ".97"),
            )
        },
    ),
    MetricSpec(
        name="exact-memorisation",
        summary="share of a text's tokens that are the most probable one after what comes before",
        load=f"{__name__}.matches:ExactMemorisation",
        config=MatchConfig,
        by_example=True,
        paper="arXiv:2205.10770",
        values={
            "share": ValueSpec(
                "share of the tokens",
                better="higher",
                lowest=0,
                highest=1,
                reliability=studied(".82", ".45", ".98"),
            )
        },
    ),
    MetricSpec(
        name="mia",
        summary="membership inference: do scores tell texts of the group member from those of the group non-member?",
        load=f"{__name__}.mia:Mia",
        config=MiaConfig,
        by_example=True,
        paper="arXiv:2310.16789 (min-k), arXiv:2404.02936 (min-k++), arXiv:2012.07805 (zlib, reference)",
        values={
            "min-k": _auc("minus the mean of the lowest `k` of the tokens' log-probabilities", ".91", ".37", ".87"),
            "min-k-plus-plus": _auc("the same, each log-probability standardised at its position", ".82", ".28", ".80"),
            "loss": _auc("mean negative log-likelihood per token", ".90", ".36", ".89"),
            "zlib": _auc("loss / bytes of the compressed text", ".87", ".33", ".89"),
            "reference": _auc("loss minus that of the `reference` model"),
            "gradnorm": _auc("mean over the parameter tensors of the norm of the loss's gradient"),
            "privleak": ValueSpec(
                "distance of the AUC of min-k from that of a model that never saw the members; 0 is ideal, below: the "
                "texts still look known, above: they stand out as forgotten (arXiv:2407.06460)",
                unit="%",
                lowest=-100,
                versus="privleak",
                of="min-k",
            ),
        },
    ),
)
