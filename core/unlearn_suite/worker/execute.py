"""One cell from start to end. Every finished part is on disk before the next begins, so any kill is resumable."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from ..engine.distributed import here
from ..errors import SuiteError
from ..evaluate.encode import Encoder, max_length_of
from ..plugins.entry import KINDS
from ..study import check_versions
from .attacking import attack_cell
from .beginning import begin
from .data_checks import check_lengths
from .inputs import Inputs
from .loaded import borrowed_model, chat_of
from .scoring import score_cell
from .taking_over import take_over_scores, take_over_training
from .training import first_needs, train_cell
from .work import Interrupted, Work

if TYPE_CHECKING:
    from ..plugins import Catalog
    from ..runner.progress import Progress
    from ..store import CellDir, RunDir
    from ..study import Cell


def execute(cell: Cell, cell_dir: CellDir, catalog: Catalog, run: RunDir, progress: Progress) -> None:
    """Train (unless the patch is there), score and attack (what is not scored yet; of several processes the lead).

    Raises `SuiteError` for what the user can mend, `KeyboardInterrupt` after a requested stop.
    """
    check_versions(cell.plugins, (e for kind in KINDS for e in catalog.entries(kind)), cell.folder)
    clock = _Clock(cell_dir)
    inputs = Inputs(cell, catalog)
    with clock("load"):
        inputs.load(progress)
    with _named(cell), ExitStack() as stack:
        if here().lead and (twin := take_over_training(cell, cell_dir, run)):
            progress.say(f"trained already, as {twin}")
        here().from_lead(None)
        with clock("model"):
            progress.begin("loading the model", None)
            choose = first_needs(cell, cell_dir, catalog)
            loaded = stack.enter_context(borrowed_model(cell, progress, choose))
            progress.end()
        tokenizer = loaded.tokenizer
        encoder = Encoder(tokenizer, max_length_of(loaded.model, tokenizer), chat_of(cell, tokenizer))
        check_lengths(cell, inputs.roles, encoder)
        work = Work(cell, cell_dir, catalog, run, progress, inputs, loaded)
        if cell.start["from"] != "original":
            with clock("start"):
                begin(work)
        with clock("train"):
            finished = train_cell(work)
        if not finished:
            raise Interrupted
        if not here().lead:
            return
        if here().size > 1:  # a patch that was there already is on the model in the CPU's memory
            loaded.model.to(loaded.device)
        take_over_scores(work)
        with clock("score"):
            if not score_cell(work):
                raise Interrupted
        if cell.attacks:
            with clock("attack"):
                if not attack_cell(work):
                    raise Interrupted
        if cell.stages and cell.compute.get("patches") == "drop":
            cell_dir.drop_patch()


@contextmanager
def _named(cell: Cell) -> Iterator[None]:
    """A SuiteError without a place gets the cell as its place."""
    try:
        yield
    except SuiteError as error:
        error.where = error.where or cell.folder
        raise


class _Clock:
    """Seconds by phase, added up over interruptions, in status.json."""

    def __init__(self, cell_dir: CellDir) -> None:
        self.cell_dir = cell_dir

    @contextmanager
    def __call__(self, phase: str) -> Iterator[None]:
        start = time.monotonic()
        try:
            yield
        finally:
            known: Mapping[str, float] = self.cell_dir.status.get("seconds") or {}
            total = known.get(phase, 0.0) + time.monotonic() - start
            self.cell_dir.set_status(seconds={**known, phase: round(total, 2)})
