"""The page and the terminal table of a whole run."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console

from unlearn_suite.report import print_table

ReadPage = Callable[[str], Any]
ARMS = ("cosine-rmu", "probe-directions", "gradient-ascent")
SCRIPT = "<script>alert(1)</script>"


def test_the_page_is_whole_and_needs_nothing_from_elsewhere(page: str, read_page: ReadPage) -> None:
    tags = read_page(page)
    assert not {"script", "link", "img", "iframe"} & {tag for tag, _ in tags.seen}
    assert all(a.get("href", "#").startswith("#") for _, a in tags.seen)  # type: ignore[union-attr]
    assert not any("src" in attributes or "onclick" in attributes for _, attributes in tags.seen)
    assert "url(" not in page and "@import" not in page
    ids = [a["id"] for _, a in tags.seen if "id" in a]
    assert len(ids) == len(set(ids))
    targets = {a["href"] for tag, a in tags.seen if tag == "a"}
    assert targets <= {f"#{name}" for name in ids}


def test_model_output_is_escaped(page: str, read_page: ReadPage) -> None:
    assert "<script>" not in page and "<b>thing" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert SCRIPT in read_page(page).words


def test_each_problem_gets_one_sentence_from_the_numbers(page: str, read_page: ReadPage) -> None:
    words = read_page(page).words
    assert "cosine-rmu lowered “forget exact” 0.500 → 0.000 (−100 %) and kept “keep exact”" in words
    assert re.search(r"probe-directions lowered “toxicity mean” 0\.\d+ → 0\.\d+ \(−\d\d\s%\)", words)


def test_scored_texts_are_folded_away_under_a_warning(page: str, read_page: ReadPage) -> None:
    fold = page.index('<details class="warning">')
    assert "may be offensive" in page[fold : fold + 200]
    assert page.index("what a stupid thing") > fold
    assert re.search(r'<span class="score">score 0\.\d\d</span>\s*<span class="text">what a stupid thing', page)
    shown = page[: page.index('id="p1"')]
    assert "two hundred years" in shown and 'class="warning"' not in shown


def test_failures_tell_what_to_do(page: str, run_path: Path, read_page: ReadPage) -> None:
    words = read_page(page).words
    assert "1 cell did not finish" in words
    assert "loss is not finite at step 41" in words and "lower the learning rate, or clip harder" in words
    console = Console(width=80, file=io.StringIO(), force_terminal=False)
    print_table(run_path, console)
    assert "gradient-ascent.s1 failed: loss is not finite" in re.sub(r"\s+", " ", console.file.getvalue())  # type: ignore[attr-defined]


def test_pictures_are_described_and_name_every_arm(page: str, read_page: ReadPage) -> None:
    scatter = re.findall(r'<svg [^>]*class="scatter".*?</svg>', page)
    assert len(scatter) == 2
    assert all("<title>" not in s[:400] and "<desc" in s for s in scatter)
    assert all(arm in s for s in scatter for arm in ARMS)
    curves = re.findall(r'<svg [^>]*class="curve".*?</svg>', page)
    assert len([c for c in curves if "projection while training probe-directions" in c]) == 2
    assert not any("NaN" in svg or "nan" in svg for svg in scatter + curves)
    assert "auroc_fresh_probe_6" in read_page(page).words


def test_the_table_fits_80_columns_and_is_plain_without_a_terminal(run_path: Path) -> None:
    file = io.StringIO()
    print_table(run_path, Console(width=80, file=file, force_terminal=False))
    lines = file.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    assert "\x1b" not in file.getvalue()
    row = next(line for line in lines if line.startswith("  forget exact"))
    assert row.split() == ["forget", "exact", "0.500", "0.000", "−0.500", *row.split()[5:8], "✓", "lower"]
    assert any(line.startswith("gradient-ascent (1 of 2 cells done)") for line in lines)
