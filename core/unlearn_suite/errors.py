"""Every failure a user can cause or meet: one sentence, its place, one next step, and an exit code.

Anything that is raised and is not a `SuiteError` is a bug of ours (exit 70), unless its frames say it
came out of a plugin (then it is wrapped into a `PluginError` that names the plugin).
"""

from __future__ import annotations

from collections.abc import Sequence

OK = 0
SOME_CELLS_FAILED = 1
USAGE = 2
PLUGIN = 3
PREREQUISITE = 4
GATE = 5
BUG = 70
INTERRUPTED = 130
TERMINATED = 143


class SuiteError(Exception):
    """A failure with a stable `code`, one sentence, `where` it is, and one `hint` what to do.

    `where` is "file:line:col", a distribution, a path or a cell; `hint` is an imperative half-sentence.
    """

    exit_code: int = BUG

    def __init__(self, message: str, *, code: str, where: str = "", hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.where = where
        self.hint = hint

    def __str__(self) -> str:
        place = f"{self.where}: " if self.where else ""
        hint = f" ({self.hint})" if self.hint else ""
        return f"{place}{self.message}{hint}"


class PlanError(SuiteError):
    """One thing that is wrong in a plan, a problem fragment or a command line."""

    exit_code = USAGE


class PlanErrors(SuiteError):
    """Everything that is wrong in a plan, at once, in the order of the file; or in its data, cell by cell."""

    exit_code = USAGE

    def __init__(self, errors: Sequence[SuiteError]) -> None:
        self.errors = list(errors)
        super().__init__("\n".join(str(e) for e in self.errors), code="plan")


class PluginError(SuiteError):
    """A plugin that cannot be loaded, is missing, or raised in its own code."""

    exit_code = PLUGIN


class PrerequisiteError(SuiteError):
    """The machine lacks something: device, memory, disk, network, an asset, an optional package."""

    exit_code = PREREQUISITE


class TrainingError(SuiteError):
    """A cell's training cannot go on (a loss that is not finite, say). Other cells do."""

    exit_code = SOME_CELLS_FAILED


class GateError(SuiteError):
    """The run is complete and an `expect` line of the plan does not hold."""

    exit_code = GATE
