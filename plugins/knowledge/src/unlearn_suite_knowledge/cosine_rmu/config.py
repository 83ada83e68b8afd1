"""Options of cosine-rmu. Light: no torch."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from unlearn_suite import Config, ObjectiveSpec

Direction = Literal["gauss_orth", "gauss", "rand_pos", "token_hash", "per_doc", "neg_mean"]
ForgetForm = Literal["toward", "away", "both", "abs", "diverse", "mse"]
RetainForm = Literal["rel_mse", "mse_rmu", "cos", "kl", "nll"]
Meta = Literal["relearn", "generalise", "benign", "weight"]


class CosineRmuConfig(Config):
    """Options of `cosine-rmu`; the symbols are those of docs/explanation/cosine-rmu.md."""

    block: int | None = Field(None, ge=0)
    """block l* whose output is steered, 0-based (none: 0.22 of the depth, rounded)"""
    width: int = Field(3, ge=1)
    """how many blocks are trained (their MLP output matrices), ending at `block`"""
    post_norm: bool = False
    """also train the norm that OLMo-2 and Gemma put after the MLP, which else undoes every change of scale"""
    direction: Direction = "gauss_orth"
    """target direction u. One for each topic: gauss_orth (Gaussian, orthogonal to the mean activations and top
    components), gauss (plain Gaussian), rand_pos (uniform on the positive orthant, as in RMU's code), neg_mean
    (from the forget mean to the retain mean). Many: token_hash (one for each token), per_doc (for each text)"""
    forget_form: ForgetForm = "toward"
    """L_F: toward ([mu - cos(h, u)]_+), away ([cos(h, h_ref)]_+, without u), both (toward + 0.5 away), abs
    (1 - |cos(h, u)|), diverse (toward + 0.1 of the mean [cos]_+ between the batch's texts; for token_hash, per_doc),
    mse (|h - s |h_ref| u|^2 / |h_ref|^2, adaptive RMU token by token: the control that is not cosine-based)"""
    scale: float = Field(5.0, gt=0)
    """s of `forget_form: mse`: norm of its target over the base model's (5 as in arXiv:2408.06223)"""
    margin: float = Field(0.95, gt=0, le=1)
    """mu: cosine with u that is enough; 1 asks for ever larger norms"""
    retain_form: RetainForm = "rel_mse"
    """L_R: rel_mse (relative squared error), mse_rmu (mean squared error, as RMU), cos (1 - cosine, and 0.1 of the
    squared log norm ratio), kl (of the predictions, from the base model's), nll (next-token loss)"""
    retain_weight: float = Field(50.0, ge=0)
    """a: weight of L_R; 50 is for rel_mse, RMU has 1200 for mse_rmu, kl and nll are in nats (start at 1)"""
    kl_weight: float = Field(0.0, ge=0)
    """weight of a further KL on retain predictions every `kl_every` steps (0.1 is a start)"""
    kl_every: int = Field(4, ge=1)
    """steps from one further KL to the next"""
    norm_guard: float = Field(0.1, ge=0)
    """lambda_N: weight of the penalty on norm ratios outside [0.5, 4] (not for `mse`, whose target has a norm)"""
    meta: Literal["none"] | Meta | tuple[Meta, ...] = "relearn"
    """one or a list of: relearn (the forget loss must also be low after simulated relearning), benign (also after
    fine-tuning on retain text), generalise (an unlearning step on some facts must help on others), weight (a is
    adapted by `weight_rule`)"""
    meta_weight: float = Field(1.0, ge=0)
    """gamma: weight of the meta-gradient, which is clipped to the norm of the plain forget gradient"""
    meta_start: float = Field(0.3, ge=0, lt=1)
    """share of the steps before the meta-gradient sets in; it is at full weight after as much again"""
    fork_every: int = Field(1, ge=1)
    """steps between two meta-gradients, or between two changes of a by `weight_rule: bilevel`"""
    order: Literal["first", "finite-difference", "exact", "reptile"] = "first"
    """of the meta-gradient: first (without the Hessians of the inner steps), finite-difference (with them, by central
    differences), exact (tiny models); both need fp32 and `sgd` or `sgd_norm`. reptile (only with `generalise`): none,
    but phi - psi_K, the way of `inner_steps` unlearning steps on L_F, gone backwards"""
    inner_steps: int = Field(4, ge=0)
    """K: steps of the simulated attacker, or of `order: reptile` (0: none, and no such meta-gradient)"""
    inner_loss: Literal["ce", "rep"] = "ce"
    """what relearning minimises: next-token loss on forget text; or (cheap, nothing above `block` is run) the
    relative distance of its activations to the base model's"""
    inner_optimizer: Literal["sgd", "sgd_norm", "adamw"] = "sgd_norm"
    """plain or normalised gradient steps, or AdamW from a fresh state"""
    inner_lr: tuple[float, float] = (1e-3, 5e-3)
    """range the rate of inner and virtual steps is drawn from (log-uniform): relative displacement per step for
    `sgd_norm`, learning rate for `sgd` and `adamw`"""
    inner_tensors: Literal["same", "lora", "all"] = "same"
    """what the attacker moves: the trained tensors, fresh adapters on every linear map, or every weight"""
    inner_rank: int = Field(8, ge=1)
    """rank of the attacker's adapters (`lora` only)"""
    attack_texts: Literal["shared", "apart"] = "shared"
    """whether the plain L_F also reads the half of the forget texts that the attacker (or the unlearning step of
    `generalise`) has: shared, or apart (only what is measured after it: all must be forgotten by way of the rest)"""
    benign_share: float = Field(0.25, ge=0, le=1)
    """share of relearn's attacks that fine-tune on retain text instead of forget text (`rep`: only when `meta`
    lists benign as well, as such text has nothing to win back there)"""
    weight_rule: Literal["dual", "bilevel"] = "dual"
    """how `weight` adapts a: dual (up while L_R is above `retain_target`, else down), bilevel (down the slope of
    V = L_F + c L_R on held-out text after a virtual unlearning step; needs `sgd` or `sgd_norm`)"""
    retain_target: float = Field(0.01, ge=0)
    """epsilon: the L_R that `dual` aims at"""
    retain_weight_lr: float = Field(100.0, gt=0)
    """eta_a: `dual` adds this times (L_R - epsilon) to a after every step; a is never below 0"""
    validation_share: float = Field(0.2, gt=0, lt=1)
    """share of the units of forget and retain text that `bilevel` reads V on, and that are not trained on"""
    validation_weight: float | None = Field(None, gt=0)
    """c: what held-out L_R counts against held-out L_F in V (none: `retain_weight`)"""
    validation_lr: float = Field(0.1, gt=0)
    """eta_v: the most by which log a changes at a time under `bilevel`; a stays within 100 times of where it began"""

    @property
    def kinds(self) -> frozenset[str]:
        """The readings of "meta-learned" that are switched on."""
        given = (self.meta,) if isinstance(self.meta, str) else self.meta
        return frozenset(given) - {"none"}

    @property
    def attacks(self) -> bool:
        return bool(self.kinds & {"relearn", "benign"}) and self.inner_steps > 0

    @property
    def generalises(self) -> bool:
        return "generalise" in self.kinds and (self.order != "reptile" or self.inner_steps > 0)

    @property
    def bilevel(self) -> bool:
        """Whether a follows a validation split."""
        return "weight" in self.kinds and self.weight_rule == "bilevel"

    @property
    def trade_off(self) -> float:
        """c"""
        return self.retain_weight if self.validation_weight is None else self.validation_weight

    @property
    def reads_logits(self) -> bool:
        """Whether anything above `block` is ever run, or may be moved by the attacker."""
        deep = self.inner_loss == "ce" or "benign" in self.kinds or self.inner_tensors != "same"
        attack_reads = self.attacks and deep
        return attack_reads or self.retain_form in ("kl", "nll") or self.kl_weight > 0

    @model_validator(mode="after")
    def _consistent(self) -> CosineRmuConfig:
        low, high = self.inner_lr
        if not 0 < low <= high:
            raise ValueError("inner_lr must be two positive rates, the smaller first")
        if not isinstance(self.meta, str) and len(set(self.meta)) < max(len(self.meta), 1):
            raise ValueError("meta as a list names each reading once; for no meta-learning write none")
        if self.order == "reptile":
            if "generalise" not in self.kinds or self.kinds & {"relearn", "benign"}:
                raise ValueError("order: reptile needs meta: generalise, without relearn and benign")
        elif self.order != "first" and self.inner_optimizer == "adamw":
            raise ValueError(f"order: {self.order} goes through sgd or sgd_norm, not through adamw")
        if self.weight_rule == "bilevel":
            self._check_bilevel()
        if self.forget_form == "diverse" and self.direction not in ("token_hash", "per_doc"):
            raise ValueError("forget_form: diverse contradicts one shared direction; use token_hash or per_doc")
        return self

    def _check_bilevel(self) -> None:
        if "weight" not in self.kinds:
            raise ValueError("weight_rule: bilevel needs weight in meta")
        if self.inner_optimizer == "adamw":
            raise ValueError("weight_rule: bilevel goes through sgd or sgd_norm, not through adamw")
        if self.retain_weight == 0:
            raise ValueError("weight_rule: bilevel changes a by factors; retain_weight must be above 0")


SPEC = ObjectiveSpec(
    name="cosine-rmu",
    summary="Turn forget activations towards a fixed direction, keep the others, also after simulated relearning",
    load="unlearn_suite_knowledge.cosine_rmu.objective:CosineRmu",
    config=CosineRmuConfig,
    train={"steps": 60, "lr": 3e-4, "batch": 8, "length": 64},
    paper="arXiv:2605.26454 (reconstruction); RMU: arXiv:2403.03218",
    fidelity="reconstruction",
    presets="unlearn_suite_knowledge:presets/cosine-rmu.yaml",
)
