"""Toxicity scorers: texts in, one number in [0, 1] per text out. For metrics and objectives alike."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

from unlearn_suite import PrerequisiteError

ScorerName = Literal["profanity-check", "detoxify"]
DetoxifyModel = Literal["original", "unbiased", "multilingual"]

BATCH = 32
"""texts per forward pass of a classifier"""


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
    """A sequence classifier with one sigmoid per label, such as Detoxify's."""

    def __init__(self, model: Any, tokenizer: Any, labels: Sequence[str], label: str, device: str = "cpu") -> None:
        if label not in labels:
            raise PrerequisiteError(
                f"the classifier has no label {label!r}",
                code="no-such-label",
                hint="it has " + ", ".join(labels),
            )
        self._model = model.to(device).eval()
        self._tokenizer = tokenizer
        self._index = list(labels).index(label)

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
                logits_bl = self._model(**inputs.to(self._model.device))[0]
            for index, value in zip(part, logits_bl[:, self._index].float().sigmoid().tolist(), strict=True):
                scores[index] = value
        return scores


@functools.cache
def make_scorer(
    name: ScorerName,
    *,
    model: DetoxifyModel = "original",
    checkpoint: Path | None = None,
    config_folder: Path | None = None,
    label: str = "toxicity",
) -> Scorer:
    """The scorer of this name, made once per process.

    `model`, `checkpoint`, `config_folder` and `label` are for `detoxify`: with a checkpoint nothing is
    downloaded. Raises `PrerequisiteError` for a missing package, file or network.
    """
    if name == "profanity-check":
        return ProfanityCheck()
    if checkpoint is not None:
        from .checkpoint import load_checkpoint

        return Classifier(*load_checkpoint(checkpoint, config_folder), label)
    return _online(model, label)


def _online(model: str, label: str) -> Scorer:
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
    return Classifier(loaded.model, loaded.tokenizer, loaded.class_names, label)


def _missing(package: str, extra: str) -> PrerequisiteError:
    return PrerequisiteError(
        f"{package} is not installed", code="missing-package", hint=f"pip install 'unlearn-suite[{extra}]'"
    )
