"""The data of all cells that are to be run, checked before the first of them: no fault waits for another's training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..errors import PlanErrors, SuiteError
from ..evaluate.encode import Encoder, max_length_of
from ..models.outline import outline
from ..runner.progress import NoProgress
from ..study import canonical
from .data_checks import check_lengths
from .inputs import Inputs, forget_loaded
from .loaded import chat_of

if TYPE_CHECKING:
    from ..plugins import Catalog
    from ..study import Cell


def check_data(cells: Sequence[Cell], catalog: Catalog, *, keep: bool) -> None:
    """Raises everything that is wrong with the cells' data, each thing once. `keep`: examples stay in memory for the
    cells that this process will run."""
    faults: dict[str, SuiteError] = {}
    encoders: dict[str, Encoder | None] = {}
    for cell in {_data_of(cell): cell for cell in reversed(cells)}.values():
        try:
            inputs = Inputs(cell, catalog)
            inputs.load(NoProgress())
            key = canonical([cell.model_ref, cell.chat])
            if key not in encoders:
                encoders[key] = _encoder(cell)
            if encoder := encoders[key]:
                check_lengths(cell, inputs.roles, encoder)
        except SuiteError as error:
            faults.setdefault(error.message, error)
    if not keep:
        forget_loaded()
    found = list(reversed(faults.values()))
    if len(found) == 1:
        raise found[0]
    if found:
        raise PlanErrors(found)


def _data_of(cell: Cell) -> str:
    return canonical([cell.data, [entry.get("data") for entry in cell.metrics], cell.model_ref, cell.chat])


def _encoder(cell: Cell) -> Encoder | None:
    """What tells the length of a text, before any weights are loaded; None where that cannot be had yet."""
    try:
        model, tokenizer = outline(cell.model_ref)
    except (SuiteError, OSError, ValueError):
        return None
    return Encoder(tokenizer, max_length_of(model, tokenizer), chat_of(cell, tokenizer))
