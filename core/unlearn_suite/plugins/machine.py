"""What is nobody's bug, whoever's code runs: memory or a disk that is used up."""

from __future__ import annotations

import errno

from ..errors import PrerequisiteError

_FULL = {errno.ENOSPC: "the disk is full", errno.EDQUOT: "the disk quota is used up"}


def used_up(error: BaseException, where: str = "") -> PrerequisiteError | None:
    """What exhausted memory or a full disk means to the user; None for any other error. `where`: what was running."""
    if isinstance(error, OSError) and error.errno in _FULL:
        where = str(error.filename or where)
        hint = "free some space and run the same command again"
        return PrerequisiteError(_FULL[error.errno], code="disk-full", where=where, hint=hint)
    # torch.OutOfMemoryError by its name: this room does not import torch
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        hint = "use a smaller batch, length or compute.eval_tokens, or a micro_batch, and run the same command again"
        return PrerequisiteError("out of memory", code="out-of-memory", where=where, hint=hint)
    return None
