"""Model output before and after, side by side: for each example the base model and every arm."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .load import CellData, Entry, Json, RunData
from .measures import Measure
from .summary import ProblemSummary
from .words import number

SHOWN = 4
MORE = 20
MOST_LETTERS = 1200
SHORT = 60
MOST_PIECES = 6
_GIVEN = frozenset({"prompt", "question", "answer", "target", "expected", "choices", "context", "reference"})
_PRODUCED = frozenset({"output", "outputs", "continuation", "continuations", "generation", "completion", "chosen"})


@dataclass(frozen=True)
class Piece:
    """One text of a model, with a score when the metric gives one per text."""

    text: str
    score: str = ""


@dataclass(frozen=True)
class Column:
    """What one arm wrote for one example, and the example's scores under it."""

    arm: str
    fields: tuple[tuple[str, tuple[Piece, ...]], ...]
    scores: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Sample:
    id: str
    group: str
    given: tuple[tuple[str, str], ...]
    columns: tuple[Column, ...]


@dataclass(frozen=True)
class SampleSet:
    """Samples of one entry. `sensitive`: the texts are scored for harm, so a reader opens them on purpose."""

    entry: Entry
    sensitive: bool
    arms: tuple[str, ...]
    shown: tuple[Sample, ...]
    more: tuple[Sample, ...]
    total: int

    @property
    def compact(self) -> bool:
        """Whether a row of a table can hold all that the models wrote: nothing, or one short text."""
        columns = [column for sample in self.shown + self.more for column in sample.columns]
        texts = [[piece.text for _, pieces in column.fields for piece in pieces] for column in columns]
        return all(len(found) <= 1 and all(len(text) <= SHORT for text in found) for found in texts)

    @property
    def extent(self) -> str:
        """'all 12', or '24 of 60, drawn by a hash ...'."""
        here = len(self.shown) + len(self.more)
        if here == self.total:
            return f"all {here}"
        return f"{here} of {self.total}, drawn by a hash of the example's name, not picked"


@dataclass(frozen=True)
class _Source:
    """One column's rows by example id."""

    arm: str
    texts: Mapping[str, Json]
    scores: Mapping[str, Json]


def sample_sets(run: RunData, problem: ProblemSummary) -> list[SampleSet]:
    """One set per entry that kept samples."""
    sources = {}
    for measure in problem.headlines:
        found = list(_sources(run, problem, measure.entry))
        if any(source.texts for source in found):
            sources[measure.entry.name] = (measure, found)
    harmful = {m.entry.data for m, found in sources.values() if _has_scored_texts(found)}
    return [_set(problem, measure, found, measure.entry.data in harmful) for measure, found in sources.values()]


def _sources(run: RunData, problem: ProblemSummary, entry: Entry) -> Iterable[_Source]:
    """The base model and then every arm, each by its first seed that has samples."""
    with_entry = [c for c in problem.cells if entry.name in c.entries]
    base = next((_base_source(run, problem, c, c.entries[entry.name]) for c in with_entry), None)
    if base is not None and base.texts:
        yield base
    for arm in problem.arms:
        for cell in with_entry:
            own = cell.entries[entry.name]
            if cell.arm == arm and (texts := run.samples(cell, own)):
                yield _Source(arm, _by_id(texts), _by_id(run.score_rows(cell, own)))
                break


def _base_source(run: RunData, problem: ProblemSummary, cell: CellData, entry: Entry) -> _Source:
    home = run.base_cell(problem.problem, problem.model)
    texts, rows = run.base_samples(entry), run.base_rows(entry)
    if home is not None and not texts and entry.name in home.entries:
        own = home.entries[entry.name]
        texts, rows = run.samples(home, own), run.score_rows(home, own)
    return _Source(problem.base_arm, _by_id(texts), _by_id(rows))


def _by_id(rows: Sequence[Json]) -> dict[str, Json]:
    return {str(row["id"]): _scored(row) for row in rows if "id" in row}


