"""Atomic files: whole or absent; torn lines; a disk that is full."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from unlearn_suite.errors import PrerequisiteError
from unlearn_suite.store.atomic import append_jsonl, read_json, read_jsonl, write_bytes, write_json, write_text


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_write_replaces_whole_file_and_leaves_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.json"
    write_json(path, {"b": 1, "a": "é"})
    write_json(path, {"b": 2})
    assert read_json(path) == {"b": 2}
    assert names(path.parent) == ["a.json"]
    plain = path.parent / "plain"
    plain.touch()
    assert path.stat().st_mode == plain.stat().st_mode


def test_text_is_utf8_with_its_newlines(tmp_path: Path) -> None:
    write_text(tmp_path / "t", "a\r\né\n")
    assert (tmp_path / "t").read_bytes() == b"a\r\n\xc3\xa9\n"


@pytest.mark.parametrize(
    ("number", "code"), [(errno.ENOSPC, "disk-full"), (errno.EACCES, "not-writable"), (errno.EROFS, "not-writable")]
)
def test_failed_replace_keeps_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, code: str
) -> None:
    path = tmp_path / "a"
    write_bytes(path, b"old")

    def fail(*_: Any) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(PrerequisiteError) as caught:
        write_bytes(path, b"new")
    assert (caught.value.code, caught.value.where, bool(caught.value.hint)) == (code, str(path), True)
    assert path.read_bytes() == b"old" and names(tmp_path) == ["a"]


def test_full_disk_while_writing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "no space")

    write_text(tmp_path / "log", '{"a":1}\n')
    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(PrerequisiteError, match="disk full"):
        write_bytes(tmp_path / "a", b"x")
    with pytest.raises(PrerequisiteError, match="disk full"):
        append_jsonl(tmp_path / "log", {"a": 2}, durable=True)
    assert not (tmp_path / "a").exists()


def test_really_full_disk_on_linux(tmp_path: Path) -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("no /dev/full here")
    link = tmp_path / "rows.jsonl"
    link.symlink_to(full)
    with pytest.raises(PrerequisiteError, match="disk full"):
        append_jsonl(link, {"a": 1})


def test_other_os_errors_are_not_hidden(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(IsADirectoryError):
        write_bytes(tmp_path / "folder", b"x")
    assert names(tmp_path) == ["folder"]


def test_torn_last_line_is_dropped_reported_and_mended(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    append_jsonl(path, {"n": 1}, {"n": 2})
    with path.open("ab") as file:
        file.write(b'{"n": 3, "t')
    told: list[str] = []
    assert read_jsonl(path, told.append) == [{"n": 1}, {"n": 2}]
    assert len(told) == 1 and str(path) in told[0]
    append_jsonl(path, {"n": 4})
    assert read_jsonl(path, pytest.fail) == [{"n": 1}, {"n": 2}, {"n": 4}]


def test_a_torn_only_line_leaves_an_empty_list(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"n"')
    assert read_jsonl(path) == []
    append_jsonl(path, {"n": 1})
    assert read_jsonl(path) == [{"n": 1}]


def test_damage_elsewhere_is_an_error_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"n":1}\n{"n":\n{"n":3}\n')
    with pytest.raises(PrerequisiteError) as caught:
        read_jsonl(path)
    assert caught.value.where == f"{path}:2"
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(PrerequisiteError, match="not valid JSON"):
        read_json(tmp_path / "bad.json")


def test_missing_file_is_an_empty_list(tmp_path: Path) -> None:
    assert read_jsonl(tmp_path / "none.jsonl") == []


def test_text_with_line_separators_stays_one_row(tmp_path: Path) -> None:
    row = {"text": "a\u2028b\u0085c\nd", "x": float("inf")}
    append_jsonl(tmp_path / "r", row)
    assert read_jsonl(tmp_path / "r") == [row]
