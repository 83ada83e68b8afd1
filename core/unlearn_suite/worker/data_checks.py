"""What no evaluation can mend, found in a cell's examples before anything is trained. It holds for every dataset."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..errors import PlanError
from ..specs import Example

if TYPE_CHECKING:
    from ..evaluate.encode import Encoder
    from ..study import Cell

HELD_OUT = ("held-out", "holdout")
"""roles whose texts must not be among those of the role `forget`"""
PERPLEXITY = "unlearn-suite/perplexity"
GROUPS = ("member", "non-member")
"""groups of one role whose texts are compared"""

Roles = Mapping[str, Sequence[Example]]


def check_examples(cell: Cell, roles: Roles) -> None:
    """Raises `PlanError` for labels outside the choices, ids that a role has twice (objectives and metrics tell its
    examples apart by them), and leaks."""
    for role, examples in roles.items():
        place = _place(cell, role)
        _check_answers(examples, place)
        _check_ids(examples, place)
        parts = [[e for e in examples if e.group == group] for group in GROUPS]
        _check_leak(f"role {role!r}, group {GROUPS[0]}", parts[0], f"group {GROUPS[1]}", parts[1], place)
    for role in HELD_OUT:
        found = roles.get("forget", ()), f"role {role!r}", roles.get(role, ())
        _check_leak("role 'forget'", *found, _place(cell, role))


def check_lengths(cell: Cell, roles: Roles, encoder: Encoder) -> None:
    """Raises `PlanError` for a prompt, or a text or choice after a prompt, that exceeds the model's context."""
    room = encoder.max_length - (len(encoder.chat.prompt("")) if encoder.chat else 0)
    for role in dict.fromkeys(entry["data"] for entry in cell.metrics if entry.get("data")):
        for example in roles[role]:
            after = (example.text, *example.choices) if example.prompt else example.choices
            for what, text in (("prompt", example.prompt), *(("text", text) for text in after)):
                ids_of = encoder.given if what == "prompt" else encoder.ids
                # no tokenizer makes more tokens than there are bytes
                if len(text.encode()) <= room or (n := len(ids_of(text))) <= encoder.max_length:
                    continue
                raise PlanError(
                    f"the {what} of {example.id!r} has {n} tokens; the model's context is {encoder.max_length}",
                    code="data-length",
                    where=_place(cell, role),
                    hint="shorten it, leave it out, or take a model with a longer context",
                )


def _place(cell: Cell, role: str) -> str:
    return f"problem {cell.problem!r}, data role {role!r}"


def _check_answers(examples: Sequence[Example], place: str) -> None:
    for example in examples:
        if example.answer is not None and not 0 <= example.answer < len(example.choices):
            raise PlanError(
                f"the answer of {example.id!r} is {example.answer}, and it has {len(example.choices)} choices",
                code="data-answer",
                where=place,
                hint="answers count from 0",
            )


def _check_ids(examples: Sequence[Example], place: str) -> None:
    seen: set[str] = set()
    for example in examples:
        if example.id in seen:
            raise PlanError(
                f"two examples have the id {example.id!r}",
                code="data-ids",
                where=place,
                hint="two datasets of the role overlap, or are files of the same name: rename one",
            )
        seen.add(example.id)


def doubts(cell: Cell, roles: Roles) -> Iterator[str]:
    """What to warn of: texts that are to be forgotten and to be kept, text whose perplexity is to be kept that is
    trained on under another role, and what an attack is given of the questions that are asked after it."""
    both = _in_both(roles.get("forget", ()), roles.get("retain", ()))
    if both:
        yield f"{len(both)} texts are in role 'forget' and in role 'retain', such as {both[0][0]!r}"
    trained = _trained_on(cell)
    for entry in cell.metrics:
        role = str(entry.get("data"))
        if entry["use"] != PERPLEXITY or entry["want"] != "keep" or role in trained:
            continue
        for other in trained:
            both = _in_both(roles.get(other, ()), roles[role])
            if both:
                count = f"{len(both)} of {len(roles[role])} texts of role {role!r}, whose perplexity is to be kept"
                yield f"{count}, are trained on in role {other!r}, such as {both[0][1]!r}: it will look kept"
    for attack in cell.attacks:
        yield from _given_away(cell, roles, attack)


def _trained_on(cell: Cell) -> list[str]:
    """`retain`, and what the stages name beside it and `forget`, but for roles that only look on."""
    watchers = [part for stage in cell.stages for key in ("diagnostics", "stop") if (part := stage["train"].get(key))]
    apart = {"forget", "retain", *(part.get(key) for part in watchers for key in ("forget", "retain", "role"))}
    return ["retain", *(role for role in cell.training.get("data", ()) if role not in apart)]


def _given_away(cell: Cell, roles: Roles, attack: Mapping[str, Any]) -> Iterator[str]:
    """One line, or none. Who has an attack train on `forget`, or on the very role that is asked, has chosen so."""
    found = []
    for entry in cell.metrics:
        asked = entry.get("data")
        if not asked or entry["name"] not in attack["scores"] or entry["want"] not in ("lower", "higher"):
            continue
        given = [e for role in attack["data"] if role not in ("forget", asked) for e in roles[role]]
        if told := _told(given, roles[asked]):
            found.append(f"{len(told)} of {len(roles[asked])} of entry {entry['name']!r}, such as {told[0]!r}")
    if found:
        what = f"the attack {attack['name']!r} trains on examples that are asked after it: {'; '.join(found)}"
        yield f"{what}. It learns them anew: name other entries in its `scores`, or give it other data"


def _told(given: Sequence[Example], asked: Sequence[Example]) -> list[str]:
    """The ids of what is asked that is given: the same text, the same prompt with an answer, or an example of the same
    id that holds question and answer in another form. A prompt that several examples share says nothing."""
    whole = {_words(e) for e in given}
    answered = {tuple(e.prompt.split()) for e in given if e.prompt.strip() and e.text.strip()}
    forms = {e.id: " ".join(_words(e)) for e in given}
    prompts = Counter(tuple(e.prompt.split()) for e in asked)

    def is_told(e: Example) -> bool:
        prompt = tuple(e.prompt.split())
        if (_words(e) and _words(e) in whole) or (prompt in answered and prompts[prompt] == 1):
            return True
        answer = e.text or (e.choices[e.answer] if e.answer is not None else "")
        parts = [" ".join(part.split()) for part in (e.prompt, answer)]
        return any(parts) and e.id in forms and all(part in forms[e.id] for part in parts)

    return [e.id for e in asked if is_told(e)]


def _check_leak(one: str, examples: Sequence[Example], other: str, held_out: Sequence[Example], place: str) -> None:
    both = _in_both(examples, held_out)
    if both:
        first, second = both[0]
        raise PlanError(
            f"{len(both)} of {len(held_out)} texts are in {one} and in {other}, such as {first!r} and {second!r}",
            code="data-leak",
            where=place,
            hint="the second must hold texts that the first does not have: take them out of one of the two",
        )


def _in_both(examples: Sequence[Example], others: Sequence[Example]) -> list[tuple[str, str]]:
    """The ids, here and there, of texts that are in both."""
    known = {_words(e): e.id for e in examples}
    return [(known[words], e.id) for e in others if (words := _words(e)) in known]


def _words(example: Example) -> tuple[Any, ...]:
    """An example's whole text, however it is spaced and cut into prompt and text."""
    return tuple(f"{example.prompt} {example.text}".split())
