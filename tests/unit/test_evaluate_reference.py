"""A reference model from a folder: read once for all readings beside a model, and gone with that model."""

from __future__ import annotations

import gc
import weakref
from pathlib import Path

import pytest
import torch

from unlearn_suite import reference_model
from unlearn_suite.errors import PrerequisiteError
from unlearn_suite.evaluate.model import EvalModel
from unlearn_suite.evaluate.reference import let_go
from unlearn_suite.testing.tiny import save_tiny, tiny_model, tiny_tokenizer

TEXTS = ["the cat drinks milk", "a dog"]


def test_a_second_reading_takes_the_model_and_its_scores_from_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = save_tiny(tmp_path / "before", seed=3)
    model = EvalModel(tiny_model(), tiny_tokenizer())
    first = reference_model(folder, model)
    scores = first.rolling(TEXTS)
    expected = EvalModel(tiny_model(seed=3), tiny_tokenizer()).rolling(TEXTS)
    assert [s.total for s in scores] == pytest.approx([s.total for s in expected])
    monkeypatch.chdir(tmp_path)
    another = EvalModel(model.hf, model.tokenizer)  # as for the next metric, or the next point of an attack
    second = reference_model(Path("before"), another)
    assert second.hf is first.hf
    monkeypatch.setattr(second.hf, "forward", None)
    monkeypatch.setattr(second._forward, "hidden", None)
    assert second.rolling(TEXTS) == scores


def test_another_folder_dtype_or_content_is_another_model(tmp_path: Path) -> None:
    folder = save_tiny(tmp_path / "before", seed=3)
    model = EvalModel(tiny_model(), tiny_tokenizer())
    weight = "model.norm.weight"
    first = reference_model(folder, model).hf
    other = reference_model(save_tiny(tmp_path / "other", seed=4), model).hf
    assert other is not first and reference_model(folder, model).hf is not other
    assert reference_model(folder, EvalModel(tiny_model().bfloat16(), tiny_tokenizer())).hf.dtype == torch.bfloat16
    changed = tiny_model(seed=3)
    torch.nn.init.constant_(changed.get_parameter(weight), 2.0)
    changed.save_pretrained(folder)
    assert (reference_model(folder, model).hf.get_parameter(weight) == 2).all()


def test_the_reference_goes_with_the_model_and_before_the_next_reference(tmp_path: Path) -> None:
    folder, other = save_tiny(tmp_path / "before", seed=3), save_tiny(tmp_path / "other", seed=4)
    model = EvalModel(tiny_model(), tiny_tokenizer())
    first = weakref.ref(reference_model(folder, model).hf)
    second = weakref.ref(reference_model(other, model).hf)
    gc.collect()
    assert first() is None and second() is not None
    let_go(model.hf)  # as before a training
    gc.collect()
    assert second() is None
    third = weakref.ref(reference_model(other, model).hf)
    del model
    gc.collect()
    assert third() is None


def test_a_tokenizer_is_compared_at_every_reading(tmp_path: Path) -> None:
    folder = save_tiny(tmp_path / "before", seed=3)
    model = EvalModel(tiny_model(), tiny_tokenizer())
    reference_model(folder, model)
    tokenizer = tiny_tokenizer()
    tokenizer.add_tokens(["newword"])
    stranger = EvalModel(model.hf, tokenizer)
    with pytest.raises(PrerequisiteError, match="its tokenizer is another one"):
        reference_model(folder, stranger)
    assert reference_model(folder, stranger, same_tokenizer=False).hf is reference_model(folder, model).hf
