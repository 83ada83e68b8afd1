"""A cell's attacks: each changes the unlearned weights, is scored at its points, and is undone."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import closing
from typing import Any

from ..engine.attack import Attack, AttackContext
from ..errors import PluginError
from ..plugins import Entry, blame, load_target
from ..specs import AttackSpec
from ..study import attacked
from .loaded import chat_of
from .scoring import Stopped, eval_model, score_as, tell_scores
from .work import Work


def attack_cell(work: Work) -> bool:
    """Carry out what is not scored yet. False when a stop was asked for before the end.

    An attack that was interrupted begins again; the points that have scores are only passed.
    """
    cell, cell_dir, progress, loaded = work.cell, work.cell_dir, work.progress, work.loaded
    entries = {metric["name"]: metric for metric in cell.metrics}
    for attack in cell.attacks:
        scored = list(attacked([attack]))
        missing = [one for one in scored if not cell_dir.has_scores(one.name)]
        if not missing:
            continue
        loaded.bring(None, progress)
        entry = work.catalog.find("attack", attack["use"])
        chat = chat_of(cell, loaded.tokenizer)
        roles = {role: work.inputs.roles[role] for role in attack["data"]}
        ctx = AttackContext(
            loaded.model, loaded.tokenizer, roles, cell.seed, dict(loaded.originals), progress.say, chat
        )
        points = list(dict.fromkeys(one.point.name for one in scored))
        try:
            with closing(_walk(entry, attack, points, ctx)) as walk:
                progress.begin(f"attack {attack['name']}", None)
                for point in walk:
                    progress.end()
                    here = [one for one in missing if one.point.name == point]
                    if progress.stop_requested():
                        return False
                    model = eval_model(cell, loaded, ctx.published())
                    for one in here:
                        score_as(one.name, entries[one.metric], work, model)
                        tell_scores(one.name, work)
                    if point == missing[-1].point.name:
                        break
                    progress.begin(f"attack {attack['name']}, after {point}", None)
        except Stopped:
            return False
        finally:
            ctx.restore()
    return True


def _walk(entry: Entry, attack: Mapping[str, Any], points: list[str], ctx: AttackContext) -> Generator[str]:
    """The names of the points, as the attack reaches them. Raises `PluginError` when they are not what it declares."""
    spec = entry.spec
    assert isinstance(spec, AttackSpec)
    with blame(entry):
        plugin: Attack[Any] = load_target(spec.load)(spec.config(**attack["with"]))
        steps = iter(plugin.run(ctx))
    try:
        for expected in points:
            with blame(entry):
                found = next(steps, None)
            if found is None or found.name != expected:
                told = f"is at {found.name!r}" if found else "ends"
                raise PluginError(
                    f"attack {spec.name!r} {told} where its options promise the point {expected!r}",
                    code="plugin-attack",
                    where=entry.distribution,
                    hint="let `run` yield what `points` tells, in its order",
                )
            yield expected
    finally:
        if hasattr(steps, "close"):  # as a generator has, and a plain iterator has not
            with blame(entry):
                steps.close()
