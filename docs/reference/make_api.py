"""Writes api.md beside this file: what objectives, metrics, attacks and datasets are given, member by member.

    python docs/reference/make_api.py            # write it
    python docs/reference/make_api.py --check    # name it when it differs, exit code 1

Signatures, types and texts are the code's own: `inspect` and the docstrings, also those below fields and attributes.
Of a public class every public member is shown, and one without a docstring is an error; so is a public name without
a place on the page.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

import error_codes  # noqa: E402
from api_members import Missing, function, functions, item, made, methods, section, signature, text  # noqa: E402
from make_reference import data_fields, table  # noqa: E402

import unlearn_suite  # noqa: E402
from unlearn_suite import errors, losses, records  # noqa: E402
from unlearn_suite.engine import adversary, batch, context, distributed, edits, shape, stage_report, views  # noqa: E402
from unlearn_suite.engine.adversary.walk import Walk  # noqa: E402
from unlearn_suite.models.chat import ChatTemplate  # noqa: E402

NOTE = "<!-- Written by `python docs/reference/make_api.py`; edit the code instead. -->"
ALIASES: Mapping[str, Sequence[str]] = {
    "engine.batch": ["Over"],
    "engine.objective": ["Scalars"],
    "engine.views": ["PerToken"],
    "engine.kept": ["What"],
    "engine.edits": ["Edit"],
    "engine.adversary.walk": ["InnerLoss"],
    "engine.adversary.second_order": ["OuterLoss"],
    "engine.adversary.rules": ["InnerOptimizer"],
    "engine.adversary.space": ["InnerTensors"],
    "engine.adversary.service": ["Order"],
    "engine.stage_report": ["Value"],
    "evaluate.scorer": ["Ids"],
    "evaluate.text": ["Tokens"],
    "evaluate.model": ["Progress"],
}
"""module -> types that signatures name"""


def aliases() -> Iterator[tuple[str, str, str]]:
    """(name, what it stands for, its docstring)"""
    for module, names in ALIASES.items():
        body = ast.parse(inspect.getsource(importlib.import_module(f"unlearn_suite.{module}"))).body
        for node, after in pairwise(body):
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) in names:
                if not (isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)):
                    raise Missing(f"{module}.{ast.unparse(node.targets[0])}: no docstring")
                kind = re.sub(r"^Literal\[(.*)\]$", lambda m: m[1].replace(", ", " | "), ast.unparse(node.value))
                yield f"`{ast.unparse(node.targets[0])}`", f"`{kind}`", text(str(after.value.value))


def notation() -> str:
    words = [
        ("B, T", "examples and tokens of a batch, padding included"),
        ("D, V", "width of the residual stream; number of logits of a position"),
        ("N", "positions or vectors, one after the other"),
        ("scalar", "a tensor without dimensions"),
        ("block", "blocks count from 0; a block's output is the residual stream after it"),
        ("role", "a data role of the problem: `forget`, `retain` ..."),
        ("nats", "unit of log-probabilities: natural logarithms"),
        ("(`code`)", "behind an error: its `code`, which is stable ([all of them](errors.md))"),
    ]
    return f"""## How to read it

{table(("word", "means"), words)}

Signatures leave out `self`. Names in them that stand for other types:

{table(("type", "is", "what it is"), list(aliases()))}"""


def objective_part() -> str:
    s = unlearn_suite
    kinds = [(f"`{kind}`", ", ".join(f"`{name}`" for name in names)) for kind, names in shape.KINDS.items()]
    return "\n\n".join([
        """## What an objective is given

An objective is a subclass of `LossObjective` (an equation) or of `Objective` (a step of its own). It is made with its
options, is asked for its `Requirements`, and gets a `StageContext` in `setup`: from then on everything else is reached
from `self.ctx`. How to begin: [your first objective](../tutorial/your-first-objective.md) and
[port a published method](../how-to/port-a-method.md).""",
        section(s.Objective, "The base class. Write `requirements` and `step`; the others where they are needed."),
        section(
            s.LossObjective,
            "The base class of an objective that is a loss. Write `requirements` and `loss`; all else is as in "
            "[Objective](#objective).",
        ),
        made(s.Requirements, "What `requirements` returns."),
        made(s.Loss, "What `loss` returns."),
        section(s.ModelShape, "The argument of `requirements`; later `ctx.shape`."),
        f"""The kinds that `select` knows, and what families call them below a block:

