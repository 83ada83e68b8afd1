"""Plan x Catalog -> ordered cells, each named by a hash of everything that can change its result."""

from .cell import Attacked, Cell, attacked
from .cells import build_cells
from .identity import canonical, check_versions, content_hash, digest, fingerprint

__all__ = [
    "Attacked",
    "Cell",
    "attacked",
    "build_cells",
    "canonical",
    "check_versions",
    "content_hash",
    "digest",
    "fingerprint",
]
