"""The tiny models: every architecture builds, repeats, attends causally and has no neutral tensor."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from unlearn_suite.testing.tiny import ARCHITECTURES, VOCAB_SIZE, save_tiny, tiny_model, tiny_tokenizer


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_architecture(arch: str) -> None:
    model, twin, other = tiny_model(arch), tiny_model(arch), tiny_model(arch, seed=1)
    ids = torch.randint(4, VOCAB_SIZE, (2, 20), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        logits = model(ids).logits
        assert torch.equal(logits, twin(ids).logits)
        assert not torch.allclose(logits, other(ids).logits)
        changed = ids.clone()
        changed[:, 0] = 5 + (changed[:, 0] == 5)
        assert not torch.allclose(model(changed).logits[:, -1], logits[:, -1])
    assert logits.shape == (2, 20, VOCAB_SIZE) and logits.dtype == torch.float32
    assert model.config.get_text_config().num_hidden_layers == 4 and not model.training
    for name, parameter in model.named_parameters():
        assert parameter.std() > 0.05, name


def test_tokenizer_round_trip() -> None:
    tokenizer = tiny_tokenizer()
    text = 'The capital of  France is\n"Paris" {1+1}.'
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    assert len(tokenizer) == VOCAB_SIZE and tokenizer("a")["input_ids"] != tokenizer("b")["input_ids"]
    assert tiny_tokenizer(add_bos=True)("a")["input_ids"][0] == tokenizer.bos_token_id
    assert tokenizer("é")["input_ids"] == [tokenizer.unk_token_id]


def test_saved_folder_is_an_ordinary_model(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = save_tiny(tmp_path / "m", "qwen3")
    loaded = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    for name, parameter in tiny_model("qwen3").named_parameters():
        assert torch.equal(parameter, loaded.get_parameter(name))
    assert AutoTokenizer.from_pretrained(folder)("a b")["input_ids"] == tiny_tokenizer()("a b")["input_ids"]
