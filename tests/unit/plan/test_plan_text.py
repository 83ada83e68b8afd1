"""YAML with places: YAML-1.2 scalars, duplicate keys, and text that is no YAML."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from unlearn_suite.errors import PlanErrors
from unlearn_suite.plan.faults import Faults
from unlearn_suite.plan.text import Node, read_yaml


def read(text: str) -> Node:
    faults = Faults()
    node = read_yaml(Path("p.yaml"), faults, text=text)
    faults.stop("p.yaml")
    assert node is not None
    return node


def told(text: str) -> list[str]:
    with pytest.raises(PlanErrors) as caught:
        read(text)
    return [str(error) for error in caught.value.errors]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-5", 1e-5), ("5e-5", 5e-5), ("1.5", 1.5), (".5", 0.5), ("-2.", -2.0), ("1E3", 1000.0),
        ("0", 0), ("-7", -7), ("+7", 7),
        ("no", "no"), ("on", "on"), ("yes", "yes"), ("Off", "Off"), ("y", "y"),
        ("true", True), ("False", False), ("null", None), ("~", None), ("", None),
        ("010", "010"), ("0o17", "0o17"), ("0x1F", "0x1F"), ("1_000", "1_000"), ("12:30:45", "12:30:45"),
        ("2024-01-01", "2024-01-01"), ("'1'", "1"), ('"true"', "true"), ("!!str 12", "12"), (".inf", math.inf),
        ("00123456789abcdef", "00123456789abcdef"), ("=", "="),
    ],
)  # fmt: skip
def test_scalars_follow_yaml_1_2(text: str, value: object) -> None:
    found = read(f"key: {text}").plain()["key"]
    assert found == value
    assert type(found) is type(value)


def test_every_key_and_value_knows_its_place() -> None:
    root = read("a: 1\nb:\n  - x\n  - {c: [2,  3]}\n")
    b = root.map["b"]
    assert str(root.map["a"].key_at) == "p.yaml:1:1"
    assert str(root.map["a"].at) == "p.yaml:1:4"
    assert str(b.items[0].at) == "p.yaml:3:5"
    c = b.items[1].map["c"]
    assert (str(c.key_at), str(c.at), str(c.items[1].at)) == ("p.yaml:4:6", "p.yaml:4:9", "p.yaml:4:14")


def test_every_duplicate_key_is_told() -> None:
    assert told("a: 1\nb: {c: 1, c: 2}\na: 3\n") == [
        "p.yaml:2:11: duplicate key 'c' (it is already on line 2)",
        "p.yaml:3:1: duplicate key 'a' (it is already on line 1)",
    ]


def test_anchors_and_merge_keys() -> None:
    root = read("base: &b {x: 1, y: 2}\nuse: *b\nmore: {<<: *b, y: 3}\n")
    assert root.plain() == {"base": {"x": 1, "y": 2}, "use": {"x": 1, "y": 2}, "more": {"y": 3, "x": 1}}
    assert str(root.map["more"].map["x"].at) == "p.yaml:1:14"


def test_byte_order_mark_and_dos_line_ends(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_bytes("\ufeffplan: 1\r\nname: é\r\n".encode())
    node = read_yaml(tmp_path / "p.yaml", Faults())
    assert node is not None
    assert node.plain() == {"plan": 1, "name": "é"}
    assert node.map["name"].at.line == 2


def test_an_alias_inside_itself() -> None:
    assert told("a: &a [1, *a]") == ["p.yaml:1:4: this alias contains itself"]


def test_aliases_cannot_fill_the_memory() -> None:
    lines = ["a0: &a0 [x,x,x,x,x,x,x,x,x,x]"]
    lines += [f"a{i}: &a{i} [{','.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 9)]
    (line,) = told("\n".join(lines))
    assert "more than 50,000 values" in line


@pytest.mark.parametrize(
    ("text", "place", "word"),
    [
        ("a: [1, 2\nb: 3\n", "p.yaml:2:2: ", "not valid YAML"),
        ("a: *nowhere\n", "p.yaml:1:4: ", "undefined alias"),
        ("a: !!python/name:os.system x\n", "p.yaml:1:4: ", "tag"),
        ("a: !!int many\n", "p.yaml:1:4: ", "tag"),
        ("? [a]\n: 1\n", "p.yaml:1:3: ", "a key must be a word"),
        ("", "p.yaml:1:1: ", "empty"),
        ("# only words\n", "p.yaml:1:1: ", "empty"),
        ("a: 1\n\tb: 2\n", "p.yaml:2:1: ", "not valid YAML"),
        ("a: \x07\n", "p.yaml:1:1: ", "not valid YAML"),
        ("[" * 5000, "p.yaml:1:1: ", "nested too deeply"),
        ("a: 1\n---\nb: 2\n", "p.yaml:2:1: ", "not valid YAML"),
    ],
)
def test_text_that_cannot_be_read(text: str, place: str, word: str) -> None:
    (line,) = told(text)
    assert line.startswith(place)
    assert word in line


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "latin.yaml").write_bytes(b"name: caf\xe9\n")
    for name, word in [("none.yaml", "no such file"), ("latin.yaml", "UTF-8"), (".", "cannot be read")]:
        faults = Faults()
        assert read_yaml(tmp_path / name, faults) is None
        with pytest.raises(PlanErrors, match=word):
            faults.stop("")
