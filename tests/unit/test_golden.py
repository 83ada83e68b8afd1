"""What others rely on changes only on purpose."""

from __future__ import annotations

import pytest

from unlearn_suite.plugins import load_catalog
from unlearn_suite.testing import golden


@pytest.mark.parametrize("name", golden.GOLDEN)
def test_nothing_that_others_rely_on_has_changed(name: str) -> None:
    found = golden.difference(name)
    told = f"to accept it: {golden.ACCEPT} (and write a line into CHANGELOG.md)"
    assert not found, f"this is a promise to others (docs/reference/stability.md); {told}\n{found}"


def test_a_change_shows_as_a_readable_difference(monkeypatch: pytest.MonkeyPatch, tmp_path, capsys) -> None:
    monkeypatch.setattr(golden, "folder", lambda: tmp_path)
    monkeypatch.setattr(golden, "GOLDEN", {"hooks.txt": golden.hooks})
    assert golden.main(["--accept"]) == 0 and golden.main([]) == 0
    monkeypatch.setattr(golden, "GOLDEN", {"hooks.txt": lambda: golden.hooks().replace("step: 'int'", "step: 'float'")})
    assert golden.main([]) == 1
    told = capsys.readouterr().out
    assert "-on_scalars" in told and "step: 'float'" in told and golden.ACCEPT in told


def test_a_plugin_that_uses_what_will_go_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    from unlearn_suite import hookspecs

    options = hookspecs.on_run_end.unlearn_suite_spec
    monkeypatch.setitem(options, "warn_on_impl_args", {"summary": DeprecationWarning("read results/summary.json")})
    plugin = tmp_path / "plug.py"
    plugin.write_text("from unlearn_suite import hookimpl\n@hookimpl\ndef on_run_end(run, summary): ...\n")
    report = load_catalog([plugin]).reports[-1]
    assert report.status == "ok" and report.notes == ("uses what will go: read results/summary.json",)
    plugin.write_text("from unlearn_suite import hookimpl\n@hookimpl\ndef on_run_end(run): ...\n")
    assert load_catalog([plugin]).reports[-1].notes == ()
