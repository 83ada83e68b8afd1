"""Models with edited block outputs, against plain forward hooks."""

from __future__ import annotations

import pytest
import torch

from unlearn_suite.engine.edits import EditedView
from unlearn_suite.engine.losses import kl
from unlearn_suite.engine.shape import ModelShape
from unlearn_suite.engine.views import ModelViews
from unlearn_suite.evaluate.model import EvalModel
from unlearn_suite.testing.tiny import tiny_model, tiny_tokenizer


def halved(h):
    return 0.5 * h


def hooked(model, shape, block):
    module = model.get_submodule(f"{shape.blocks_path}.{block}")
    return module.register_forward_hook(
        lambda _m, _i, out: (halved(out[0]), *out[1:]) if isinstance(out, tuple) else halved(out)
    )


@pytest.mark.parametrize("arch", ["llama", "gpt2", "gemma3", "gpt_neox"])
def test_an_edited_view_equals_a_hooked_model(arch, make_batch):
    model = tiny_model(arch)
    shape = ModelShape.of(model)
    views = ModelViews(model, shape, shape.select("mlp_out", [2]))
    view = EditedView(views.replay, views.trainable, {1: halved})
    batch = make_batch([9, 6], 0)
    plain = views.reference.hidden(batch, [0, 1, 3])
    with torch.no_grad():
        edited = view.hidden(batch, [0, 1])
        logits = view.logits(batch)
        handle = hooked(model, shape, 1)
        expected = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits
        handle.remove()
        after = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits
    assert torch.equal(edited[0], plain[0]) and torch.equal(edited[1], halved(plain[1]))
    mask = batch.attention_mask.bool()
    torch.testing.assert_close(logits[mask], expected[mask])
    between = views.reference.per_token(batch, lambda z, _, other: kl(z, other), against=view)
    content = batch.mask("content")[:, 1:]
    torch.testing.assert_close(between[:, 1:][content], kl(after[:, :-1], expected[:, :-1])[content])
    # nothing is left behind
    assert not any("forward" in block.__dict__ for block in views.replay.blocks)
    views.clear()
    assert torch.equal(views.reference.hidden(batch, [3])[3], plain[3])


def test_sampling_runs_the_edited_model():
    model, tokenizer = tiny_model(), tiny_tokenizer()
    shape = ModelShape.of(model)
    views = ModelViews(model, shape, shape.select("mlp_out", [2]))
    options = {"max_new_tokens": 8, "n": 2, "temperature": 1.0, "seed": 3}

    def sample():
        return EvalModel(model, tokenizer).generate(["hello", "good day"], **options)

    plain = sample()
    handle = hooked(model, shape, 1)
    expected = sample()
    handle.remove()
    with EditedView(views.replay, views.trainable, {1: halved}).applied():
        edited = sample()
    assert edited == expected != plain and sample() == plain


def test_an_edit_that_fails_leaves_the_model_as_it_was(make_batch):
    model = tiny_model()
    shape = ModelShape.of(model)
    views = ModelViews(model, shape, shape.select("mlp_out", [2]))

    def bad(h):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        EditedView(views.replay, views.trainable, {1: bad}).logits(make_batch([5], 1))
    assert not any("forward" in block.__dict__ for block in views.replay.blocks)
