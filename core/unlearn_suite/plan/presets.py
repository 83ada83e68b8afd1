"""Presets: settings of an objective for a kind of model, shipped by its plugin, laid under a stage's own words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ..specs import Config, ObjectiveSpec
from .check import check
from .faults import Faults, suggest
from .packaged import merge, packaged_file
from .text import Node, read_yaml


class PresetWords(Config):
    """One preset of a file of presets (name -> preset). Comments beside its fields tell their sources."""

    summary: str
    """one sentence: for which model, and after what"""
    tried: str = ""
    """where its results are, "" when it has not been run at that scale"""
    stage: dict[str, Any]
    """the stage's keys: how it trains, and the options under `with`"""


def read_presets(spec: ObjectiveSpec, faults: Faults, at: Any = "") -> Mapping[str, tuple[PresetWords, Node]]:
    """{name: (its words, the tree of its stage)}; {} when the objective ships none or the file is wrong."""
    if not spec.presets:
        return {}
    try:
        path = packaged_file(spec.presets)
    except (ImportError, TypeError, ValueError) as error:
        message = f"the presets {spec.presets!r} of objective {spec.name!r} cannot be found: {error}"
        faults.add(at, message, "plan-preset", "tell the plugin's author")
        return {}
    root = read_yaml(path, faults)
    found = {}
    for name, node in (root.map if root else {}).items():
        words = check(node, PresetWords, faults)
        if words is not None:
            found[name] = (words, node.map["stage"])
    return found


def under_preset(stage: Node, spec: ObjectiveSpec, faults: Faults) -> tuple[Node, str]:
    """The stage with its preset's settings where it has none of its own, and a note for the user or ""."""
    named = stage.under("preset")
    if named is None or named.value is None:
        return stage, ""
    presets = read_presets(spec, faults, named.at)
    own = replace(stage, value={key: child for key, child in stage.map.items() if key != "preset"})
    name = str(named.value)
    if name not in presets:
        if len(presets) or not spec.presets:
            hint = suggest(name, presets, all_of_them="its presets") or "it ships none"
            faults.add(named.at, f"objective {spec.name!r} has no preset {name!r}", "plan-preset", hint)
        return own, ""
    words, settings = presets[name]
    note = "" if words.tried else f"preset {name!r} of {spec.name} has not been run at its scale: check its results"
    return merge(settings, own), note
