"""What a process has in RAM beside torch's tensors."""

from __future__ import annotations

import ctypes
import gc
from contextlib import suppress

import torch

from ...engine.accounting import PeakMemory


def resident() -> int:
    """Bytes that this process has in RAM now, without what is free in it: interpreter, libraries, objects.

    After a trace all libraries are in it that the traced work imports when it needs them (adapters, probes). Where the
    system cannot tell what is in RAM now, the most that was.
    """
    gc.collect()
    give_back()
    return PeakMemory(torch.device("cpu")).peak() or 0


def give_back() -> None:
    """Have glibc's malloc give the pages back that are free in it."""
    with suppress(OSError, AttributeError, TypeError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)
