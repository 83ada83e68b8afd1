"""What a cell will need, told without loading its model: memory, disk, FLOPs, and whether it fits."""

from .cell import CellEstimate, estimate_cells

__all__ = ["CellEstimate", "estimate_cells"]