def _scored(row: Json) -> Json:
    """`{"output": [texts], "score": [numbers]}` as `{"output": [{"text", "score"}]}`; any other row as it is."""
    scores = row.get("score")
    if not isinstance(scores, list):
        return row
    twin = next((k for k, v in row.items() if k != "score" and isinstance(v, list) and len(v) == len(scores)), None)
    if twin is None or not all(isinstance(text, str) for text in row[twin]):
        return row
    pairs = [{"text": text, "score": score} for text, score in zip(row[twin], scores, strict=True)]
    return {k: pairs if k == twin else v for k, v in row.items() if k != "score"}


def _has_scored_texts(sources: Sequence[_Source]) -> bool:
    rows = (row for source in sources for row in source.texts.values())
    return any(isinstance(item, Mapping) for row in rows for v in row.values() if isinstance(v, list) for item in v)


def _set(problem: ProblemSummary, measure: Measure, sources: list[_Source], sensitive: bool) -> SampleSet:
    ids = list(dict.fromkeys(i for source in sources for i in source.texts))
    # a fixed order that owes nothing to the texts: nobody picked these
    chosen = sorted(ids, key=lambda i: hashlib.sha256(i.encode()).digest())[: SHOWN + MORE]
    given = _given_fields(sources)
    labels = [m.info.name for m in problem.measures if m.entry.name == measure.entry.name and m.shown]
    built = [_sample(i, sources, given, labels) for i in chosen]
    arms = tuple(source.arm for source in sources)
    return SampleSet(measure.entry, sensitive, arms, tuple(built[:SHOWN]), tuple(built[SHOWN:]), len(ids))


def _given_fields(sources: Sequence[_Source]) -> set[str]:
    """Fields that are part of the example: known names, and those on which the base and all arms agree."""
    names = {k for source in sources for row in source.texts.values() for k in row if k != "id"}
    if len(sources) < 2:
        return names & _GIVEN
    first, others = sources[0], sources[1:]
    same = {
        n
        for n in names - _PRODUCED
        if all(o.texts[i].get(n) == row.get(n) for i, row in first.texts.items() for o in others if i in o.texts)
    }
    return same | (names & _GIVEN)


def _sample(example: str, sources: Sequence[_Source], given: set[str], labels: Sequence[str]) -> Sample:
    row = next(source.texts[example] for source in sources if example in source.texts)
    scored = next((source.scores[example] for source in sources if example in source.scores), {})
    told = tuple((k, _plain(v)) for k, v in row.items() if k in given and v not in ("", None))
    columns = []
    for source in sources:
        own = source.texts.get(example, {})
        fields = tuple((k, _pieces(v)) for k, v in own.items() if k != "id" and k not in given)
        values = source.scores.get(example, {}).get("values") or {}
        scores = tuple((n, _score(values[n])) for n in labels if n in values)
        columns.append(Column(source.arm, fields, scores))
    return Sample(example, str(scored.get("group") or ""), told, tuple(columns))


def _pieces(value: Any) -> tuple[Piece, ...]:
    """The first of a text, a list of texts, or a list of {"text", "score"}."""
    items = value if isinstance(value, list) else [value]
    found = []
    for item in items[:MOST_PIECES]:
        if isinstance(item, Mapping) and "text" in item:
            found.append(Piece(_plain(item["text"]), _score(item.get("score"))))
        else:
            found.append(Piece(_plain(item)))
    if len(items) > MOST_PIECES:
        found.append(Piece(f"… and {len(items) - MOST_PIECES} more"))
    return tuple(found)


def _plain(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    text = text.strip()
    return text if len(text) <= MOST_LETTERS else f"{text[:MOST_LETTERS]} … ({len(text) - MOST_LETTERS:,} letters more)"


def _score(value: Any) -> str:
    if not isinstance(value, int | float):
        return ""
    return number(float(value), 0 if float(value).is_integer() else 2)
