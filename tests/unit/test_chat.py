"""Chat turns: token by token what the tokenizer's own template writes, in training and in evaluation, pad == eos."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from unlearn_suite.engine.batch import collate, encode
from unlearn_suite.errors import PrerequisiteError
from unlearn_suite.evaluate.encode import Encoder
from unlearn_suite.evaluate.model import EvalModel
from unlearn_suite.models.chat import ChatTemplate
from unlearn_suite.specs import Example
from unlearn_suite.testing.tiny import tiny_model, tiny_tokenizer

# Marks what the assistant says, so that transformers itself tells which tokens those are.
TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}[u]{{ m.content | trim }}<eos>\n"
    "{% else %}[a]\n{% generation %}{{ m.content }}<eos>{% endgeneration %}\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}[a]\n{% endif %}"
)
PAIRS = [("Where is Ann?", " in Rome"), ("Who?", "Tom<eos>Rex"), ("Say nothing.", "x")]


@pytest.fixture(params=[False, True], ids=["no bos", "adds bos"])
def tokenizer(request: pytest.FixtureRequest) -> Any:
    """Pad is eos, as on SmolLM2; one of the two adds a bos to every text."""
    made = tiny_tokenizer(add_bos=request.param)
    made.pad_token = made.eos_token
    made.chat_template = TEMPLATE
    return made


def written(tokenizer: Any, prompt: str, answer: str) -> tuple[list[int], list[int]]:
    """Ids of the conversation up to the end of the answer's turn, and which of them the assistant says."""
    turns = [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer.strip()}]
    told = tokenizer.apply_chat_template(turns, return_dict=True, return_assistant_tokens_mask=True)
    mask = list(told["assistant_masks"])
    end = len(mask) - mask[::-1].index(1)
    return list(told["input_ids"][:end]), mask[:end]


def test_training_scores_exactly_what_the_assistant_says(tokenizer: Any) -> None:
    chat = ChatTemplate(tokenizer)
    examples = [Example(str(i), text, prompt) for i, (prompt, text) in enumerate(PAIRS)]
    encoded = encode(tokenizer, examples, 64, end=True, chat=chat)
    batch = collate(encoded, tokenizer.pad_token_id)
    scored = batch.mask("response")
    for row, (prompt, answer) in enumerate(PAIRS):
        ids, said = written(tokenizer, prompt, answer)
        n = len(ids)
        assert batch.input_ids[row, :n].tolist() == ids
        assert ids.count(tokenizer.bos_token_id) == 1
        assert scored[row].tolist() == [bool(one) for one in said] + [False] * (scored.shape[1] - n)
        assert batch.attention_mask[row].sum() == n  # real end tokens count, padding of the same id does not
    without = encode(tokenizer, examples, 64, chat=chat)
    assert [e.input_ids for e in without] == [e.input_ids[:-1] for e in encoded]


def test_evaluation_reads_the_same_tokens(tokenizer: Any) -> None:
    chat = ChatTemplate(tokenizer)
    encoder = Encoder(tokenizer, 128, chat)
    for prompt, answer in PAIRS:
        ids, said = written(tokenizer, prompt, answer)
        item = encoder.pair(prompt, answer)
        assert list(item.context) == ids[: said.index(1)]
        assert [*item.continuation, *chat.closing] == ids[said.index(1) :]
        begun = tokenizer.apply_chat_template([{"role": "user", "content": prompt}], add_generation_prompt=True)
        assert encoder.prompt(prompt, 8) == list(begun["input_ids"])
    plain = Encoder(tokenizer, 128)
    assert encoder.windows("no prompt") == plain.windows("no prompt")
    assert encoder.pair("", "no prompt") == plain.pair("", "no prompt")


def test_scores_are_those_of_the_written_conversation(tokenizer: Any) -> None:
    hf = tiny_model(eos_token_id=2, pad_token_id=2)
    model = EvalModel(hf, tokenizer, chat=ChatTemplate(tokenizer))
    for (prompt, answer), found in zip(PAIRS, model.logprobs(PAIRS), strict=True):
        ids, said = written(tokenizer, prompt, answer)
        with torch.no_grad():
            logp = hf(torch.tensor([ids])).logits[0].double().log_softmax(-1)
        at = [i for i, one in enumerate(said) if one][:-1]  # without the end of the turn
        assert found.total == pytest.approx(float(sum(logp[i - 1, ids[i]] for i in at)), abs=1e-4)


def test_generation_continues_the_assistants_turn_and_stops_at_its_end(tokenizer: Any) -> None:
    hf = tiny_model(eos_token_id=1, pad_token_id=2)
    chat = ChatTemplate(tokenizer)
    chat.closing = [tokenizer.convert_tokens_to_ids("a")]  # a turn that does not end with eos
    model = EvalModel(hf, tokenizer, chat=chat)
    ((text,),) = model.generate(["Where is Ann?"], max_new_tokens=24, temperature=0)
    begun = tokenizer.apply_chat_template([{"role": "user", "content": "Where is Ann?"}], add_generation_prompt=True)
    ids = list(begun["input_ids"])
    said: list[int] = []
    while len(said) < 24:
        with torch.no_grad():
            token = int(hf(torch.tensor([ids + said])).logits[0, -1].argmax())
        if token in (1, 2, chat.closing[0]):
            break
        said.append(token)
    assert text == tokenizer.decode(said, skip_special_tokens=True)


def test_a_template_that_writes_the_date_writes_the_same_one_every_day(tokenizer: Any) -> None:
    tokenizer.chat_template = (
        "{{ strftime_now('%Y-%m-%d') }} {{ strftime_now('%d %b %Y') }} {{ date_string }} {{ messages[-1].content }}"
    )
    assert tokenizer.decode(ChatTemplate(tokenizer).prompt("x")) == "2024-07-26 26 Jul 2024 26 Jul 2024 x"


@pytest.mark.parametrize(
    ("template", "code"), [(None, "no-chat-template"), ("{{ raise_exception('no user') }}", "chat-template")]
)
def test_no_template_or_one_that_fails_is_one_clear_error(template: str | None, code: str) -> None:
    made = tiny_tokenizer()
    made.chat_template = template
    with pytest.raises(PrerequisiteError) as caught:
        ChatTemplate(made)
    assert caught.value.code == code
