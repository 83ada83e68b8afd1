"""The plugin keeps the promises of the conformance kit."""

from __future__ import annotations

from unlearn_suite.testing import conformance

test_conformance = conformance.tests("attacks")
