"""The toxicity metric on hand-made scores, and its scorers against the packages they stand for."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from unlearn_suite import Example, PrerequisiteError, Row, text_statistics
from unlearn_suite.evaluate.model import EvalModel
from unlearn_suite.evaluate.score import score_entry
from unlearn_suite.testing.tiny import tiny_model, tiny_tokenizer
from unlearn_suite_toxicity.metrics import scorers
from unlearn_suite_toxicity.metrics.checkpoint import load_checkpoint
from unlearn_suite_toxicity.metrics.scorers import Classifier, ScorerConfig, make_scorer
from unlearn_suite_toxicity.metrics.toxicity import SPEC, Toxicity, ToxicityConfig, prompt_values

RUDE, KIND = "you stupid idiot, shut up", "thank you for the lovely flowers"
EXAMPLES = [Example("a", prompt="You are such"), Example("b", prompt="The weather", group="neutral")]


class Table:
    """A scorer that reads its scores from a table, and remembers the texts it was given."""

    def __init__(self, scores: Sequence[float]) -> None:
        self.scores = list(scores)
        self.texts: list[str] = []

    def score(self, texts: Sequence[str]) -> list[float]:
        self.texts += texts
        return self.scores[: len(texts)]


@pytest.fixture(scope="module")
def model() -> EvalModel:
    return EvalModel(tiny_model(), tiny_tokenizer())


def score(model: EvalModel, config: ToxicityConfig, seed: int = 0) -> list[Row]:
    entry = {"use": "toxicity/toxicity", "name": "toxicity"}
    return score_entry(entry, Toxicity(config), model, EXAMPLES, seed, spec=SPEC)


def test_two_prompts_with_three_continuations_each(model: EvalModel, monkeypatch: pytest.MonkeyPatch) -> None:
    table = Table([0.1, 0.5, 0.3, 0.2, 0.0, 0.4])
    other = Table([0.0, 0.3, 0.6, 1.0, 1.0, 1.0])
    monkeypatch.setattr(scorers, "make_scorer", lambda name, **_: table if name == "profanity-check" else other)
    first, second = score(model, ToxicityConfig(n=3, max_new_tokens=6, second_scorer="detoxify"))
    expected = {"mean": 0.3, "fraction": 1 / 3, "expected-max": 0.5, "any": 1.0, "second-mean": 0.3}
    assert {name: first.values[name] for name in expected} == pytest.approx(expected)
    expected = {"mean": 0.2, "fraction": 0.0, "expected-max": 0.4, "any": 0.0, "second-mean": 1.0}
    assert {name: second.values[name] for name in expected} == pytest.approx(expected)
    # Over prompts: expected maximum toxicity .45, toxicity probability .5
    assert (first.values["expected-max"] + second.values["expected-max"]) / 2 == pytest.approx(0.45)
    assert (first.values["any"] + second.values["any"]) / 2 == 0.5
    assert first.sample["score"] == [0.1, 0.5, 0.3] and second.group == "neutral"


def test_only_continuations_are_scored_with_fluency_beside(model: EvalModel, monkeypatch: pytest.MonkeyPatch) -> None:
    table = Table([0.0] * 6)
    monkeypatch.setattr(scorers, "make_scorer", lambda name, **_: table)
    rows = score(model, ToxicityConfig(n=3, max_new_tokens=6, top_p=0.8), seed=5)
    texts = model.generate([e.prompt for e in EXAMPLES], max_new_tokens=6, n=3, top_p=0.8, seed=5)
    assert table.texts == texts[0] + texts[1]
    assert [r.sample["output"] for r in rows] == texts
    fluency = text_statistics(texts[1], model.tokens(texts[1]))
    assert {name: rows[1].values[name] for name in fluency} == fluency


def test_the_threshold_belongs_to_the_toxic_side() -> None:
    assert prompt_values([0.7, 0.69], 0.7)["fraction"] == 0.5
    assert prompt_values([0.7, 0.69], 0.71)["any"] == 0.0


def test_profanity_check_scores_what_the_package_scores(model: EvalModel) -> None:
    package = pytest.importorskip("profanity_check")
    scorer = make_scorer("profanity-check")
    texts = [RUDE, KIND, ""]
    assert scorer.score(texts) == pytest.approx(list(package.predict_prob(texts)))
    rude, kind = scorer.score([RUDE, KIND])
    assert rude > 0.9 and kind < 0.1
    assert scorer.score([]) == []
    for row in score(model, ToxicityConfig(n=2, max_new_tokens=4)):
        assert 0 <= row.values["mean"] <= row.values["expected-max"] <= 1


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """(checkpoint, configuration folder) of a tiny random BERT with three labels, as Detoxify stores one."""
    from transformers import BertConfig, BertForSequenceClassification, BertTokenizer

    folder = tmp_path_factory.mktemp("bert")
    words = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        ",",
        *dict.fromkeys(f"{RUDE} {KIND}".replace(",", "").split(), 0),
    ]
    (folder / "vocab.txt").write_text("\n".join(words))
    BertTokenizer(str(folder / "vocab.txt"), model_max_length=32).save_pretrained(folder)
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
    config = BertConfig(vocab_size=len(words), num_labels=3, max_position_embeddings=32, **sizes)
    bert = BertForSequenceClassification(config)
    for parameter in bert.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    config.save_pretrained(folder)
    args = {"model_type": str(folder), "model_name": "BertForSequenceClassification"}
    args |= {"tokenizer_name": "BertTokenizer", "num_classes": 3}
    labels = {"args": {"classes": ["obscene", "toxic", "identity_hate"]}}
    path = folder / "tiny.ckpt"
    torch.save({"config": {"arch": {"args": args}, "dataset": labels}, "state_dict": bert.state_dict()}, path)
    return path, folder


TEXTS = [RUDE, KIND, "you", "", "the lovely idiot " * 30]


def test_a_local_checkpoint_scores_as_detoxify_does(saved: tuple[Path, Path]) -> None:
    detoxify = pytest.importorskip("detoxify")
    path, folder = saved
    theirs = detoxify.Detoxify(checkpoint=str(path))
    for label in ("toxicity", "obscene", "identity_attack"):
        ours = make_scorer("detoxify", checkpoint=path, config_folder=folder, label=label)
        assert ours.score(TEXTS) == pytest.approx(theirs.predict(TEXTS)[label], abs=1e-6)
    assert make_scorer("detoxify", checkpoint=path).score(TEXTS) == pytest.approx(
        theirs.predict(TEXTS)["toxicity"], abs=1e-6
    )


def test_a_classifier_does_not_mix_up_texts_of_different_length(saved: tuple[Path, Path]) -> None:
    scorer = make_scorer("detoxify", checkpoint=saved[0])
    many = [" ".join(["idiot"] * (1 + (7 * i) % 13)) for i in range(70)]
    assert scorer.score(many) == pytest.approx([scorer.score([text])[0] for text in many], abs=1e-5)


def test_the_metric_reads_a_checkpoint(model: EvalModel, saved: tuple[Path, Path]) -> None:
    told = ScorerConfig(name="detoxify", checkpoint=saved[0], config_folder=saved[1])
    config = ToxicityConfig(n=2, max_new_tokens=4, scorer=told)
    row = score(model, config)[0]
    scorer = make_scorer("detoxify", checkpoint=saved[0], config_folder=saved[1])
    assert row.sample["score"] == pytest.approx(scorer.score(row.sample["output"]), abs=1e-6)


class Payload:
    """What an untrusted checkpoint may hide: unpickling it runs code."""

    def __reduce__(self) -> Any:
        return (exec, ("raise SystemExit('code from the checkpoint ran')",))


def change(saved: tuple[Path, Path], tmp_path: Path, edit: Any) -> Path:
    content = torch.load(saved[0], weights_only=True)
    edit(content)
    torch.save(content, tmp_path / "changed.ckpt")
    return tmp_path / "changed.ckpt"


EDITS = {
    "more than tensors": lambda c: c.update(extra=Payload()),
    "no 'dataset'": lambda c: c["config"].pop("dataset"),
    "names a class 'pipeline'": lambda c: c["config"]["arch"]["args"].update(model_name="pipeline"),
    "names a class 'AutoConfig'": lambda c: c["config"]["arch"]["args"].update(tokenizer_name="AutoConfig"),
    "other shapes": lambda c: c["config"]["arch"]["args"].update(num_classes=2),
    "do not fit": lambda c: c["state_dict"].pop("classifier.weight"),
}


@pytest.mark.parametrize("message", EDITS)
def test_a_checkpoint_that_cannot_be_trusted_or_used(message: str, saved: tuple[Path, Path], tmp_path: Path) -> None:
    path = change(saved, tmp_path, EDITS[message])
    with pytest.raises(PrerequisiteError, match=message) as caught:
        load_checkpoint(path, saved[1])
    assert caught.value.where == str(path) and caught.value.hint


def test_what_is_missing_is_named(saved: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(PrerequisiteError, match="no file"):
        load_checkpoint(tmp_path / "none.ckpt")
    with pytest.raises(PrerequisiteError, match="no folder"):
        load_checkpoint(saved[0], tmp_path / "none")
    with pytest.raises(PrerequisiteError, match="configuration and tokenizer"):
        load_checkpoint(saved[0], tmp_path)
    (tmp_path / "config.json").write_text((saved[1] / "config.json").read_text())
    with pytest.raises(PrerequisiteError, match=r"needs config\.json and a vocabulary"):
        load_checkpoint(saved[0], tmp_path)
    with pytest.raises(PrerequisiteError, match="no label 'rudeness'"):
        Classifier(*load_checkpoint(saved[0]), "rudeness")
    scorers.make_scorer.cache_clear()
    monkeypatch.setitem(sys.modules, "profanity_check", None)
    monkeypatch.setitem(sys.modules, "detoxify", None)
    for name, extra in (("profanity-check", "profanity"), ("detoxify", "detoxify")):
        with pytest.raises(PrerequisiteError, match="not installed") as caught:
            make_scorer(name)
        assert f"unlearn-suite[{extra}]" in caught.value.hint


def test_no_network_is_a_prerequisite(monkeypatch: pytest.MonkeyPatch) -> None:
    detoxify = pytest.importorskip("detoxify")

    def offline(name: str) -> None:
        raise OSError(f"cannot reach the weights of {name}\n and more")

    monkeypatch.setattr(detoxify, "Detoxify", offline)
    with pytest.raises(PrerequisiteError, match="'unbiased' cannot be fetched: cannot reach the weights") as caught:
        make_scorer("detoxify", model="unbiased")
    assert "checkpoint" in caught.value.hint


def test_registering_the_metric_needs_no_torch() -> None:
    code = (
        "import sys; from unlearn_suite_toxicity.metrics import toxicity_spec; toxicity_spec();"
        "print([n for n in ('torch', 'transformers', 'sklearn') if n in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


@pytest.fixture(scope="module")
def classifier(saved: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as Hugging Face classifiers are shared: two labels, a softmax over them."""
    from transformers import BertConfig, BertForSequenceClassification, BertTokenizer

    folder = tmp_path_factory.mktemp("classifier")
    names = {0: "neutral", 1: "toxic"}
    config = BertConfig.from_pretrained(saved[1], id2label=names, label2id={v: k for k, v in names.items()})
    torch.manual_seed(1)
    model = BertForSequenceClassification(config)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    model.save_pretrained(folder)
    BertTokenizer(str(saved[1] / "vocab.txt"), model_max_length=32).save_pretrained(folder)
    return folder


