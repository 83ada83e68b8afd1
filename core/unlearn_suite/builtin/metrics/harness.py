"""Any task of lm-evaluation-harness, on the live model."""

from __future__ import annotations

import contextlib
import copy
import difflib
import io
import logging
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from ...errors import PlanError, PrerequisiteError, SuiteError
from ...evaluate.metric import Metric, Row
from ...specs import Config, Example, MetricSpec, ValueSpec

if TYPE_CHECKING:
    from ...evaluate.model import EvalModel

_OFFLINE_PACKAGES = ("datasets", "huggingface_hub", "requests", "httpx", "urllib3")


class HarnessConfig(Config):
    """Options of `lm-eval`."""

    tasks: tuple[str, ...] = Field(min_length=1)
    """task, group or tag names of the harness, or paths of task files; of a task that reads an answer with several
    filters, such as gsm8k, the first one counts (another: a task file of your own that lists it first)"""
    limit: int | None = Field(None, ge=1)
    """documents per task (none = all)"""
    num_fewshot: int | None = Field(None, ge=0)
    """examples in front of each question (none = as the task says)"""
    batch_size: Annotated[int, Field(ge=1)] | Literal["auto"] = 8
    """requests per forward pass; auto = as many as fit"""
    apply_chat_template: bool | str = False
    """format prompts with the tokenizer's chat template (or the one of this name)"""
    system_instruction: str | None = None
    """system message in front of every prompt"""
    include_path: Path | None = None
    """folder with task files of your own"""
    fewshot_seed: int = 1234
    """seed of the harness's choice of few-shot examples (its own default)"""


class Harness(Metric[HarnessConfig]):
    """One row per document of each task, with the numbers that the task's first filter gives it: what the others make
    of the same answer is no further evidence.

    Source: github.com/EleutherAI/lm-evaluation-harness, whose task files hold the formulas; their mean over rows is its
    own aggregate (tested to 1e-4).
    """

    def score(self, model: EvalModel, examples: Sequence[Example], seed: int) -> Iterable[Row]:
        with _quiet(), _rng_kept(seed):
            results = self._run(model)
        for task, samples in results["samples"].items():
            for sample in samples:
                if sample["filter"] == samples[0]["filter"]:  # they come filter by filter, as the task lists them
                    yield from rows_of(task, sample)

    def _run(self, model: EvalModel) -> Mapping[str, Any]:
        try:
            import lm_eval
            from lm_eval.models.huggingface import HFLM
            from lm_eval.tasks import TaskManager
        except ImportError as error:
            raise PrerequisiteError(
                "lm-evaluation-harness is not installed",
                code="missing-package",
                hint="pip install 'unlearn-suite[harness]'",
            ) from error
        config = self.config
        training = model.hf.training
        try:
            # A copy, because the harness gives a tokenizer without a padding token one.
            lm = HFLM(
                pretrained=model.hf,
                tokenizer=copy.deepcopy(model.tokenizer),
                batch_size=config.batch_size,
                max_length=model.max_length,
            )
            return lm_eval.simple_evaluate(
                model=lm,
                tasks=list(config.tasks),
                task_manager=self._manager(TaskManager),
                num_fewshot=config.num_fewshot,
                batch_size=config.batch_size,
                limit=config.limit,
                apply_chat_template=config.apply_chat_template,
                system_instruction=config.system_instruction,
                fewshot_random_seed=config.fewshot_seed,
                bootstrap_iters=0,
                random_seed=None,
                numpy_random_seed=None,
                torch_random_seed=None,
            )
        except SuiteError:
            raise
        except Exception as error:
            raise _explained(error, config.tasks) from error
        finally:
            model.hf.train(training)

    def _manager(self, kind: Any) -> Any:
        """A task index that knows every asked name; the harness's own thousands of files are read only
        when the user's folder does not have them all."""
        config = self.config
        include = None if config.include_path is None else str(config.include_path)
        if include:
            if not Path(include).is_dir():
                raise PlanError(f"there is no folder {include}", code="no-such-folder", hint="correct include_path")
            own = kind(include_path=include, include_defaults=False)
            if set(config.tasks) <= set(own.all_subtasks):
                return own
        manager = kind(include_path=include)
        for name in config.tasks:
            if name not in manager.all_tasks and not Path(name).is_file():
                close = difflib.get_close_matches(name, manager.all_tasks, n=1)
                raise PlanError(
                    f"lm-evaluation-harness has no task {name!r}",
                    code="unknown-task",
                    hint=f"did you mean {close[0]!r}?" if close else "`lm-eval ls tasks` lists all",
                )
        return manager


