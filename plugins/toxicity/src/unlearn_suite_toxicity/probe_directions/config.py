"""Options of probe-directions. Light: no torch."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from unlearn_suite import Config, ObjectiveSpec


class ProbeDirectionsConfig(Config):
    """Options of `probe-directions`; the symbols are those of docs/explanation/probe-directions.md."""

    blocks: tuple[int, ...] | None = None
    """blocks S whose outputs are probed and steered, 0-based (none: five, evenly spaced from 0.2 to 0.73 of the
    depth)"""
    source: Literal["on-policy", "static"] = "on-policy"
    """text the probes are fitted on and the loss is taken on: the model's own continuations of the role
    `prompts`, labelled by `scorer`; or the roles `forget` and `retain` as they are. Without a role `prompts`
    it is always static"""
    scorer: Literal["profanity-check", "detoxify"] = "profanity-check"
    """who labels the model's own continuations"""
    samples: int = Field(8, ge=1)
    """continuations per prompt"""
    max_new_tokens: int = Field(20, ge=1)
    """tokens per continuation"""
    top_p: float = Field(0.9, gt=0, le=1)
    """nucleus of the sampling"""
    toxic_from: float = Field(0.5, ge=0, le=1)
    """score from which a continuation counts as toxic"""
    benign_to: float = Field(0.25, ge=0, le=1)
    """score up to which a continuation counts as benign; those between are not used"""
    probe_texts: int = Field(400, ge=20)
    """texts of each class at most, taken evenly by hash"""
    direction: Literal["logistic", "diffmean"] = "logistic"
    """v: the weight vector of the probe, or the difference of the class means"""
    loss: Literal["hinge", "counterfactual"] = "hinge"
    """P1: hinge on the projection; P5: distance to the activation with its toxic part removed"""
    kappa: float = Field(0.0)
    """how many standard deviations above the benign mean the hinge starts"""
    retain_weight: float = Field(10.0, ge=0)
    """a_R: weight of the relative squared error on retain text"""
    perp_weight: float = Field(5.0, ge=0)
    """a_perp: weight of the squared change of toxic activations outside v (hinge only)"""
    kl_weight: float = Field(1.0, ge=0)
    """b_KL: weight of KL(reference || policy) on retain text, nats per token"""
    kl_every: int = Field(4, ge=1)
    """steps between two KL terms (they need the whole depth); each counts `kl_every` times"""
    general_share: float = Field(0.5, ge=0, le=1)
    """share of the retain examples that come from the role `retain` rather than from benign continuations"""


SPEC = ObjectiveSpec(
    name="probe-directions",
    summary="Remove the component along layer-specific probe directions from what the model writes",
    load="unlearn_suite_toxicity.probe_directions.objective:ProbeDirections",
    config=ProbeDirectionsConfig,
    optional_roles=("prompts",),
    train={"steps": 40, "lr": 1e-4, "batch": 8, "length": 64, "warmup": 4},
    paper="arXiv:2605.26454 (reconstruction)",
    fidelity="reconstruction",
)
