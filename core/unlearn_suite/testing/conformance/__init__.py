"""The conformance kit: does a plugin do what the host, and whoever reads its numbers, rely on?

In an author's tests, one pytest test per check:

    from unlearn_suite.testing import conformance

    test_conformance = conformance.tests("unlearn-suite-hush")

On the command line the same is `unlearn-suite plugins check NAME`. What the kit must be told (options to try, data,
known answers, expected failures) stands in `conformance.yaml` beside the plugin's code; see docs/how-to/conformance.md.
"""

from __future__ import annotations

from .check import CHECKS, Check, CheckFailed, Result, Skipped
from .pytest_tests import tests
from .run import planned, run, run_check

__all__ = ["CHECKS", "Check", "CheckFailed", "Result", "Skipped", "planned", "run", "run_check", "tests"]
