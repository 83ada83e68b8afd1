"""The weights that a cell's stages begin from, where they are not the published model's: random ones, or those that
the problem's own `start` makes, once for all cells, in a folder below the run's `shared/starts`.

Such a folder is like a cell's: checkpoints while it is made, then one patch against the published model. The base
values of what it changes are noted in the loaded model, so a patch of the cell is against the published model too.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from ..engine.distributed import here
from .inputs import Inputs
from .training import is_under_way, train_cell
from .work import Interrupted, Work

if TYPE_CHECKING:
    from ..runner.progress import Progress
    from ..store import RunDir
    from ..study import Cell


def begin(work: Work) -> None:
    """Put the weights on the model that the first stage begins with; nothing when a later one is to go on.

    Raises `Interrupted` after a requested stop.
    """
    cell, loaded, progress = work.cell, work.loaded, work.progress
    if is_under_way(cell, work.cell_dir):
        return
    if cell.start["from"] == "random":
        loaded.bring(None, progress)
        loaded.change(random_weights(loaded.model, cell.seed))
        return
    key = str(cell.start["key"])
    home = work.cell_dir.beside(work.run.start(key))
    maker = start_cell(cell)
    with _owned(work.run, key, progress):
        if not home.patch_path.exists():
            progress.say(f"making the model that {cell.problem} begins with")
            home.write_cell(maker.to_json())
        part = Inputs(maker, work.catalog)
        part.roles = {role: work.inputs.roles[role] for role in maker.data}
        if not train_cell(replace(work, cell=maker, cell_dir=home, inputs=part)):
            raise Interrupted
        if here().lead:
            home.set_status(state="done")


def start_cell(cell: Cell) -> Cell:
    """The making of a cell's start, as a cell that ends with its training."""
    start = cell.start
    return replace(
        cell,
        id=str(start["key"]),
        arm="start",
        seed=int(start["seed"]),
        stages=start["stages"],
        training={"data": start["data"], "key": start["key"]},
        data={role: cell.data[role] for role in start["data"]},
        metrics=[],
        start={"from": "original", "control": False},
    )


def random_weights(model: Any, seed: int) -> dict[str, torch.Tensor]:
    """What the architecture's own initialisation gives, by parameter; a function of the configuration and the seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        with torch.device("cpu"):
            fresh = type(model)(model.config)
    return {name: parameter.detach() for name, parameter in fresh.named_parameters()}


@contextmanager
def _owned(run: RunDir, key: str, progress: Progress) -> Iterator[None]:
    """The lock of the making, held by the lead; the other processes go on when it has it."""
    if not here().lead:
        here().from_lead(None)
        yield
        return
    told = False

    def waiting() -> None:
        nonlocal told
        if progress.stop_requested():
            raise Interrupted
        if not told:
            progress.say("waiting for another process that makes the model to begin with")
        told = True

    with run.shared_lock(f"start-{key}", waiting):
        here().from_lead("begin")
        yield