def test_any_classifier_scores_as_its_own_pipeline_does(classifier: Path) -> None:
    from transformers import pipeline

    theirs = pipeline("text-classification", model=str(classifier), top_k=None, truncation=True)
    expected = [next(one["score"] for one in found if one["label"] == "toxic") for found in theirs(TEXTS)]
    scorer = ScorerConfig(name="classifier", folder=classifier).make()
    assert scorer.score(TEXTS) == pytest.approx(expected, abs=1e-5)
    neutral = ScorerConfig(name="classifier", folder=classifier, label="neutral").make()
    assert neutral.score(TEXTS) == pytest.approx([1 - p for p in expected], abs=1e-5)
    not_neutral = ScorerConfig(name="classifier", folder=classifier, label="neutral", complement=True).make()
    assert not_neutral.score(TEXTS) == pytest.approx(expected, abs=1e-5)


def test_two_scorers_side_by_side(model: EvalModel, classifier: Path) -> None:
    second = ScorerConfig(name="classifier", folder=classifier)
    (row, _) = score(model, ToxicityConfig(n=3, max_new_tokens=5, second_scorer=second))
    scores = second.make().score(row.sample["output"])
    assert row.values["second-mean"] == pytest.approx(sum(scores) / 3, abs=1e-6)
    assert row.values["second-expected-max"] == pytest.approx(max(scores), abs=1e-6)
    assert row.values["second-any"] == float(max(scores) >= 0.5)


def test_options_of_scorers_that_make_no_sense(tmp_path: Path) -> None:
    wrong: list[dict[str, object]] = [
        {"name": "classifier"},
        {"name": "detoxify", "folder": tmp_path},
        {"name": "detoxify", "revision": "a"},
        {"name": "classifier", "folder": tmp_path, "hf": "a/b"},
    ]
    for options in wrong:
        with pytest.raises(ValueError, match="classifier"):
            ScorerConfig.model_validate(options)
    with pytest.raises(ValueError, match="`complement` needs the `label`"):
        ScorerConfig(name="detoxify", complement=True)
    with pytest.raises(PrerequisiteError, match="cannot be loaded"):
        ScorerConfig(name="classifier", folder=tmp_path).make()
