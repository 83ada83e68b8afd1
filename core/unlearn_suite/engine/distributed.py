"""The processes that share one stage: who leads, and how numbers, decisions and objects become the same on all.

A stage runs the same code on every process. A batch that `StageContext.draw` gives is this process's share of the
rows, with the whole batch's totals; so losses and gradients are parts of a sum, and `Processes.total` adds them up.
Only the first process, the lead, writes files and speaks.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor

from ..errors import PlanError, PrerequisiteError

if TYPE_CHECKING:
    from .context import Services
    from .diagnostics.metrics import Entry, Metrics, Rows
    from .shards import ShardedWeights

PEER_LOST = "process-lost"
"""code of the error that a process meets because another one has ended"""
_PATIENCE = timedelta(days=1)
"""longest wait for another process that is still alive: sampling and scorers take their time on the lead"""


class Processes:
    """All processes of this stage, in one machine or many. Alone, every method returns what it was given."""

    def __init__(self, rank: int = 0, size: int = 1) -> None:
        self.rank = rank
        """number of this process, from 0"""
        self.size = size
        """how many there are"""

    @property
    def lead(self) -> bool:
        """True on the one process that writes files and speaks."""
        return self.rank == 0

    def total(self, values: Sequence[float]) -> list[float]:
        """Sums over the processes, the same bits on all."""
        if self.size == 1:
            return list(values)
        sums = torch.tensor(list(values), dtype=torch.float64)
        dist.all_reduce(sums)
        numbers: list[float] = sums.tolist()
        return numbers

    def any(self, flag: bool) -> bool:
        """True on all processes when it is on one."""
        return self.total([float(flag)])[0] > 0

    def from_lead(self, value: Any) -> Any:
        """The lead's value (picklable), on all processes."""
        if self.size == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0)
        return box[0]


def here() -> Processes:
    """The processes this one has been joined with."""
    if dist.is_available() and dist.is_initialized():
        return Processes(dist.get_rank(), dist.get_world_size())
    return Processes()


def launched() -> int:
    """How many processes torchrun has started for the work at hand; 1 without it."""
    return int(os.environ.get("WORLD_SIZE", "1")) if "LOCAL_RANK" in os.environ else 1


def device_of_process(kind: str) -> torch.device:
    """This process's own device of a kind. Raises `PrerequisiteError` when the machine has too few."""
    if kind != "cuda":
        return torch.device(kind)
    index = int(os.environ.get("LOCAL_RANK", "0"))
    if index >= torch.cuda.device_count():
        raise PrerequisiteError(
            f"process {index} has no CUDA device of its own: torch finds {torch.cuda.device_count()}",
            code="device",
            where="compute.devices",
            hint="set compute.devices to the number of devices, or compute.device to cpu",
        )
    torch.cuda.set_device(index)
    return torch.device("cuda", index)


@contextmanager
def joined() -> Iterator[Processes]:
    """Join the processes that torchrun has started: NCCL for tensors on CUDA, gloo for all else."""
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    dist.init_process_group(backend, timeout=_PATIENCE)
    try:
        yield here()
    finally:
        dist.destroy_process_group()


@contextmanager
def peers_watched() -> Iterator[None]:
    """What torch raises when another process has gone becomes one `PrerequisiteError` with code `PEER_LOST`."""
    try:
        yield
    except RuntimeError as error:
        if here().size == 1 or not _speaks_of_peers(error):
            raise
        raise PrerequisiteError(
            "another process of this cell has ended",
            code=PEER_LOST,
            hint="read the cell's worker.log, then run the same command again to go on from the last checkpoint",
        ) from error


@contextmanager
def guarded(guard: Callable[[], AbstractContextManager[Any]]) -> Iterator[None]:
    """`guard` of calls into an objective, without blame for a process that has gone, or for what needs one device."""
    with guard(), peers_watched(), _shards_alone():
        yield


_NEED_ONE_DEVICE = ("mixed torch.Tensor and DTensor", "out of bounds for storage of size 0")
"""what torch says of a whole tensor beside a shard, and of a gathered weight that has been given back"""


@contextmanager
def _shards_alone() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        if not any(words in str(error) for words in _NEED_ONE_DEVICE):
            raise
        raise PlanError(
            "the objective, as it is set, works on whole weights by hand, which are spread over devices: it needs one",
            code="needs-one-device",
            hint="set compute.devices to 1 (its author finds the rules in docs/how-to/several-devices.md)",
        ) from error


def _speaks_of_peers(error: RuntimeError) -> bool:
    return isinstance(error, dist.DistError) or any(word in str(error) for word in ("/gloo/", "NCCL", "[Gloo]"))


class SharedServices:
    """The host's services for a stage on several processes: the lead does the work, all get its result."""

    def __init__(self, inner: Services, processes: Processes, weights: ShardedWeights) -> None:
        self._inner = inner
        self._processes = processes
        self._weights = weights

    def sample(self, prompts: Sequence[str], **options: Any) -> list[list[str]]:
        """The whole model is gathered on every process for it."""
        with self._weights.whole():
            texts = self._inner.sample(prompts, **options) if self._processes.lead else None
            result: list[list[str]] = self._processes.from_lead(texts)
        return result

    def memo(self, name: str, key: Any, build: Callable[[], Any]) -> Any:
        """Every process builds what is not known yet (building may read the sharded model); the lead's is kept."""
        if not self._processes.lead:
            if self._processes.from_lead(None) == "build":
                build()
            return self._processes.from_lead(None)
        told = False

        def build_on_all() -> Any:
            nonlocal told
            told = True
            self._processes.from_lead("build")
            return build()

        value = self._inner.memo(name, key, build_on_all)
        if not told:
            self._processes.from_lead("known")
        return self._processes.from_lead(value)

    def statistics(self, texts: Sequence[str]) -> Mapping[str, float]:
        return self._inner.statistics(texts)

    def say(self, text: str) -> None:
        if self._processes.lead:
            self._inner.say(text)

    def warn(self, text: str) -> None:
        if self._processes.lead:
            self._inner.warn(text)


class SharedMetrics:
    """The problem's metrics for a stage on several processes: the lead scores, all get its rows."""

    def __init__(self, inner: Metrics, processes: Processes, weights: ShardedWeights) -> None:
        self._inner = inner
        self._processes = processes
        self._weights = weights

    def entry(self, name: str) -> Entry:
        return self._inner.entry(name)

    def rows(self, name: str, examples: int | None, originals: Mapping[str, Tensor]) -> Rows:
        """The whole model is gathered on every process for it."""
        with self._weights.whole():
            rows = self._inner.rows(name, examples, originals) if self._processes.lead else None
            result: Rows = self._processes.from_lead(rows)
        return result
