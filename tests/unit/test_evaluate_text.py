"""Text statistics on texts counted by hand."""

from __future__ import annotations

import pytest

from unlearn_suite import TEXT_STATISTICS, text_statistics
from unlearn_suite.evaluate.text import distinct, repetition


def test_known_counts() -> None:
    texts = ["a b a b a b", "  "]
    stats = text_statistics(texts, [text.split() for text in texts])
    assert stats == {
        "length": 3.0,
        "distinct-1": pytest.approx(2 / 6),
        "distinct-2": pytest.approx(2 / 5),  # ab, ba
        "distinct-3": pytest.approx(2 / 4),  # aba, bab
        "repetition": pytest.approx((1 / 3 + 0) / 2),  # abab baba abab: one of three repeats
        "empty": 0.5,
    }
    assert set(stats) == set(TEXT_STATISTICS)


def test_pairs_do_not_cross_samples() -> None:
    assert distinct([["a", "b"], ["a", "b"]], 2) == 0.5
    assert distinct([["a"], ["b"]], 2) == 0.0


def test_a_loop_repeats_and_a_sentence_does_not() -> None:
    assert repetition(["no"] * 20) == pytest.approx(1 - 1 / 17)
    assert repetition(list(range(20))) == 0.0
    assert repetition(["too", "short"]) == 0.0


def test_no_text_is_not_diverse() -> None:
    stats = text_statistics([""], [[]])
    assert stats == {name: float(name == "empty") for name in TEXT_STATISTICS}
    with pytest.raises(ValueError, match="one or more"):
        text_statistics([], [])
