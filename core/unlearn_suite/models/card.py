"""What a written checkpoint says of itself: unlearning.json for programs, README.md for people."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from .. import __version__
from ..plugins.registry import WheelAsset, read_registry
from .patch_file import PatchFile
from .refs import Ref, source_of

PROVENANCE = "unlearning.json"
FORMAT = "unlearn-suite-checkpoint-1"


def about_base(ref: Ref, folder: Path) -> dict[str, Any]:
    """What is known of a base: `ref`, `name`, `source`, `licence` ("" when unknown), `identity` where it is pinned."""
    known: dict[str, Any] = {"ref": dict(ref), "name": folder.resolve().name, "source": "", "licence": ""}
    if "asset" in ref:
        asset = read_registry().models[str(ref["asset"])]
        known |= {"name": str(ref["asset"]), "source": asset.source, "licence": asset.licence}
    source = source_of(ref)
    if isinstance(source, WheelAsset):
        known["identity"] = f"sha256:{source.sha256}"
    elif not isinstance(source, Path):
        known["identity"] = f"hf:{source.hf}@{source.revision}"
        known |= {"name": source.hf, "source": known["source"] or f"https://huggingface.co/{source.hf}"}
    known["licence"] = known["licence"] or _front_matter(folder).get("license", "")
    return known


def _front_matter(folder: Path) -> dict[str, Any]:
    """The YAML head of a folder's README.md; {} when there is none."""
    try:
        parts = (folder / "README.md").read_text(encoding="utf-8").split("---\n", 2)
        head = yaml.safe_load(parts[1]) if len(parts) == 3 and not parts[0].strip() else {}
    except (OSError, ValueError, yaml.YAMLError):
        return {}
    return head if isinstance(head, dict) else {}


def write_provenance(
    base: Path, part: Path, patches: Sequence[PatchFile], about: Mapping[str, Any], rounded: Mapping[str, str]
) -> None:
    """unlearning.json: base, patches in order, and what the base's own unlearning.json said."""
    content: dict[str, Any] = {
        "format": FORMAT,
        "unlearn_suite": __version__,
        "base": dict(about),
        "patches": [patch.to_json() for patch in patches],
        "rounded": dict(rounded),
    }
    if (base / PROVENANCE).is_file():
        content["before"] = json.loads((base / PROVENANCE).read_text(encoding="utf-8"))
    (part / PROVENANCE).write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def write_card(part: Path, patches: Sequence[PatchFile], about: Mapping[str, Any]) -> None:
    """README.md with the head that the Hugging Face hub reads."""
    head: dict[str, Any] = {"library_name": "transformers", "tags": ["unlearning"]}
    repository = str(about["source"]).removeprefix("https://huggingface.co/")
    if repository and "://" not in repository:
        head["base_model"] = repository
    if about["licence"]:
        head["license"] = str(about["licence"]).lower()
    lines = ["---", yaml.safe_dump(head, sort_keys=False).strip(), "---", "", *_body(patches, about), ""]
    (part / "README.md").write_text("\n".join(lines), encoding="utf-8")


def _body(patches: Sequence[PatchFile], about: Mapping[str, Any]) -> list[str]:
    source = f" ({about['source']})" if about["source"] else ""
    licence = about["licence"] or "not known here; see the base model"
    plan = f" of the plan `{about['plan']}`" if about.get("plan") else ""
    return [
        f"# {about['name']}, with something unlearned",
        "",
        f"Base model: {about['name']}{source}. Licence of the base: {licence}.",
        "",
        f"Made by unlearn-suite {__version__} from the base and, in this order, the results{plan}:",
        "",
        *(_line(patch) for patch in patches),
        "",
        f"All options, versions and tensor hashes are in [{PROVENANCE}]({PROVENANCE}); every tensor that it does not"
        " name is the base's.",
    ]


def _line(patch: PatchFile) -> str:
    known = patch.provenance
    objectives = ", then ".join(f"`{stage['use']}`" for stage in known.get("stages", ())) or "an unknown objective"
    cell = ", ".join(f"{key} {known[key]}" for key in ("problem", "arm", "seed", "id") if key in known)
    count = len(patch.entries)
    return f"- {objectives}: {count} changed {'tensor' if count == 1 else 'tensors'}{f' ({cell})' if cell else ''}"
