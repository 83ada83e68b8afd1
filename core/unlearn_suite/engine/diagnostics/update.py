"""One step's update of the trained weights: is it lost to rounding, is it too large?"""

from __future__ import annotations

from torch import Tensor

from ..objective import Scalars
from ..optim import global_norm
from ..shards import whole
from .detector import Alarm, Bench, Detector


class Update(Detector):
    """Share of entries that a step changed (in the weight or its float32 master), |d phi| / |phi| of the step, and of
    the whole way since the start. Costs a copy of the trained weights for the time of the step."""

    alarms = {  # noqa: RUF012
        "diag_changed": Alarm("updates are lost to rounding, or do not reach the weights", at_least=0.6),
        "diag_update_size": Alarm("single updates are very large", at_most=0.1),
    }

    def __init__(self) -> None:
        self._before: dict[str, tuple[Tensor, Tensor]] = {}

    def before_step(self, bench: Bench) -> None:
        weights, finest = bench.ctx.trainable, bench.ctx.optimizer.finest()
        self._before = {n: (p.detach().clone(), finest[n].detach().clone()) for n, p in weights.items()}

    def measure(self, bench: Bench) -> Scalars:
        weights, finest = bench.ctx.trainable, bench.ctx.optimizer.finest()
        original = bench.ctx.views.original
        moved = {n: p.detach().float() - original[n].float() for n, p in weights.items()}
        found = {"diag_moved": float(global_norm(moved.values()) / _size(original))}
        if self._before:
            changed = total = 0
            for name, (weight, master) in self._before.items():
                changed += int(whole(((weights[name] != weight) | (finest[name] != master)).sum()))
                total += weight.numel()
            steps = [finest[n].detach().float() - m.float() for n, (_, m) in self._before.items()]
            steps += [p.detach().float() - self._before[n][0].float() for n, p in weights.items()]
            half = len(steps) // 2
            size = max(float(global_norm(part)) for part in (steps[:half], steps[half:]))
            found |= {
                "diag_changed": changed / max(total, 1),
                "diag_update_size": size / float(_size({n: w for n, (w, _) in self._before.items()})),
            }
            self._before = {}
        return found


def _size(tensors: dict[str, Tensor]) -> Tensor:
    return global_norm(tensors.values()).clamp_min(1e-12)
