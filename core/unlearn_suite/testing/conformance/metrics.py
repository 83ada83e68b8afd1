"""Checks of metrics: known answers, rows that match the examples, and numbers that hang on nothing but the model."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from ...plan.check import check as check_words
from ...plan.faults import Faults
from ...plan.text import Node
from ...specs import Config, Example, ValueSpec
from .check import CheckFailed, Skipped, check
from .sheet import DirectionWords, KnownWords
from .subject import Subject

if TYPE_CHECKING:
    from ...evaluate.metric import Row
    from ...evaluate.model import EvalModel

CLOSE = 1e-4
"""relative (below 1: absolute) difference of scores that may come from sums in another order"""
CHOICES = (" warm milk", " hot tea", " the rain", " an old song")
PROMPTS = ("the cat likes", "in winter the whole family drinks", "after noon came", "she sang")


def made_up() -> list[Example]:
    """Four examples for every form of question: a prompt, its text, four choices. All of different lengths."""
    return [
        Example(f"m/{i}", text=choice, prompt=prompt, choices=CHOICES, answer=i, group=f"g{i % 2}", unit=f"u{i}")
        for i, (prompt, choice) in enumerate(zip(PROMPTS, CHOICES, strict=True))
    ]


def _examples(subject: Subject, case: Node) -> list[Example]:
    data = case.under("data")
    node = data.under("examples") if data else None
    if node is not None:
        return subject.examples(node, "examples")
    return made_up() if subject.spec.needs_data else []


def _rows(subject: Subject, config: Config, model: EvalModel, examples: Sequence[Example], seed: int = 0) -> list[Row]:
    return list(subject.target()(config).score(model, examples, seed))


def _scored(subject: Subject) -> Iterator[tuple[Config, list[Example], list[Row]]]:
    """Options, examples and rows of every case, on the random model."""
    from .eval_models import at_random, evaluated

    key = ("scored", subject.spec.name)
    if key not in subject.memo:
        cases = [(subject.options(case), _examples(subject, case)) for case in subject.cases()]
        subject.memo[key] = [(c, e, _rows(subject, c, evaluated(at_random()), e)) for c, e in cases]
    return iter(subject.memo[key])


def _gap(rows: Sequence[Row], others: Sequence[Row]) -> str:
    """The first difference between two scorings, "" if there is none."""
    if [row.id for row in rows] != [row.id for row in others]:
        return "other rows"
    for row, other in zip(rows, others, strict=True):
        pairs = {**row.values, "weight": row.weight}, {**other.values, "weight": other.weight}
        if set(pairs[0]) != set(pairs[1]):
            return f"other values of {row.id!r}"
        for name, value in pairs[0].items():
            if not abs(value - pairs[1][name]) <= CLOSE * max(1.0, abs(value)):  # nor what is no number
                return f"{name} of {row.id!r} is {pairs[1][name]:.6g} instead of {value:.6g}"
    return ""


@check("MET-ROWS", "metric", "one row per example, in their order, with declared, finite values within their bounds")
def rows_match(subject: Subject) -> None:
    from ...evaluate.score import check_rows

    for _, examples, rows in _scored(subject):
        if fault := check_rows(rows, subject.spec, examples):
            raise CheckFailed(f"it {fault}")
        for row in rows:
            for name, value in row.values.items():
                told: ValueSpec = subject.spec.values[name]
                if told.versus:
                    raise CheckFailed(f"{name} of {row.id!r} is made in the report; rows do not have it")
                if told.aggregate == "auc":  # bounds are those of the auc
                    continue
                low = -math.inf if told.lowest is None else told.lowest
                high = math.inf if told.highest is None else told.highest
                shown = math.exp(value) if told.aggregate == "exp-mean" else value
                if not low - 1e-9 <= shown <= high + 1e-9:
                    raise CheckFailed(f"{name} of {row.id!r} is {shown:.6g}, outside its bounds")


@check("MET-SEED", "metric", "the same seed gives the same rows; another one matters only to a sampled metric")
def seed_is_kept(subject: Subject) -> None:
    from .bench import global_randomness
    from .eval_models import at_random, evaluated

    for config, examples, rows in _scored(subject):
        with global_randomness(99):
            again = _rows(subject, config, evaluated(at_random()), examples)
        if gap := _gap(rows, again):
            raise CheckFailed(f"scored again: {gap}; the seed that score() is given must be the only randomness")
        if not subject.spec.sampled and (
            gap := _gap(rows, _rows(subject, config, evaluated(at_random()), examples, 5))
        ):
            raise CheckFailed(f"with another seed: {gap}; declare sampled=True")


@check("MET-BATCH", "metric", "the size of the batches does not matter")
def batch_size_is_nothing(subject: Subject) -> None:
    from .eval_models import at_random, evaluated

    for config, examples, rows in _scored(subject):
        for how in ({"batch_tokens": 16, "rows": 1}, {"batch_tokens": 64, "rows": 3}):
            if gap := _gap(rows, _rows(subject, config, evaluated(at_random(), **how), examples)):
                raise CheckFailed(f"in smaller batches: {gap}")


@check("MET-PADDING", "metric", "the side of padding does not matter")
def padding_side_is_nothing(subject: Subject) -> None:
    from .eval_models import at_random, evaluated

    for config, examples, rows in _scored(subject):
        if gap := _gap(rows, _rows(subject, config, evaluated(at_random(), side="left"), examples)):
            raise CheckFailed(f"padded on the left: {gap}")


@check("MET-PADEOS", "metric", "a tokenizer whose padding is its end token gives the same")
def pad_may_be_eos(subject: Subject) -> None:
    from .eval_models import at_random, evaluated

    for config, examples, rows in _scored(subject):
        if gap := _gap(rows, _rows(subject, config, evaluated(at_random(), pad_eos=True), examples)):
            raise CheckFailed(f"with pad = eos: {gap}")


@check("MET-KNOWN", "metric", "it gives the answers that are known beforehand")
def known_answers(subject: Subject) -> None:
    from .eval_models import evaluated, oracle, uniform

    nodes = subject.told.parts("known")
    if not nodes:
        raise CheckFailed(
            "no known answer is told: work one out by hand and write it under `known` in conformance.yaml"
        )
    for node in nodes:
        words = _words(node, KnownWords)
        examples = subject.examples(node.map["examples"], "known")
        hf = uniform() if words.model == "uniform" else oracle(_pairs(examples))
        rows = _rows(subject, subject.options(node), evaluated(hf), examples)
        for name, expected in words.values.items():
            found = aggregate(subject.spec.values.get(name), name, rows)
            if not abs(found - expected) <= words.tolerance * (abs(expected) or 1.0):
                raise CheckFailed(f"{name} on the {words.model} model is {found:.6g}, known to be {expected:.6g}")


@check("MET-DIRECTION", "metric", "a model with the right answers is better than one without, as its values say")
def direction_is_right(subject: Subject) -> None:
    from .eval_models import at_random, evaluated, oracle

    node = subject.told.node.under("direction")
    words = _words(node, DirectionWords) if node is not None else None
    directed = {name: value for name, value in subject.spec.values.items() if value.better and not value.versus}
    if not directed:
        raise Skipped("none of its values says which direction is better")
    names = (words.values if words else []) or [next(iter(directed))]
    good = subject.examples(node.map["good"], "good") if node is not None and words else made_up()
    bad = _pairs(good, words.bad) if words and words.bad else ()
    config = subject.options(node if node is not None else subject.cases()[0])
    models = {"good": oracle(_pairs(good)), "bad": oracle(bad) if bad else at_random()}
    scored = {which: _rows(subject, config, evaluated(hf), good) for which, hf in models.items()}
    for name in names:
        better = directed[name].better
        a, b = (aggregate(directed[name], name, scored[which]) for which in ("good", "bad"))
        if not (a > b if better == "higher" else a < b):
            message = f"{name} is {a:.4g} for the good model and {b:.4g} for the bad one; it says {better} is better"
            raise CheckFailed(message)


def _pairs(examples: Sequence[Example], texts: Sequence[str] = ()) -> tuple[tuple[str, str], ...]:
    return tuple((e.prompt, text) for e, text in zip(examples, texts or [e.text for e in examples], strict=True))


def _words(node: Node, model: type[Any]) -> Any:
    faults = Faults()
    words = check_words(node, model, faults)
    faults.stop(node.at.file)
    return words


def aggregate(told: ValueSpec | None, name: str, rows: Sequence[Row]) -> float:
    """One number of a metric, as the report makes it. Raises `CheckFailed` for a value that is not there."""
    weighed = [(row.values[name], row.weight) for row in rows if name in row.values]
    if told is None or not weighed:
        raise CheckFailed(f"it gives no value {name!r}")
    if told.aggregate == "auc":
        return _auc([(row.values[name], row.group) for row in rows if name in row.values])
    mean = sum(value * weight for value, weight in weighed) / sum(weight for _, weight in weighed)
    return math.exp(mean) if told.aggregate == "exp-mean" else mean


def _auc(rows: Sequence[tuple[float, str]]) -> float:
    from scipy.stats import mannwhitneyu

    members, others = ([value for value, group in rows if group == which] for which in ("member", "non-member"))
    if not members or not others:
        raise CheckFailed("an auc needs rows of the groups `member` and `non-member`")
    return float(mannwhitneyu(others, members).statistic) / (len(members) * len(others))
