"""Problems of knowledge (everyday facts, WMDP, MMLU), their data, and the objective for removing knowledge."""

from __future__ import annotations

from collections.abc import Callable

from unlearn_suite import DatasetSpec, ObjectiveSpec, ProblemSpec, hookimpl

from . import exams
from .cosine_rmu import config as cosine_rmu
from .data import KnowledgeConfig


@hookimpl
def register_objectives(register: Callable[[ObjectiveSpec], None]) -> None:
    register(cosine_rmu.SPEC)


@hookimpl
def register_datasets(register: Callable[[DatasetSpec], None]) -> None:
    register(
        DatasetSpec(
            name="everyday-knowledge",
            summary="Small true facts by subject: sentences, held-out cloze prompts, four-way choices",
            load="unlearn_suite_knowledge.data:load",
            fingerprint="unlearn_suite_knowledge.data:fingerprint",
            config=KnowledgeConfig,
            licence="Apache-2.0",
            source="written for this project",
            size="4,951 sentences, 1,830 prompts and 1,830 questions",
        )
    )
    for spec in exams.DATASETS:
        register(spec)


@hookimpl
def register_problems(register: Callable[[ProblemSpec], None]) -> None:
    register(
        ProblemSpec(
            name="everyday-knowledge",
            summary="Forget the capitals of countries; keep every other subject and plain English",
            fragment="unlearn_suite_knowledge:problems/everyday-knowledge.yaml",
        )
    )
    for spec in exams.PROBLEMS:
        register(spec)
