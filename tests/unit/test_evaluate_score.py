"""`score_entry` believes no metric: rows are checked, errors name the entry."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from unlearn_suite import (
    Example,
    Metric,
    MetricSpec,
    NoConfig,
    PlanError,
    PluginError,
    Row,
    SuiteError,
    ValueSpec,
)
from unlearn_suite.evaluate.model import EvalModel
from unlearn_suite.evaluate.score import PART, score_entry
from unlearn_suite.testing.tiny import tiny_model, tiny_tokenizer

ENTRY = {"name": "cities", "use": "acme/counting", "with": {}, "data": "forget"}
SPEC = MetricSpec("counting", "counts", "acme.metrics:Counting", {"count": ValueSpec("a count")})
EXAMPLES = [Example("a", text="x"), Example("b", text="yy"), Example("c", text="zzz")]


@pytest.fixture(scope="module")
def model() -> EvalModel:
    return EvalModel(tiny_model(), tiny_tokenizer(), batch_tokens=4)


def metric(rows: Callable[[Sequence[Example]], Iterable[Row]]) -> Metric[NoConfig]:
    class Counting(Metric[NoConfig]):
        def score(self, model: EvalModel, examples: Sequence[Example], seed: int) -> Iterable[Row]:
            return rows(examples)

    return Counting(NoConfig())


def row(example: Example, **changes: Any) -> Row:
    return Row(**{"id": example.id, "values": {"count": float(len(example.text))}, **changes})


def test_good_rows_pass_in_order(model: EvalModel) -> None:
    rows = score_entry(ENTRY, metric(lambda es: (row(e) for e in es)), model, EXAMPLES, 0, spec=SPEC)
    assert [(r.id, r.values["count"]) for r in rows] == [("a", 1.0), ("b", 2.0), ("c", 3.0)]
    some = score_entry(ENTRY, metric(lambda es: [row(es[0]), row(es[2])]), model, EXAMPLES, 0, spec=SPEC)
    assert [r.id for r in some] == ["a", "c"]


BROKEN: dict[str, tuple[Callable[[Sequence[Example]], Iterable[Row]], str]] = {
    "nothing": (lambda es: [], "no rows"),
    "repeated": (lambda es: [row(es[0]), row(es[0])], "two rows for 'a'"),
    "nan": (lambda es: [row(es[0], values={"count": float("nan")})], "count = nan for 'a'"),
    "infinite weight": (lambda es: [row(es[1], weight=float("inf"))], "weight = inf for 'b'"),
    "negative weight": (lambda es: [row(es[1], weight=-1.0)], "negative weight for 'b'"),
    "undeclared": (lambda es: [row(es[0], values={"cuont": 1.0})], "'cuont' that its spec does not declare"),
    "no values": (lambda es: [row(es[0], values={})], "no values for 'a'"),
    "stranger": (lambda es: [row(es[0], id="d")], "'d' that is no example"),
    "order": (lambda es: [row(e) for e in reversed(es)], "not in the order"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_rows_are_the_plugins_fault(case: str, model: EvalModel) -> None:
    rows, message = BROKEN[case]
    with pytest.raises(PluginError, match=message) as caught:
        score_entry(ENTRY, metric(rows), model, EXAMPLES, 0, spec=SPEC)
    assert "cities" in str(caught.value) and caught.value.where == "acme/counting (cities)"
    assert caught.value.hint


def test_an_exception_names_the_metric_and_keeps_its_cause(model: EvalModel) -> None:
    def fails(examples: Sequence[Example]) -> Iterable[Row]:
        yield row(examples[0])
        raise ZeroDivisionError("by zero")

    with pytest.raises(PluginError, match="'cities' failed: ZeroDivisionError: by zero") as caught:
        score_entry(ENTRY, metric(fails), model, EXAMPLES, 0, spec=SPEC)
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


def test_a_suite_error_passes_and_gets_its_place(model: EvalModel) -> None:
    def fails(examples: Sequence[Example]) -> Iterable[Row]:
        raise PlanError("example 'a' has no answer", code="no-answer")

    with pytest.raises(PlanError, match="no answer") as caught:
        score_entry(ENTRY, metric(fails), model, EXAMPLES, 0, spec=SPEC)
    assert caught.value.where == "acme/counting (cities)"


def test_no_examples_is_an_error_only_where_data_is_needed(model: EvalModel) -> None:
    good = metric(lambda es: [Row("only", {"count": 1.0})])
    with pytest.raises(SuiteError, match="no examples"):
        score_entry(ENTRY, good, model, [], 0, spec=SPEC)
    free = MetricSpec("counting", "counts", "acme.metrics:Counting", SPEC.values, needs_data=False)
    assert len(score_entry(ENTRY, good, model, [], 0, spec=free)) == 1


def test_progress_counts_examples_and_is_taken_off_again(model: EvalModel) -> None:
    class Reading(Metric[NoConfig]):
        def score(self, model: EvalModel, examples: Sequence[Example], seed: int) -> Iterable[Row]:
            model.logprobs([(e.text, c) for e in examples for c in ("ab", "cdefg")])
            return [row(e) for e in examples]

    seen: list[tuple[int, int]] = []
    score_entry(ENTRY, Reading(NoConfig()), model, EXAMPLES, 0, spec=SPEC, done=lambda a, b: seen.append((a, b)))
    assert seen == sorted(seen) and seen[-1] == (3, 3) and len(seen) > 2
    assert model.progress is None


def test_parts_are_kept_and_an_interrupted_scoring_ends_with_the_same_bits(model: EvalModel) -> None:
    spec = replace(SPEC, by_example=True)
    examples = [Example(str(i), prompt=f"text number {i}") for i in range(2 * PART + 3)]
    asked: list[int] = []

    class Sampling(Metric[NoConfig]):
        def score(self, model: EvalModel, examples: Sequence[Example], seed: int) -> Iterable[Row]:
            asked.append(len(examples))
            some = [e for e in examples if e.id != "3"]  # it may leave out examples
            texts = model.generate([e.prompt for e in examples], max_new_tokens=2, seed=seed)
            chosen = dict(zip((e.id for e in examples), texts, strict=True))
            return [Row(e.id, {"count": float(sum(map(ord, chosen[e.id][0])))}) for e in some]

    parts: list[tuple[list[Row], int]] = []
    seen: list[tuple[int, int]] = []
    entry_of = partial(score_entry, ENTRY, Sampling(NoConfig()), model, examples, 7)
    whole = entry_of(spec=SPEC)
    rows = entry_of(spec=spec, keep=lambda r, n: parts.append((r, n)), done=lambda *at: seen.append(at))
    assert asked == [len(examples), PART, PART, 3] and rows == whole
    assert [n for _, n in parts] == [PART, 2 * PART]
    assert seen == sorted(seen) and seen[-1] == (len(examples), len(examples))
    assert entry_of(spec=spec, known=(parts[0][0], PART)) == rows and asked[-2:] == [PART, 3]
    assert model.first == 0
