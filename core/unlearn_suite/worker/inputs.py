"""A cell's data: every role's examples, loaded once per process and dataset configuration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..errors import PlanError, PrerequisiteError
from ..plugins import blame, load_target
from ..specs import DatasetSpec, Example
from ..study import canonical, fingerprint
from .data_checks import check_examples, doubts

if TYPE_CHECKING:
    from ..plugins import Catalog
    from ..runner.progress import Progress
    from ..study import Cell

_loaded: dict[str, tuple[Example, ...]] = {}


def forget_loaded() -> None:
    """Let go of the examples that this process has loaded."""
    _loaded.clear()


class Inputs:
    """Examples by role. A role of several datasets is their concatenation."""

    def __init__(self, cell: Cell, catalog: Catalog) -> None:
        self.cell = cell
        self.catalog = catalog
        self.roles: dict[str, tuple[Example, ...]] = {}

    def load(self, progress: Progress) -> None:
        """Raises `PluginError` when a dataset's code fails, `PrerequisiteError` when one is empty, `PlanError` for
        examples that no evaluation can use, or that are others than those the cell is named by."""
        progress.begin("loading data", len(self.cell.data))
        for done, (role, sources) in enumerate(self.cell.data.items(), start=1):
            examples = tuple(e for source in sources for e in self._filled(role, source))
            self.roles[role] = examples
            progress.update(done)
        check_examples(self.cell, self.roles)
        for told in doubts(self.cell, self.roles):
            progress.warn(told)
        progress.end()

    def _filled(self, role: str, source: Mapping[str, Any]) -> Sequence[Example]:
        examples = self._source(source)
        if not examples:
            raise PrerequisiteError(
                f"the data role {role!r} has no examples from {source['use']}",
                code="empty-role",
                where=f"problem {self.cell.problem!r}",
                hint="check the dataset's options (a subject, a part, a filter)",
            )
        return examples

    def _source(self, source: Mapping[str, Any]) -> Sequence[Example]:
        key = canonical([source["use"], source["with"], source.get("fingerprint", "")])
        if key not in _loaded:
            entry = self.catalog.find("dataset", source["use"])
            spec = entry.spec
            assert isinstance(spec, DatasetSpec)
            config = spec.config(**source["with"])
            with blame(entry):
                examples = tuple(load_target(spec.load)(config))
                found = fingerprint(entry, config, examples)
            if found != source.get("fingerprint", found):
                raise PlanError(
                    f"the data of {source['use']} changed while the run was under way",
                    code="data-changed",
                    where=f"problem {self.cell.problem!r}",
                    hint="run the command again: what was made of the data before is kept apart",
                )
            _loaded[key] = examples
        return _loaded[key]
