"""`unlearn-suite export`, `apply` and `patch show`: from a cell's patch to a checkpoint that others can load."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import INTERRUPTED, OK, PlanError
from .options import F, debug_option, json_option, print_json

if TYPE_CHECKING:
    from ..models.export import Exported
    from ..models.patch_file import PatchFile

_PATH: Any = click.Path(path_type=Path)
_DTYPES = ("float32", "bfloat16", "float16")


def _target_options(command: F) -> F:
    """--to, --dtype, --force and --json."""
    options: list[Callable[[F], F]] = [
        click.option("--to", "target", metavar="DIR", required=True, type=_PATH, help="New folder."),
        click.option("--dtype", type=click.Choice(_DTYPES), help="Of the checkpoint; default: what the base has."),
        click.option("--force", is_flag=True, help="Replace the checkpoint that is in DIR."),
        json_option,
    ]
    for option in reversed(options):
        command = option(command)
    return command


@click.command()
@click.argument("cell", metavar="CELL")
@_target_options
@click.option("--run", "run_dir", metavar="RUN", type=_PATH, help="The run CELL belongs to.")
@click.option("--base", metavar="REF", help="The base model, when it is not where the plan named it.")
@debug_option
def export(
    cell: str, target: Path, dtype: str | None, force: bool, as_json: bool, run_dir: Path | None, base: str | None
) -> int:
    """Write the model that CELL made.

    The result is an ordinary Hugging Face folder.

    CELL is the folder of a cell (RUN/cells/NAME), or with --run the beginning of its id or name.
    """
    from ..models.patch_file import PatchFile
    from ..models.refs import parse_ref

    folder, ref = _cell(cell, run_dir)
    patch = PatchFile(folder)
    return _write([patch], parse_ref(base) if base else ref, target, dtype, force, as_json, _plan_of(folder))


@click.command()
@click.argument("patches", metavar="PATCH...", nargs=-1, required=True, type=_PATH)
@click.option("--base", metavar="REF", required=True, help="Asset, folder, or owner/name@COMMIT of the hub.")
@_target_options
@debug_option
def apply(patches: tuple[Path, ...], base: str, target: Path, dtype: str | None, force: bool, as_json: bool) -> int:
    """Write the model that PATCH makes of a base.

    Several patches are applied one after another.

    A base or an order that the patches were not made on is refused, with the tensor and the reason.
    """
    from ..models.patch_file import PatchFile
    from ..models.refs import parse_ref

    return _write([PatchFile(path) for path in patches], parse_ref(base), target, dtype, force, as_json)


@click.group()
def patch() -> None:
    """Show what a patch changes."""


@patch.command()
@click.argument("path", metavar="PATCH", type=_PATH)
@click.option("--base", metavar="REF", help="Also tell how far each tensor moved from this base.")
@json_option
@debug_option
def show(path: Path, base: str | None, as_json: bool) -> None:
    """Show the tensors of PATCH and what made them.

    PATCH is a file, or the folder of a cell.
    """
    from ..models.patch_file import PatchFile

    opened = PatchFile(path)
    moved = _moved(opened, base) if base else {}
    if as_json:
        shown = opened.to_json()
        for name, share in moved.items():
            shown["tensors"][name]["relative_change"] = share
        print_json(shown)
        return
    for line in _lines(opened, moved):
        click.echo(line)


# --- which cell

_ANOTHER = "choose a cell of another arm"
_UNTRAINED = {
    "original": ("this cell trains nothing: its result is the base model itself", _ANOTHER),
    "random": ("this cell trains nothing: its model is random weights, drawn anew when it runs", _ANOTHER),
    "start": (
        "this cell trains nothing: its model is the one that the problem begins with",
        "apply the run's shared/starts/{key}/patch.safetensors to the base model (`unlearn-suite apply`)",
    ),
}


def _cell(text: str, run_dir: Path | None) -> tuple[Path, Mapping[str, Any]]:
    """(a cell's folder, its model reference). Raises `PlanError`."""
    from ..store import CellDir

    folder = _named_in(run_dir, text) if run_dir else Path(text)
    if not (folder / "cell.json").is_file():
        message = f"{text!r} is not the folder of a cell"
        raise PlanError(message, code="cell", hint="give RUN/cells/NAME, or the beginning of an id with --run RUN")
    cell = CellDir(folder)
    if not cell.cell["stages"]:
        message, hint = _UNTRAINED[cell.cell.get("start", {}).get("from", "original")]
        raise PlanError(message, code="cell-base", where=str(folder), hint=hint.format(**cell.cell.get("start", {})))
    if cell.status.get("dropped"):
        message = "the weights of this cell were dropped once they were scored (`compute.patches: drop`)"
        hint = f"say `patches: keep` and run the plan with --only '{folder.name}': it makes the same weights again"
        raise PlanError(message, code="cell-dropped", where=str(folder), hint=hint)
    if not cell.patch_path.is_file():
        message = f"this cell has no result yet (it is {cell.status['state']})"
        raise PlanError(message, code="cell-unfinished", where=str(folder), hint="run its plan to the end first")
    return folder, cell.cell["model_ref"]


def _named_in(run_dir: Path, text: str) -> Path:
    from ..store import RunDir

    folders = [cell.path for cell in RunDir.attach(run_dir).cells()]
    found = [path for path in folders if path.name.startswith(text) or path.name.rpartition(".")[2].startswith(text)]
    exact = [path for path in found if text in (path.name, path.name.rpartition(".")[2])]
    found = exact or found
    if len(found) == 1:
        return found[0]
    names = "\n    ".join(path.name for path in found or folders)
    message = f"{text!r} {'may be several cells' if found else 'is no cell'} of this run"
    raise PlanError(message, code="cell", where=str(run_dir), hint=f"the cells are\n    {names}")


def _plan_of(folder: Path) -> str:
    """The name of the run a cell lies in; "" when it has been copied elsewhere."""
    from ..store.atomic import read_json

    path = folder.resolve().parent.parent / "run.json"
    return str(read_json(path).get("name", "")) if path.is_file() else ""


# --- writing


def _write(
    patches: Sequence[PatchFile],
    ref: Mapping[str, Any],
    target: Path,
    dtype: str | None,
    force: bool,
    as_json: bool,
    plan: str = "",
) -> int:
    import torch

    from ..models import local_folder
    from ..models.card import about_base
    from ..models.export import export_checkpoint

    def say(text: str) -> None:
        click.echo(text, err=True)

    folder = local_folder(ref, say)
    about = {**about_base(ref, folder), **({"plan": plan} if plan else {})}
    kept = getattr(torch, dtype) if dtype else None
    with _signals() as code:
        done = export_checkpoint(folder, patches, target, about=about, dtype=kept, force=force, say=say)
    if code:
        click.echo("interrupted; nothing was written", err=True)
        return code[0]
    for line in _told(done):
        say(line)
    if as_json:
        print_json({**asdict(done), "folder": str(target)})
    else:
        click.echo(str(target))
    return OK


@contextmanager
def _signals() -> Iterator[list[int]]:
    """SIGINT and SIGTERM stop the work where it is; the list then holds the exit code."""
    from ..runner.signals import stop_on_signals

    def stop_now() -> None:
        raise KeyboardInterrupt

    code: list[int] = []
    with stop_on_signals(stop_now) as stop:
        try:
            yield code
        except KeyboardInterrupt:
            code.append(stop.code or INTERRUPTED)


def _told(done: Exported) -> Iterator[str]:
    files = "1 weight file" if done.shards == 1 else f"{done.shards} weight files"
    yield f"{len(done.tensors)} tensors changed, {files}, {done.bytes / 1e6:.0f} MB"
    if done.lost:
        share = 100 * done.lost / done.changed
        steps = ", ".join(sorted(set(done.rounded.values())))
        yield (
            f"warning: rounding ({steps}) undoes {share:.1f} % of the {done.changed} changed values; "
            "--dtype float32 keeps them all"
        )


# --- showing


def _moved(patch: PatchFile, base: str) -> dict[str, float]:
    """Tensor -> norm of its change over the norm of the base's value."""
    from ..models import local_folder
    from ..models.compose import BaseFiles, changes
    from ..models.refs import parse_ref

    files = BaseFiles(local_folder(parse_ref(base)))
    moved = {}
    for change in changes(files, [patch]):
        before = files.read(change.places[0]).double()
        moved[change.name] = float((patch.read(change.name).double() - before).norm() / before.norm())
    return moved


def _lines(patch: PatchFile, moved: Mapping[str, float]) -> Iterator[str]:
    known = patch.provenance
    size = sum(entry.size for entry in patch.entries.values())
    yield f"{patch.path}: {len(patch.entries)} changed tensors, {size / 1e6:.1f} MB"
    for key in ("id", "problem", "model", "arm", "seed", "precision"):
        if key in known:
            yield f"  {key}: {known[key]}"
    if "model_ref" in known:
        yield f"  base: {' '.join(f'{key} {value}' for key, value in known['model_ref'].items())}"
    for number, stage in enumerate(known.get("stages", ())):
        yield f"  stage {number}: {stage['use']}, {stage['train'].get('steps', '?')} steps"
    for name, entry in patch.entries.items():
        change = f"  moved by {100 * moved[name]:.3g} %" if name in moved else ""
        yield f"    {name}  {entry.code} {list(entry.shape)}{change}"