{table(("kind", "name of the weight"), kinds)}""",
        section(
            s.StageContext,
            "`self.ctx`, from `setup` on. The keys of `train` are those of "
            "[a stage in a plan](plan.md#a-stage-of-an-arm); several devices are explained in "
            "[their own page](../how-to/several-devices.md).",
        ),
        section(s.View, "`ctx.policy` and `ctx.reference`. Why two, and what exact means: "
                "[the two views](../explanation/two-views.md)."),
        section(
            edits.EditedView,
            "`ctx.edited({block: edit})`. Handed over. A view like `ctx.policy`, for reading and sampling an edited "
            "model: each named block's output `[B, T, D]` goes through a function first.",
        ),
        section(s.Batch, "`batch[role]` of a step or loss; what `ctx.draw` and [RoleData](#roledata) give."),
        section(batch.RoleData, "`ctx.roles[role]`, and what `ctx.encode` returns. Handed over."),
        section(batch.Encoded, "An entry of `encoded` of [RoleData](#roledata). Handed over."),
        section(context.Services, "`ctx.services`. Handed over."),
        section(adversary.Adversary, "`ctx.adversary`, and `adversary` of an attack. Handed over. At length: "
                "[the simulated attacker](../explanation/adversary.md)."),
        section(Walk, "What `with ctx.adversary.walk(...) as walk` gives. Handed over.",
                ["losses", "displacement", "step", "back", "slope"]),
        section(adversary.Attack, "Handed over.", title="What Adversary.attack returns"),
        section(stage_report.StageReport, "`ctx.report`. Handed over. With an example and the page's limits: "
                "[showing something of a stage](stage-report.md)."),
        section(distributed.Processes, "`ctx.processes`. Handed over."),
        section(
            views.ModelViews,
            "`ctx.views`. Handed over. It is the engine's; these members are of use to an objective that edits weights "
            "by hand.",
            ["original", "clear", "restore"],
        ),
        section(ChatTemplate, "`ctx.chat` where the problem has `chat`. Handed over."),
        f"### losses\n\n`from unlearn_suite import losses`. {text(losses.__doc__)}\n\n{functions(losses)}",
    ])  # fmt: skip


def metric_part() -> str:
    s = unlearn_suite
    rows = [
        (f"`{name}`", text(value.summary), value.unit, _range(value.lowest, value.highest), value.better)
        for name, value in s.TEXT_STATISTICS.items()
    ]
    return "\n\n".join([
        """## What a metric is given

A metric is a subclass of `Metric`. `score` gets the model as it is now, the examples of the entry's data role and the
cell's seed, and yields a `Row` for each example; means, intervals and verdicts are made of the rows later.
How to begin: [your first metric](../tutorial/your-first-metric.md).""",
        section(s.Metric, "The base class. Write `score`."),
        section(s.EvalModel, "The first argument of `score`."),
        "A metric that needs a second model makes one, or reads it from a folder:",
        item(signature("EvalModel", s.EvalModel), "A model of your own, with the attributes and methods above."),
        function(s.reference_model, "reference_model"),
        section(s.TokenScores, "What `logprobs`, `rolling` and `token_scores` give for one text."),
        made(s.Row, "What `score` yields. `group` and `unit` are usually the example's."),
        "### Functions for metrics",
        function(s.token_scores, "token_scores"),
        function(s.text_statistics, "text_statistics"),
        """`TEXT_STATISTICS` describes its values, for use in a metric's spec:

""" + table(("value", "what it is", "unit", "range", "better on kept text"), rows),
    ])  # fmt: skip


def _range(lowest: float | None, highest: float | None) -> str:
    ends = ["" if end is None else f"{end:g}" for end in (lowest, highest)]
    return " to ".join(ends) if ends[1] else f"from {ends[0]}" if ends[0] else ""


def attack_part() -> str:
    s = unlearn_suite
    return "\n\n".join([
        """## What an attack is given

An attack is a subclass of `Attack` with options that say beforehand when the model is scored. How to write one:
[an attack of your own](../how-to/attack.md#an-attack-of-your-own).""",
        section(s.Attack, "The base class. Write `run`."),
        section(s.AttackConfig, "The base class of the options. Write `points`.", ["points"]),
        made(s.AttackPoint, "What `points` returns and `run` yields."),
        section(s.AttackContext, "The argument of `run`. Its views, batches and adversary are those of an objective: "
                "[View](#view), [Batch](#batch), [RoleData](#roledata), [Adversary](#adversary)."),
    ])  # fmt: skip


def dataset_part() -> str:
    refused = [
        ("no example at all", "`PrerequisiteError` (`empty-role`)"),
        ("an `answer` that is none of the `choices` (they count from 0)", "`PlanError` (`data-answer`)"),
        ("two examples with one `id`, in one role", "`PlanError` (`data-ids`)"),
        ("a text of the role `held-out` or `holdout` that is in the role `forget`", "`PlanError` (`data-leak`)"),
        ("a text of the group `non-member` that is in the group `member` of its role", "`PlanError` (`data-leak`)"),
        ("in a role that is scored: a prompt, a choice, or a text after a prompt that exceeds the model's context",
         "`PlanError` (`data-length`)"),
        ("other examples than those the cell is named by", "`PlanError` (`data-changed`)"),
    ]  # fmt: skip
    return "\n\n".join([
        """## What a dataset returns

A dataset is a function that its [DatasetSpec](specs.md#datasetspec) names: `load(config) -> Sequence[Example]`. It is
given its options and nothing else. The same options give the same examples in the same order, in every process.
How to begin: [your first dataset](../tutorial/your-first-dataset.md).""",
        made(unlearn_suite.Example, "What `load` returns a sequence of."),
        f"""What becomes of them:

- **Training** reads `prompt` and `text`. They are tokenised apart, as turns of the user and the assistant where the
  problem has `chat`, and cut to the stage's `length`: a prompt that would leave no room loses its beginning, and at
  least half of `length` goes to the text. Examples of fewer than two tokens are left out. `text` is the mask
  "response" of a [Batch](#batch).
- **Metrics** get the examples as they are.
- **Splits and resampling** keep a `unit` together.

The host refuses, before anything is trained:

{table(("what", "error"), refused)}""",
        f"### records\n\n`from unlearn_suite import records`. {text(records.__doc__)}\n\n{functions(records)}",
        "#### records.Source\n\n" + text(records.Source.__doc__) + "\n\n" + source_fields(),
        "#### records.Record\n\n" + text(records.Record.__doc__) + "\n\n" + members_of_record(),
    ])  # fmt: skip


