"""What is kept of a stage beside its weights: probes and directions as files, and tables for the run's page."""

from __future__ import annotations

import json
from typing import Any

from unlearn_suite import Scalars, StageContext

from . import probes
from .steering import Steering

TOKENS = 8


def save(ctx: StageContext, steering: Steering) -> None:
    """probes.json, directions.safetensors, and tables on the page (again after new probes were added)."""
    from safetensors.torch import save_file

    (ctx.artifacts / "probes.json").write_text(json.dumps(_table(steering), indent=1), encoding="utf-8")
    vectors = {}
    for block, direction in steering.directions.items():
        for i, axis in enumerate(direction.axes):
            name = f"{block}.{i}" if i else str(block)
            vectors[name] = axis.read.cpu().contiguous()
            if axis.edit is not axis.read and not bool((axis.edit == axis.read).all()):
                vectors[f"{name}.edit"] = axis.edit.cpu().contiguous()
    save_file(vectors, ctx.artifacts / "directions.safetensors")
    _show_probes(ctx, steering)
    _show_cosines(ctx, steering)
    _show_tokens(ctx, steering)


def _table(steering: Steering) -> dict[str, Any]:
    corpus = steering.corpus
    blocks = {}
    for block, probe in steering.probes.items():
        row: dict[str, Any] = {n: getattr(probe, n) for n in ("auroc", "accuracy", "c", "cos_diffmean", "bias")}
        if block in steering.directions:
            first = steering.directions[block].axes[0]
            axes = [{n: getattr(a, n) for n in ("mu0", "sd0", "scale")} for a in steering.directions[block].axes]
            row |= {"mu0": first.mu0, "scale": first.scale, "weight": steering.weights[block], "axes": axes}
        if block in steering.effects:
            effect = steering.effects[block]
            row |= {"causal_toxicity": effect.toxicity, "causal_drop": effect.drop, "causal_kl": effect.kl}
        row["left_out"] = steering.left_out.get(block, "")
        blocks[str(block)] = row
    names = ("toxic", "benign", "toxic_val", "benign_val")
    return {
        "source": corpus.source,
        "texts": {name: len(getattr(corpus, name)) for name in names},
        "refreshed": steering.rounds,
        "blocks": blocks,
    }


def _show_probes(ctx: StageContext, steering: Steering) -> None:
    table = _table(steering)
    columns = ["block", "AUROC", "accuracy", "C", "cos with mean difference", "axes", "toxic - benign", "weight"]
    if steering.effects:
        columns += ["toxicity without v", "drop", "KL on benign text"]
    columns += ["left out because"]
    rows: list[list[float | int | str | None]] = []
    for block, row in table["blocks"].items():
        cells = [int(block), row["auroc"], row["accuracy"], row["c"], row["cos_diffmean"]]
        cells += [len(row.get("axes", ())), row.get("scale"), row.get("weight")]
        if steering.effects:
            cells += [row.get(name) for name in ("causal_toxicity", "causal_drop", "causal_kl")]
        rows.append([*cells, row["left_out"]])
    texts = table["texts"]
    note = (
        f"Fitted on {texts['toxic']} toxic and {texts['benign']} benign texts ({table['source']}), judged on "
        f"{texts['toxic_val']} and {texts['benign_val']} of other prompts; C is the inverse regularisation strength."
    )
    ctx.report.table("Probes", columns, rows, note)


def _show_cosines(ctx: StageContext, steering: Steering) -> None:
    if len(steering.blocks) < 2:
        return
    vectors = [steering.directions[b].v for b in steering.blocks]
    rows: list[list[float | int | str | None]] = [
        [block, *(float(v @ other) for other in vectors)] for block, v in zip(steering.blocks, vectors, strict=True)
    ]
    note = "Cosines between the directions of two blocks: near 1 means that one direction would have done."
    ctx.report.table("Directions compared", ["block", *map(str, steering.blocks)], rows, note)


def _show_tokens(ctx: StageContext, steering: Steering) -> None:
    """The logit lens: which tokens a step along v makes more likely, if nothing came after this block."""
    import torch

    vectors = torch.stack([steering.directions[b].v for b in steering.blocks])
    with torch.no_grad():
        scores = ctx.reference.unembed(vectors.to(next(iter(ctx.trainable.values())).dtype))
    count = min(TOKENS, scores.shape[1])
    rows: list[list[float | int | str | None]] = []
    for block, row in zip(steering.blocks, scores.float(), strict=True):
        most, least = row.topk(count).indices.tolist(), row.topk(count, largest=False).indices.tolist()
        rows.append([block, *(", ".join(repr(ctx.tokenizer.decode([t])) for t in ids) for ids in (most, least))])
    note = "The LM head on v. Toxic words there are not needed for a direction to work, and do not prove that it does."
    ctx.report.table("Tokens along the directions", ["block", "towards toxic", "towards benign"], rows, note)


def evasion(ctx: StageContext, steering: Steering) -> dict[str, Scalars]:
    """{name: {block: AUROC}}: the probes before training, the same on the trained model, and fresh ones."""
    read = steering.reader.features(ctx.policy, steering.corpus)
    found: dict[str, dict[Any, float]] = {"auroc_before": {}, "auroc_old_probe": {}, "auroc_fresh_probe": {}}
    for block in steering.blocks:
        data, before = read[block], steering.probes[block]
        fresh = probes.fit(data.x, data.y, data.x_val, data.y_val)
        found["auroc_before"][block] = before.auroc
        found["auroc_old_probe"][block] = probes.auroc(data.y_val, data.x_val @ before.weight)
        found["auroc_fresh_probe"][block] = fresh.auroc
    lines = {name.removeprefix("auroc_").replace("_", " "): list(areas.items()) for name, areas in found.items()}
    note = (
        "An old probe at 0.5 with a fresh one as good as before, and toxicity unchanged, means evasion: the model "
        "put elsewhere what the probe looked for. A fresh probe that works is no failure by itself."
    )
    ctx.report.series("Probes before and after training", lines, x="block", y="AUROC", note=note)
    return found
