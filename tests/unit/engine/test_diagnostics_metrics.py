"""The problem's metrics while a stage trains: their values, judges that disagree, groups that fall behind."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch

from unlearn_suite import Config, ValueSpec
from unlearn_suite.engine.diagnostics import Entry
from unlearn_suite.engine.needs import with_watchers
from unlearn_suite.engine.objective import Requirements
from unlearn_suite.specs import Diagnostics, Train

from .test_diagnostics import Gentle, Services, run, table

SHARE = ValueSpec("a share", better="higher", lowest=0, highest=1)
TOXIC = ValueSpec("toxicity", better="lower", lowest=0, highest=1, second="other")
OTHER = ValueSpec("toxicity by another", better="lower", lowest=0, highest=1)
PPL = ValueSpec("perplexity", better="lower", lowest=1, aggregate="exp-mean")


def row(index, group="", weight=1.0, **values):
    return {"id": str(index), "values": values, "weight": weight, "group": group}


class Host:
    """Hands out the rows of `answers` one after the other, and remembers what it was asked."""

    def __init__(self, want="keep", show=("share",), values=None, answers=()):
        self._entry = Entry("key", want, show, values or {"share": SHARE})
        self.answers, self.asked = list(answers), []

    def entry(self, name):
        return self._entry

    def rows(self, name, examples, originals):
        self.asked.append((name, examples, {n: t.clone() for n, t in originals.items()}))
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


def watched(examples, folder, host, services=None, *, names=("exam",), watch=None, **options):
    watch = {"metrics": names, **(watch or {})}
    options = {"detectors": ("update",), "steps": 5, **options}
    return run(examples, folder, Gentle(Config()), services, watch=watch, metrics=host, **options)


def test_entries_are_scored_before_every_few_steps_and_at_the_end_and_no_bit_changes(examples, tmp_path):
    answers = [[row(0, share=x), row(1, weight=3.0, share=1.0)] for x in (0.0, 0.2, 0.4, 0.8)]
    host = Host(answers=answers)
    model, rows, result, _ = watched(examples, tmp_path / "on", host, watch={"sample_every": 2})
    assert [row.get("diag_exam_share") for row in rows] == [None, 0.8, None, 0.85, None]
    assert result.closing["diag_exam_share"] == pytest.approx(0.95)
    assert [(name, count) for name, count, _ in host.asked] == [("exam", 64)] * 4
    bare, _, _, _ = run(examples, tmp_path / "off", Gentle(Config()), on=False, steps=5)
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), bare.parameters(), strict=True))
    first, last = host.asked[0][2], host.asked[-1][2]
    now = dict(model.named_parameters())
    assert first and all(torch.equal(first[n], last[n]) and not torch.equal(first[n], now[n]) for n in first)


def test_the_first_scores_are_remembered_for_other_cells(examples, tmp_path):
    class Remembering(Services):
        known = {}  # noqa: RUF012

        def memo(self, name, key, build):
            return self.known.setdefault(json.dumps([name, key]), build())

    before, after = [row(0, share=1.0)], [row(0, share=0.5)]
    host = Host(answers=[before, after])
    watched(examples, tmp_path, host, Remembering(), watch={"metric_examples": None})
    assert json.loads(next(iter(Remembering.known))) == ["metrics", ["key", None]]
    assert next(iter(Remembering.known.values())) == before


@pytest.mark.parametrize(("second", "fires"), [(0.8, True), (0.58, False)])
def test_judges_that_disagree_on_a_change_are_told_of(second, fires, examples, tmp_path):
    before = [row(i, toxic=0.5 + 0.1 * i, other=0.8) for i in range(3)]
    after = [row(i, toxic=0.3 + 0.1 * i, other=second + 0.05 * i) for i in range(3)]
    host = Host("lower", ["toxic"], {"toxic": TOXIC, "other": OTHER}, [before, after])
    _, _, result, services = watched(examples, tmp_path, host)
    apart = abs((0.4 - 0.6) - (second + 0.05 - 0.8))
    assert result.closing["diag_exam_toxic_apart"] == pytest.approx(apart) and (apart > 0.15) == fires
    assert any("two judges disagree" in line and "_apart" in line for line in services.said) == fires
    assert table(tmp_path)["diag_exam_toxic_apart"][4] == "above 0.15"
    assert "diag_exam_toxic_group" not in result.closing, "text to forget has no group to keep"


def test_a_metric_without_its_second_judge_is_compared_with_none(examples, tmp_path):
    host = Host("lower", ["toxic"], {"toxic": TOXIC, "other": OTHER}, [[row(0, toxic=0.5)]])
    assert "diag_exam_toxic_apart" not in watched(examples, tmp_path, host)[2].closing


def falls(before, after, groups, sign):
    """{group: (its mean fall - that of all others) - 2 SE}, in numpy."""
    change, groups = sign * (np.array(before) - np.array(after)), np.array(groups)
    found = {}
    for group in sorted(set(groups)):
        mine, others = change[groups == group], change[groups != group]
        error = math.sqrt(mine.var(ddof=1) / len(mine) + others.var(ddof=1) / len(others))
        found[group] = mine.mean() - others.mean() - 2 * error
    return found


@pytest.mark.parametrize(("better", "sign"), [("higher", 1), ("lower", -1)])
@pytest.mark.parametrize("lost", [0, 9])
def test_a_group_that_falls_behind_is_told_of(better, sign, lost, examples, tmp_path):
    groups = [g for g in "abc" for _ in range(12)]
    good = 1.0 if better == "higher" else 0.0
    before = [good if i % 4 else 1 - good for i in range(36)]
    after = [1 - good if g == "b" and i % 12 < lost else x for i, (g, x) in enumerate(zip(groups, before, strict=True))]
    spec = {"share": ValueSpec("share", better=better, lowest=0, highest=1)}
    answers = [
        [row(i, g, share=x) for i, (g, x) in enumerate(zip(groups, part, strict=True))] for part in (before, after)
    ]
    _, _, result, services = watched(examples, tmp_path, Host(values=spec, answers=answers))
    expected = falls(before, after, groups, sign)
    assert result.closing["diag_exam_share_group"] == pytest.approx(max(expected.values()))
    fired = any("one group of what is kept suffers" in line for line in services.said)
    assert fired == bool(lost) and (max(expected.values()) > 0.03) == fired
    if lost:
        assert max(expected, key=expected.__getitem__) == "b"


def test_small_groups_and_single_groups_say_nothing(examples, tmp_path):
    small = [row(i, "b" if i < 4 else "ac"[i % 2], share=1.0) for i in range(16)]
    after = [row(i, "b" if i < 4 else "ac"[i % 2], share=float(i >= 4)) for i in range(16)]
    few = watched(examples, tmp_path / "few", Host(answers=[small, after]))[2].closing
    assert few["diag_exam_share_group"] <= 0, "the group of four does not count, the others have not fallen"
    one = [row(i, "a", share=1.0) for i in range(12)]
    alone = watched(examples, tmp_path / "one", Host(answers=[one]))[2].closing
    assert "diag_exam_share_group" not in alone and alone["diag_exam_share"] == 1.0


def test_perplexities_are_exponentials_and_have_no_group_of_shares(examples, tmp_path):
    rows = [row(i, "ab"[i % 2], weight=w, ppl=n) for i, (w, n) in enumerate([(2.0, 1.0), (6.0, 3.0)])]
    closing = watched(examples, tmp_path, Host("keep", ["ppl"], {"ppl": PPL}, [rows]))[2].closing
    assert closing["diag_exam_ppl"] == pytest.approx(math.exp((2 * 1.0 + 6 * 3.0) / 8))
    assert not any(name.endswith(("_group", "_apart")) for name in closing)


def test_values_that_only_a_report_can_make_are_left_out(examples, tmp_path):
    values = {
        "auc": ValueSpec("auc", aggregate="auc"),
        "ks": ValueSpec("ks", versus="ks", of="share"),
        "share": SHARE,
    }
    host = Host("keep", ["auc", "ks", "share"], values, [[row(0, auc=0.1, share=0.5)]])
    closing = watched(examples, tmp_path, host)[2].closing
    assert [name for name in closing if name.startswith("diag_exam")] == ["diag_exam_share"]


def test_without_a_host_nothing_is_scored(examples, tmp_path):
    _, rows, result, _ = watched(examples, tmp_path, None)
    assert not any("exam" in name for found in (*rows, result.closing) for name in found)


def test_metrics_need_the_whole_model():
    train = Train(diagnostics=Diagnostics(detectors=("update",), metrics=("exam",)))
    assert with_watchers(Requirements([], reads=1), train).logits
    assert not with_watchers(Requirements([], reads=1), Train(diagnostics=Diagnostics(detectors=("probe",)))).logits


def test_how_often_to_score_is_for_metrics_as_well():
    assert Diagnostics(metrics=("exam",), sample_every=5).sample_every == 5
    with pytest.raises(ValueError, match="`metrics`"):
        Diagnostics(sample_every=5)
