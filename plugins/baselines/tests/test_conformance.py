"""The plugin keeps the kit's promises about loading and options.

The kit's checks of objectives take minutes for so many; `unlearn-suite plugins check baselines` runs them. What they
ask of training is tested for every objective in test_every_objective.py: same bits, exact resume, nothing undeclared.
"""

from __future__ import annotations

from unlearn_suite.testing import conformance

test_conformance = conformance.tests("baselines", only=["LOAD-*", "OPT-*"])
