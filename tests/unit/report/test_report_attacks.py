"""The share of what was forgotten that an attack brings back."""

from __future__ import annotations

import numpy as np
import pytest

from unlearn_suite.report.attacks import _share
from unlearn_suite.report.stats import Resampled


def around(point: float) -> Resampled:
    """A value and its resamples, a hundredth to both sides."""
    return Resampled(point, np.linspace(point - 0.01, point + 0.01, 101))


@pytest.mark.parametrize(
    ("want", "base", "gone", "back", "share"),
    [
        ("lower", 0.8, 0.2, 0.5, 0.5),
        ("higher", 2.0, 6.0, 3.0, 0.75),
        ("keep", 2.0, 6.0, 3.0, 0.75),
        ("lower", 0.2, 0.8, 0.5, None),  # it went the wrong way: nothing was forgotten
        ("higher", 6.0, 2.0, 3.0, None),
        ("lower", 0.5, 0.495, 0.5, None),
    ],
)
def test_only_what_was_forgotten_can_come_back(want: str, base: float, gone: float, back: float, share: float) -> None:
    resampled = around(gone)
    if share is None and abs(base - gone) < 0.01:  # unlike resamples, so that the change is not clear
        resampled = Resampled(gone, resampled.values[::-1])
    found = _share(around(base), resampled, around(back), want)
    assert (found is None) if share is None else (found is not None and found.mean == pytest.approx(share))
