"""The door to one cell: loads its model and data, runs its stages, scores its metrics.

This is where the rooms meet; like the CLI it may import all of them.
"""

from .execute import execute

__all__ = ["execute"]
