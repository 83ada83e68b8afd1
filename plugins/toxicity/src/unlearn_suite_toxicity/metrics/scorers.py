"""Toxicity scorers: texts in, one number in [0, 1] per text out. For metrics and objectives alike."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

from pydantic import model_validator

from unlearn_suite import Config, PrerequisiteError

ScorerName = Literal["profanity-check", "detoxify"]
DetoxifyModel = Literal["original", "unbiased", "multilingual"]

BATCH = 32
"""texts per forward pass of a classifier"""
USUAL_LABELS = ("toxicity", "toxic", "hate", "LABEL_1")


class ScorerConfig(Config):
    """A scorer with its options."""

    name: Literal["profanity-check", "detoxify", "classifier"]
    """profanity-check: a linear model of words; detoxify: one of its models; classifier: any sequence classifier, such
    as s-nlp/roberta_toxicity_classifier or tomh/toxigen_roberta"""
    model: DetoxifyModel = "original"
    """which of Detoxify's models (fetched from the network)"""
    checkpoint: Path | None = None
    """Detoxify checkpoint on disk, used instead of `model`"""
    config_folder: Path | None = None
    """folder with config.json and tokenizer of the checkpoint's architecture"""
    folder: Path | None = None
    """Hugging Face folder of the classifier"""
    hf: str | None = None
    """id of the classifier on the Hugging Face hub, used instead of `folder`"""
    revision: str | None = None
    """commit of the hub repository"""
    label: str | None = None
    """label whose probability is the toxicity (none = the first of toxicity, toxic, hate and LABEL_1 that it has)"""
    complement: bool = False
    """score 1 minus that probability: for a label that is the good one, such as `clean` of a gibberish detector"""

    @model_validator(mode="after")
    def _one_source(self) -> ScorerConfig:
        if (self.name == "classifier") != ((self.folder is None) != (self.hf is None)):
            raise ValueError("`name: classifier`, and nothing else, takes `folder` or `hf`, one of them")
        if self.revision is not None and self.hf is None:
            raise ValueError("only a classifier of the hub (`hf`) has a `revision`")
        if self.complement and self.label is None:
            raise ValueError("`complement` needs the `label` whose probability is taken from 1")
        return self

    def make(self) -> Scorer:
        """The scorer, made once per process. Raises `PrerequisiteError` for what is missing."""
        return make_scorer(**{key: getattr(self, key) for key in type(self).model_fields})


class Scorer(Protocol):
    """Anything that scores texts."""

    def score(self, texts: Sequence[str]) -> list[float]:
        """The toxicity of each text, 0 to 1, in the order given."""
        ...


class ProfanityCheck:
    """The linear bag-of-words classifier of `alt-profanity-check`: fast, and driven by single words."""

    def __init__(self) -> None:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                from profanity_check import predict_prob
        except ImportError as error:
            raise _missing("alt-profanity-check", "profanity") from error
        self._predict = predict_prob

    def score(self, texts: Sequence[str]) -> list[float]:
        return [float(p) for p in self._predict(list(texts))] if texts else []


class Classifier:
    """A sequence classifier with one sigmoid per label, such as Detoxify's, or with a softmax over its labels."""

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        labels: Sequence[str],
        label: str | None = None,
        device: str = "cpu",
        *,
        softmax: bool = False,
        complement: bool = False,
    ) -> None:
        label = label or next((name for name in USUAL_LABELS if name in labels), "toxicity")
        if label not in labels:
            raise PrerequisiteError(
                f"the classifier has no label {label!r}",
                code="no-such-label",
                hint="it has " + ", ".join(labels),
            )
        self._model = model.to(device).eval()
        self._tokenizer = tokenizer
        self._index = list(labels).index(label)
        self._softmax = softmax
        self._complement = complement

    def score(self, texts: Sequence[str]) -> list[float]:
        import torch

        # Neighbours of similar length: little padding, and the same scores.
        order = sorted(range(len(texts)), key=lambda index: len(texts[index]))
        scores = [0.0] * len(texts)
        for start in range(0, len(order), BATCH):
            part = order[start : start + BATCH]
            with torch.no_grad():
                inputs = self._tokenizer(
                    [texts[index] for index in part], return_tensors="pt", truncation=True, padding=True
                )
                logits_bl = self._model(**inputs.to(self._model.device))[0].float()
            shares_bl = logits_bl.softmax(dim=1) if self._softmax else logits_bl.sigmoid()
            shares_b = shares_bl[:, self._index]
            for index, value in zip(part, (1 - shares_b if self._complement else shares_b).tolist(), strict=True):
                scores[index] = value
        return scores


@functools.cache
def make_scorer(
    name: str,
    *,
    model: DetoxifyModel = "original",
    checkpoint: Path | None = None,
    config_folder: Path | None = None,
    folder: Path | None = None,
    hf: str | None = None,
    revision: str | None = None,
    label: str | None = None,
    complement: bool = False,
) -> Scorer:
    """The scorer of this name, made once per process; the options are those of `ScorerConfig`.

    With a checkpoint or a folder nothing is downloaded. Raises `PrerequisiteError` for a missing package, file or
    network.
    """
    if name == "profanity-check":
        return ProfanityCheck()
    if name == "classifier":
        return _of_transformers(str(folder or hf), revision, label, complement)
    if checkpoint is not None:
        from .checkpoint import load_checkpoint

        return Classifier(*load_checkpoint(checkpoint, config_folder), label, complement=complement)
    return _online(model, label, complement)


def scorer_of(told: ScorerName | ScorerConfig) -> Scorer:
    """The scorer that an option names."""
    return told.make() if isinstance(told, ScorerConfig) else make_scorer(told)


def _of_transformers(source: str, revision: str | None, label: str | None, complement: bool) -> Scorer:
    """Any sequence classifier: one sigmoid per label when it was trained so, else a softmax over the labels."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    local = Path(source).is_dir()
    try:
        tokenizer = AutoTokenizer.from_pretrained(source, revision=revision, local_files_only=local)
        model = AutoModelForSequenceClassification.from_pretrained(source, revision=revision, local_files_only=local)
    except (OSError, ValueError) as error:
        raise PrerequisiteError(
            f"the classifier {source} cannot be loaded: {str(error).splitlines()[0]}",
            code="classifier",
            hint="give `folder` with config.json, weights and tokenizer, or connect to the network once",
        ) from error
    labels = [model.config.id2label[index] for index in range(model.config.num_labels)]
    several = model.config.problem_type == "multi_label_classification" or len(labels) == 1
    return Classifier(model, tokenizer, labels, label, softmax=not several, complement=complement)


def _online(model: str, label: str | None, complement: bool) -> Scorer:
    try:
        from detoxify import Detoxify
    except ImportError as error:
        raise _missing("detoxify", "detoxify") from error
    try:
        loaded = Detoxify(model)
    except OSError as error:
        raise PrerequisiteError(
            f"the weights of detoxify {model!r} cannot be fetched: {str(error).splitlines()[0]}",
            code="detoxify-weights",
            hint="connect to the network once, or give `checkpoint` and `config_folder`",
        ) from error
    return Classifier(loaded.model, loaded.tokenizer, loaded.class_names, label, complement=complement)


def _missing(package: str, extra: str) -> PrerequisiteError:
    return PrerequisiteError(
        f"{package} is not installed", code="missing-package", hint=f"pip install 'unlearn-suite[{extra}]'"
    )
