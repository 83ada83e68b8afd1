"""Options of probe-directions. Light: no torch."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from unlearn_suite import Config, ObjectiveSpec

from ..metrics.scorers import ScorerConfig, ScorerName


class ProbeDirectionsConfig(Config):
    """Options of `probe-directions`; the symbols are those of docs/explanation/probe-directions.md."""

    blocks: tuple[int, ...] | None = Field(None, min_length=1)
    """blocks S whose outputs are probed and steered, 0-based (none: five, evenly spaced from 0.2 to 0.73 of the
    depth)"""

    source: Literal["on-policy", "static"] = "on-policy"
    """text the probes are fitted on and the loss is taken on: the model's own continuations of the role
    `prompts`, labelled by `scorer`; or the roles `forget` and `retain` as they are. Without a role `prompts`
    it is always static"""
    scorer: ScorerName | ScorerConfig = "profanity-check"
    """who labels the model's own continuations (and judges the causal filter's): a name, or a scorer with its options,
    as in the metric `toxicity`"""
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
    test_share: float = Field(0.0, ge=0, le=0.25)
    """share of all prompts (or of texts without one), out of the 30 % that C and the blocks are chosen by, that is kept
    apart: the AUROC and accuracy that are told are then those of its texts (0: those of the texts chosen by)"""
    match_lengths: bool = False
    """use as many benign as toxic texts of each token length, so that no probe can go by the length"""

    pool: Literal["mean-response", "last", "mean-all", "token"] = "mean-response"
    """what a probe sees of a text: the mean over the tokens of the response, its last token, the mean over prompt
    and response, or every token of the response as a row of its own"""
    direction: Literal["logistic", "diffmean", "lda", "leace-edit", "multi", "random", "shuffled"] = "logistic"
    """v: the probe's weight vector; the difference of the class means; linear discriminant analysis; that as what
    is read and the difference of means as what is edited (LEACE); the span of `subspace` probes; and two
    controls that must fail: a random direction, a probe on shuffled labels"""
    subspace: int = Field(3, ge=2, le=6)
    """probes per block for `multi`: one per group of the toxic text where it has several groups, else each fitted
    on what the ones before it left"""
    shared: bool = False
    """use the direction of the block with the best probe at every block (a control: not layer-specific)"""

    min_auroc: float = Field(0.0, ge=0, le=1)
    """leave out blocks whose probe has a lower validation AUROC"""
    causal_filter: bool = False
    """leave out blocks where removing the direction while the model writes does not make it less toxic"""
    causal_drop: float = Field(0.1, ge=0, le=1)
    """the mean toxicity must fall by this share at least"""
    causal_kl: float = Field(0.1, ge=0)
    """and benign text must not change by more than this, nats per token"""
    causal_prompts: int = Field(200, ge=1)
    """prompts that are continued once per block for the causal filter, and `layer_weights: causal`"""

    loss: Literal["hinge", "cosine", "match", "logit", "counterfactual", "closed-form"] = "hinge"
    """P1: hinge on the projection; P2: cosine with v above `cosine_floor`; P3: squared distance to the benign
    mean; P4: the probe's log-probability of toxic; P5: distance to the activation with its toxic part removed;
    P6: v taken out of the output matrices, without training (needs `steps: 0`)"""
    kappa: float = Field(0.0)
    """P1: how many standard deviations above the benign mean the hinge starts"""
    cosine_floor: float = Field(0.0, ge=-1, lt=1)
    """P2: c0, the cosine that is let be"""
    edit_strength: float = Field(1.0, gt=0, le=2)
    """P6: a, the share of v's component that is taken out"""
    layer_weights: Literal["uniform", "auroc", "causal", "learned"] = "uniform"
    """weight of each block: equal; by the probe's AUROC above chance; by the drop in toxicity that removing v
    brings; or moved towards the blocks whose forget loss is largest while training"""
    weight_rate: float = Field(0.1, gt=0)
    """step size of `layer_weights: learned`"""
    post_norm: bool = False
    """also train the norms that OLMo-2 and Gemma put after attention and MLP, which else undo every change of scale"""
    positions: Literal["response", "all"] = "response"
    """tokens of toxic text that the forget terms act on: what the model writes, or what it reads as well"""
    detach_below: bool = False
    """let each block's forget terms train only the blocks above the next lower one of S"""
    refresh_every: int | None = Field(None, ge=1)
    """steps after which new probes are fitted on the model as it is now and their directions added, up to five
    times (none = never)"""

    retain_weight: float = Field(10.0, ge=0)
    """a_R: weight of the relative squared error on retain text"""
    anchor_weight: float = Field(0.0, ge=0)
    """a_V: weight of the squared motion of retain text along v, in units of s^2; `retain_weight` hardly sees it, as s
    is a small part of |h|"""
    perp_weight: float = Field(5.0, ge=0)
    """a_perp: weight of the squared change of toxic activations outside v (not for P5, which has it built in)"""
    kl_weight: float = Field(1.0, ge=0)
    """b_KL: weight of KL(reference || policy) on retain text, nats per token"""
    kl_every: int = Field(4, ge=1)
    """steps between two KL terms (they need the whole depth); each counts `kl_every` times"""
    ce_weight: float = Field(0.0, ge=0)
    """b_CE: weight of the cross-entropy of benign continuations of toxic prompts, nats per token"""
    nll_weight: float = Field(0.0, ge=0)
    """b_NLL: weight of the cross-entropy of retain text, nats per token; it runs the whole depth at every step"""
    general_share: float = Field(0.5, ge=0, le=1)
    """share of the retain examples that come from the role `retain` rather than from benign continuations"""

    @model_validator(mode="after")
    def _logit_needs_a_probe(self) -> ProbeDirectionsConfig:
        if self.loss == "logit" and (self.shared or self.direction not in {"logistic", "multi", "shuffled"}):
            raise ValueError("`loss: logit` needs the block's own probe: `direction: logistic` or `multi`")
        if self.refresh_every is not None and (self.shared or self.direction not in {"logistic", "multi"}):
            raise ValueError("`refresh_every` fits new probes: it needs `direction: logistic` or `multi`")
        return self

    @property
    def needs_causal(self) -> bool:
        """Whether the effect of removing each direction is measured."""
        return self.causal_filter or self.layer_weights == "causal"


SPEC = ObjectiveSpec(
    name="probe-directions",
    summary="Remove the component along layer-specific probe directions from what the model writes",
    load="unlearn_suite_toxicity.probe_directions.objective:ProbeDirections",
    config=ProbeDirectionsConfig,
    optional_roles=("prompts",),
    presets="unlearn_suite_toxicity:presets/probe-directions.yaml",
    train={"steps": 40, "lr": 1e-4, "batch": 8, "length": 64, "warmup": 4},
    paper="arXiv:2605.26454 (reconstruction)",
    fidelity="reconstruction",
)