def rows_of(task: str, sample: Mapping[str, Any]) -> Iterator[Row]:
    """The rows of one logged sample, a document of a task.

    Numbers that count per byte have weights of their own and stand in a row of their own. Raises
    `PlanError` where none of the task's numbers is known here.
    """
    key = f"{task}:{sample['doc_id']}"
    by_weight: dict[str, tuple[float, dict[str, float]]] = {}
    for name in sample["metrics"]:
        known = _value(name, sample[name])
        if known is not None:
            suffix, weight, value = known
            by_weight.setdefault(suffix, (weight, {}))[1][name] = value
    if not by_weight:
        raise PlanError(
            f"task {task!r} gives only {', '.join(sample['metrics'])}, and no number per document among "
            + ", ".join(SPEC.values),
            code="harness-values",
            hint="choose another task",
        )
    text = {"prompt": _prompt(sample), "target": str(sample["target"])}
    for suffix, (weight, values) in by_weight.items():
        yield Row(key + suffix, values, weight=weight, group=task, unit=key, sample=text)


def _value(name: str, value: Any) -> tuple[str, float, float] | None:
    """(id suffix, weight, value) of a declared number; None for everything else."""
    if name not in SPEC.values:
        return None
    if name in ("word_perplexity", "byte_perplexity", "bits_per_byte"):
        loglikelihood, count = value
        per_item = -float(loglikelihood) / count
        scaled = per_item / math.log(2) if name == "bits_per_byte" else per_item
        return ("" if name == "word_perplexity" else ":bytes"), float(count), scaled
    if isinstance(value, bool | int | float) or hasattr(value, "item"):
        return "", 1.0, -float(value) if name == "perplexity" else float(value)
    return None


def _prompt(sample: Mapping[str, Any]) -> str:
    arguments = sample["arguments"]
    first = next(iter(arguments.values())) if isinstance(arguments, Mapping) else arguments[0]
    return str(first.get("arg_0", "") if isinstance(first, Mapping) else first[0])


def _explained(error: Exception, tasks: Sequence[str]) -> SuiteError:
    """What failed inside the harness, in one sentence."""
    named = ", ".join(tasks)
    package = type(error).__module__.partition(".")[0]
    first_line = (str(error).strip() or type(error).__name__).splitlines()[0]
    if isinstance(error, OSError) or package in _OFFLINE_PACKAGES:
        return PrerequisiteError(
            f"the data of {named} cannot be read: {first_line}",
            code="harness-data",
            hint="connect to the network once, or use tasks with local data (include_path)",
        )
    if isinstance(error, ImportError):
        return PrerequisiteError(
            f"{named} needs a package that is not installed: {first_line}",
            code="missing-package",
            hint="pip install what the task's description names",
        )
    return SuiteError(
        f"lm-evaluation-harness failed on {named}: {type(error).__name__}: {first_line}",
        code="harness",
        hint="try the task with the `lm-eval` command to see more",
    )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """No progress bars and no notices of the harness between the lines of the suite's own display."""
    logger = logging.getLogger("lm_eval")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        logger.setLevel(level)


@contextlib.contextmanager
def _rng_kept(seed: int) -> Iterator[None]:
    """The harness draws from the global generators: seed them, and put them back afterwards."""
    import random

    import numpy as np
    import torch

    python, numpy = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            random.seed(seed)
            np.random.seed(seed % 2**32)
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)


def _share(summary: str) -> ValueSpec:
    return ValueSpec(summary, better="higher", lowest=0, highest=1)


SPEC = MetricSpec(
    name="lm-eval",
    summary="any task of lm-evaluation-harness, run on the model in memory",
    load="unlearn_suite.builtin.metrics.harness:Harness",
    config=HarnessConfig,
    needs_data=False,
    sampled=True,
    extras=("harness",),
    values={
        "acc": _share("accuracy"),
        "acc_norm": _share("accuracy by log-likelihood per character of the choice"),
        "acc_bytes": _share("accuracy by log-likelihood per byte of the choice"),
        "acc_mutual_info": _share("accuracy by log-likelihood minus that without the question"),
        "exact_match": _share("the extracted answer is the reference"),
        "em": _share("the answer is the reference"),
        "f1": _share("overlap of answer and reference"),
        "prompt_level_strict_acc": _share("all instructions of a prompt followed"),
        "prompt_level_loose_acc": _share("all instructions of a prompt followed, loosely judged"),
        "perplexity": ValueSpec("perplexity of the target", better="lower", lowest=1, aggregate="exp-mean"),
        "word_perplexity": ValueSpec("perplexity per word", better="lower", lowest=1, aggregate="exp-mean"),
        "byte_perplexity": ValueSpec("perplexity per byte", better="lower", lowest=1, aggregate="exp-mean"),
        "bits_per_byte": ValueSpec("bits per byte", unit="bits", better="lower", lowest=0),
        "pct_stereotype": ValueSpec("the stereotype is more probable than its opposite", lowest=0, highest=1),
        "likelihood_diff": ValueSpec("absolute difference of both log-likelihoods", unit="nats", lowest=0),
    },
)
