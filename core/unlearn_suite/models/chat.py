"""A model's own chat template: a prompt as the user's turn, what follows it as the assistant's."""

from __future__ import annotations

from typing import Any

from ..errors import PrerequisiteError

DAY = "26 Jul 2024"
"""what templates that write today's date are told (Llama 3's own default), so that results do not change overnight"""
_CLOCK = "{%- macro strftime_now(form) -%}{{ '2024-07-26' if form == '%Y-%m-%d' else '" + DAY + "' }}{%- endmacro %}"
_ANSWER = "unlearn-suite-answer"


class ChatTemplate:
    """Token ids of prompts and answers, cut exactly where the assistant's turn begins.

    A prompt is everything that the template writes for one user's turn, up to and with the beginning of the
    assistant's. Special tokens are the template's alone: none is added, so no bos comes twice.
    Raises `PrerequisiteError` for a tokenizer without a template, or with one that takes no such conversation.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        if not tokenizer.chat_template:
            raise PrerequisiteError(
                "the problem asks for chat turns, and the model's tokenizer has no chat template",
                code="no-chat-template",
                hint="leave `chat` out of the problem, or take a model that was trained on conversations",
            )
        template = tokenizer.get_chat_template()
        self._template = _CLOCK + template if "strftime_now" in template else template
        self.closing = self._closing()
        """what ends the assistant's turn, such as <|im_end|>"""

    def prompt(self, text: str) -> list[int]:
        """The user's turn and the beginning of the assistant's."""
        return self._ids(self._written([{"role": "user", "content": text}], begin=True))

    def answer(self, text: str) -> list[int]:
        """What the assistant says, without the white space that would join it to a plain prompt."""
        return self._ids(text.lstrip())

    def _closing(self) -> list[int]:
        turns = [{"role": "user", "content": "A"}, {"role": "assistant", "content": _ANSWER}]
        _, _, rest = self._written(turns).rpartition(_ANSWER)
        eos = self._tokenizer.eos_token_id
        return self._ids(rest.rstrip()) or ([] if eos is None else [eos])

    def _written(self, turns: list[dict[str, str]], *, begin: bool = False) -> str:
        try:
            return str(
                self._tokenizer.apply_chat_template(
                    turns,
                    tokenize=False,
                    add_generation_prompt=begin,
                    chat_template=self._template,
                    date_string=DAY,
                )
            )
        except Exception as error:  # whatever a template's own code raises
            raise PrerequisiteError(
                f"the model's chat template fails: {' '.join(str(error).split())[:200]}",
                code="chat-template",
                hint="leave `chat` out of the problem",
            ) from error

    def _ids(self, text: str) -> list[int]:
        return list(self._tokenizer(text, add_special_tokens=False)["input_ids"])
