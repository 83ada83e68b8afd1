"""What makes two things the same: hashes of canonical JSON and of files, fingerprints of data, versions of plugins."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pydantic_core import PydanticSerializationError, to_jsonable_python

from ..errors import PlanError, PluginError
from ..plan.model import EntryLike
from ..plugins import load_target
from ..specs import Config, DatasetSpec


def canonical(value: Any) -> str:
    """The one JSON text of a value: sorted keys, no spaces. Equal values give equal texts."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def digest(value: Any, length: int = 64) -> str:
    """The first `length` hex digits of the SHA-256 of a value's canonical JSON."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()[:length]


def fingerprint(entry: EntryLike, config: Config, examples: Sequence[Any] | None = None) -> str:
    """The dataset's own fingerprint, or the hash of its `examples` (None: they are loaded). Raises `PluginError`."""
    spec = entry.spec
    assert isinstance(spec, DatasetSpec)
    if spec.fingerprint:
        return str(load_target(spec.fingerprint)(config))
    found: Sequence[Any] = load_target(spec.load)(config) if examples is None else examples
    try:
        return digest([to_jsonable_python(asdict(example)) for example in found])
    except (PydanticSerializationError, ValueError) as error:
        message = f"dataset {entry.qualified!r} has an example whose `meta` is not plain data: {error}"
        hint = "use text, numbers, lists and mappings in `meta`"
        raise PluginError(message, code="plugin-data", where=entry.distribution, hint=hint) from error


def content_hash(path: Path) -> str:
    """SHA-256 of a file's bytes, or of the names and bytes of all files in a folder."""
    if not path.is_dir():
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    files = sorted(file for file in path.rglob("*") if file.is_file())
    return digest([[file.relative_to(path).as_posix(), content_hash(file)] for file in files])


def _by_distribution(entries: Iterable[EntryLike]) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for entry in entries:
        found.setdefault(entry.distribution, set()).add(entry.version)
    return found


def versions_of(entries: Iterable[EntryLike]) -> dict[str, str]:
    """{distribution: version}; of plugin files of one name, all versions."""
    return {name: ", ".join(sorted(versions)) for name, versions in _by_distribution(entries).items()}


def check_versions(plugins: Mapping[str, str], entries: Iterable[EntryLike], where: str) -> None:
    """Raises `PlanError` when a plugin of a cell is no longer in the version that the cell was planned with."""
    have = _by_distribution(entries)
    for name, versions in plugins.items():
        if name in have and not set(versions.split(", ")) <= have[name]:
            raise PlanError(
                f"the plugin {name} changed while the run was under way",
                code="plugin-changed",
                where=where,
                hint="run the command again: what was made with it before is kept apart",
            )
