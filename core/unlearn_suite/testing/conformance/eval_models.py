"""Models whose answers are known: every token equally likely, the right answers by heart, or random.

All are ordinary transformers models, so that a metric may read them in any way it likes.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch

from ...evaluate.model import EvalModel
from ..tiny import tiny_model, tiny_tokenizer

STEPS = 400
"""training steps of an oracle at most"""
GOOD_ENOUGH = 0.02
"""mean loss (nats per token) at which an oracle knows its texts by heart"""


def evaluated(hf: Any, **how: Any) -> EvalModel:
    """A model as metrics see it. `pad_eos`: padding is the end token; `side`: of padding."""
    tokenizer = tiny_tokenizer()
    if how.pop("pad_eos", False):
        tokenizer.pad_token = tokenizer.eos_token
        hf = copy.deepcopy(hf)
        hf.config.pad_token_id = tokenizer.eos_token_id
    tokenizer.padding_side = how.pop("side", "right")
    return EvalModel(hf, tokenizer, device="cpu", **how)


@lru_cache(maxsize=1)
def uniform() -> Any:
    """Every token of the vocabulary has probability 1 / V, V = `tiny.VOCAB_SIZE`."""
    model = tiny_model("llama", num_hidden_layers=1)
    with torch.no_grad():
        model.get_output_embeddings().weight.zero_()
    return model


@lru_cache(maxsize=1)
def at_random() -> Any:
    """A model that knows nothing."""
    return tiny_model("llama", seed=3)


@lru_cache(maxsize=8)
def oracle(texts: tuple[tuple[str, str], ...]) -> Any:
    """A model trained until it continues every (prompt, text) with exactly that text, and then ends.

    Raises RuntimeError when it could not learn them: some prompts go on in two ways, or are too long.
    """
    with torch.random.fork_rng(devices=[]):
        model = tiny_model("llama", num_hidden_layers=2, hidden_size=64, intermediate_size=128)
        model.apply(_start)
        ids, targets = _training_rows(texts)
        optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
        for _ in range(STEPS):
            loss = torch.nn.functional.cross_entropy(
                model(input_ids=ids, attention_mask=(ids != 0).long()).logits[:, :-1].flatten(0, 1),
                targets[:, 1:].flatten(),
                ignore_index=-100,
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if float(loss.detach()) < GOOD_ENOUGH:
                return model.eval()
    raise RuntimeError(
        f"no model learnt the texts by heart (loss {float(loss.detach()):.2f}): give fewer, shorter ones"
    )


def _start(module: Any) -> None:
    """Small weights and neutral norms: what a model learns from."""
    for name, parameter in module.named_parameters(recurse=False):
        with torch.no_grad():
            if parameter.ndim == 1:
                parameter.fill_(0.0 if name == "bias" else 1.0)
            else:
                parameter.mul_(0.25)


def _training_rows(texts: Sequence[tuple[str, str]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids [N, T] and targets [N, T] (-100 = not trained on): each text plain, and after the first token of all."""
    tokenizer = tiny_tokenizer()
    rows, marks = [], []
    for prompt, text in texts:
        start, end = tokenizer(prompt)["input_ids"], [*tokenizer(text)["input_ids"], tokenizer.eos_token_id]
        for before in ([], [tokenizer.bos_token_id]):
            rows.append([*before, *start, *end])
            # Of a prompt's own tokens any may follow; a text without a prompt has only its first token given.
            known = len(before) + len(start) or 1
            marks.append([-100] * known + rows[-1][known:])
    width = max(map(len, rows))
    ids = torch.tensor([row + [0] * (width - len(row)) for row in rows])
    targets = torch.tensor([row + [-100] * (width - len(row)) for row in marks])
    return ids, targets