def source_fields() -> str:
    fields = records.Source.model_fields
    return table(
        ("option", "meaning"), [(f"`{name}`", text(field.description or "")) for name, field in fields.items()]
    )


def members_of_record() -> str:
    called = [item(head, text(doc)) for name, head, doc in methods(records.Record) if not name.startswith("_")]
    return "\n\n".join([data_fields(records.Record), "`name in record` tells whether there is such a column.", *called])


ERRORS = ("PlanError", "PrerequisiteError", "TrainingError", "PluginError")


def errors_part() -> str:
    rows = [(f"`{n}`", str(getattr(errors, n).exit_code), text(getattr(errors, n).__doc__)) for n in ERRORS]
    return f"""## What all of them may raise

{item(signature("SuiteError", errors.SuiteError), text(errors.SuiteError.__doc__))}

Raise one of its kinds, with a `code` of your own, for what a user can mend; it is told as it is. A fault of the data
is a `PlanError` too. Anything else that leaves a plugin becomes a `PluginError`. [All kinds and codes](errors.md).

{table(("class", "exit code", "when"), rows)}"""


ELSEWHERE = {
    "__version__": "the version of unlearn-suite, a text",
    "HOOK_API": "[hooks](hooks.md)",
    "hookimpl": "[hooks](hooks.md): the decorator of a hook",
    "Config": "[Config](specs.md#config)",
    "NoConfig": text(unlearn_suite.NoConfig.__doc__),
    "Scalars": "[types in signatures](#how-to-read-it)",
    "TEXT_STATISTICS": "[functions for metrics](#functions-for-metrics)",
    "text_statistics": "[functions for metrics](#functions-for-metrics)",
    "token_scores": "[functions for metrics](#functions-for-metrics)",
    "reference_model": "[EvalModel](#evalmodel)",
    **{name: f"[{name}](specs.md#{name.lower()})" for name in unlearn_suite.__all__ if name.endswith("Spec")},
    **dict.fromkeys(("SuiteError", *ERRORS), "[what all of them may raise](#what-all-of-them-may-raise)"),
}


def names_part(page: str) -> str:
    headings = set(re.findall(r"^### (\w+)$", page, flags=re.M))
    places = {name: f"[{name}](#{name.lower()})" for name in headings} | ELSEWHERE
    if lost := [name for name in unlearn_suite.__all__ if name not in places]:
        raise Missing(f"public names without a place: {', '.join(lost)}")
    return "## Every public name\n\n" + table(
        ("name", "where"), [(f"`{name}`", places[name]) for name in unlearn_suite.__all__]
    )


def _check_codes(page: str) -> None:
    """Raises `Missing` for an error code, behind its class, that the source does not have."""
    named = re.findall(r"Error`(?: \(|: |, )`([a-z]+(?:-[a-z]+)*)`", page)
    if gone := set(named) - {one.code for one in error_codes.found()}:
        raise Missing(f"no such error code: {', '.join(sorted(gone))}")


def page() -> str:
    """What api.md must hold. Raises `Missing`."""
    head = f"""# What plugin code is given

{NOTE}

What an objective, a metric, an attack and a dataset are handed and may use: each member with its shapes, units and
errors. What a plugin registers is in [specs](specs.md), what the host calls in [hooks](hooks.md).

Import from `unlearn_suite` and from nothing below it. A class that is *handed over* is no such name: you get it from
the attribute that is named beside it. [What is promised](stability.md) holds for the [public names](#every-public-name)
and their own members."""
    parts = [head, notation(), objective_part(), metric_part(), attack_part(), dataset_part(), errors_part()]
    body = "\n\n".join(parts)
    _check_codes(body)
    return f"{body}\n\n{names_part(body)}\n"


def main(arguments: list[str]) -> int:
    target = HERE / "api.md"
    same = target.exists() and target.read_text("utf-8") == page()
    if same:
        return 0
    print(target)
    if "--check" in arguments:
        return 1
    target.write_text(page(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
