"""The files of a run directory. tests/docs/test_tutorials.py compares them with what real runs write."""

from __future__ import annotations

from collections.abc import Callable

FILES = {
    "run.json": "name, format and version, the command, when it was made",
    "plan.lock.json": "the plan with every default filled in, as it was last run",
    "plans/*.yaml": "the plans this run was given, as they were written, in their order",
    "events.jsonl": "what happened, one JSON object per line with its time",
    "results/records.parquet": "every score: a row per cell, metric entry, example and value ([columns](records.md))",
    "results/summary.json": "the numbers of the report: per problem, arm and value, with intervals and verdicts",
    "report/index.html": "the report, one page that needs no network",
    "cells/*/cell.json": "what the cell is: everything its id is made of",
    "cells/*/status.json": "its state, what is scored, the files of its result, whose training it took over",
    "cells/*/progress.json": "what a worker process last told; nothing depends on it",
    "cells/*/scalars.jsonl": "the training curve: stage, step and the objective's scalars",
    "cells/*/cost.json": "what each stage cost: seconds, tokens, FLOPs, memory",
    "cells/*/scores/*.jsonl": "scores per example, a file per metric entry; it is there only when complete",
    "cells/*/partial/*.jsonl": "rows of a metric that is being scored, part by part; gone when it is complete",
    "cells/*/samples/*.jsonl": "texts worth reading, beside the scores",
    "cells/*/patch.safetensors": "the changed tensors; what made them stands in the metadata",
    "cells/*/artifacts/**": "what a stage leaves: tables and curves for the page, a LoRA adapter",
    "cells/*/checkpoints/**": "what a killed cell goes on from; gone when the cell is done",
    "cells/*/worker.log": "what the cell's own process printed, where cells run in processes of their own",
    "cells/*/process-error.json": "the error of one of several processes of a cell",
    "cells/*/error.txt": "the traceback of a cell that failed",
    "shared/scores/*/*.jsonl": "scores of the untouched model, computed once for all cells",
    "shared/starts/*/**": "the making of a model that cells begin with, in the files of a cell; they read its patch",
    "shared/memo/*.json": "what objectives ask to have computed once, such as samples of the untouched model",
    "shared/kept/**": "activations of the untouched model; gone when every cell is done",
    "shared/locks/*.lock": "held while something shared is being made",
    "**/.*lock": "held while a process writes the run, its events or a cell",
}
"""pattern below `runs/<name>/` -> what it holds"""


def page(table: Callable[[tuple[str, ...], list[tuple[str, ...]]], str]) -> str:
    """run-directory.md."""
    head = """# The run directory

`unlearn-suite run` writes everything into `runs/<name>/`. A cell's folder is called
`<problem>.<model>.<arm>.s<seed>.<id>`. Files appear whole or not at all; only some `.jsonl` files grow line by line,
and a torn last line is dropped. The folder may be moved: the report needs nothing outside it."""
    return f"{head}\n\n{table(('file', 'what it holds'), [(f'`{name}`', told) for name, told in FILES.items()])}"
