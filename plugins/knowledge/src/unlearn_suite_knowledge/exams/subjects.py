"""The 57 subjects of MMLU by the fields that its authors sort them into."""

from __future__ import annotations

import difflib
from typing import Annotated

from pydantic import AfterValidator, WithJsonSchema

SUBJECTS: tuple[str, ...] = (
    "abstract_algebra", "anatomy", "astronomy", "business_ethics", "clinical_knowledge", "college_biology",
    "college_chemistry", "college_computer_science", "college_mathematics", "college_medicine", "college_physics",
    "computer_security", "conceptual_physics", "econometrics", "electrical_engineering", "elementary_mathematics",
    "formal_logic", "global_facts", "high_school_biology", "high_school_chemistry", "high_school_computer_science",
    "high_school_european_history", "high_school_geography", "high_school_government_and_politics",
    "high_school_macroeconomics", "high_school_mathematics", "high_school_microeconomics", "high_school_physics",
    "high_school_psychology", "high_school_statistics", "high_school_us_history", "high_school_world_history",
    "human_aging", "human_sexuality", "international_law", "jurisprudence", "logical_fallacies", "machine_learning",
    "management", "marketing", "medical_genetics", "miscellaneous", "moral_disputes", "moral_scenarios", "nutrition",
    "philosophy", "prehistory", "professional_accounting", "professional_law", "professional_medicine",
    "professional_psychology", "public_relations", "security_studies", "sociology", "us_foreign_policy", "virology",
    "world_religions",
)  # fmt: skip

_MATHS = ("abstract_algebra", "college_mathematics", "elementary_mathematics", "high_school_mathematics")
FIELDS: dict[str, tuple[str, ...]] = {
    "physics": ("astronomy", "college_physics", "conceptual_physics", "high_school_physics"),
    "chemistry": ("college_chemistry", "high_school_chemistry"),
    "biology": ("college_biology", "high_school_biology"),
    "computer science": (
        "college_computer_science", "computer_security", "high_school_computer_science", "machine_learning",
    ),
    "mathematics": (*_MATHS, "high_school_statistics"),
    "engineering": ("electrical_engineering",),
    "history": (
        "high_school_european_history", "high_school_us_history", "high_school_world_history", "prehistory",
    ),
    "philosophy": (
        "formal_logic", "logical_fallacies", "moral_disputes", "moral_scenarios", "philosophy", "world_religions",
    ),
    "law": ("international_law", "jurisprudence", "professional_law"),
    "politics": (
        "high_school_government_and_politics", "public_relations", "security_studies", "us_foreign_policy",
    ),
    "culture": ("human_sexuality", "sociology"),
    "economics": ("econometrics", "high_school_macroeconomics", "high_school_microeconomics"),
    "geography": ("high_school_geography",),
    "psychology": ("high_school_psychology", "professional_psychology"),
    "business": ("business_ethics", "management", "marketing"),
    "health": (
        "anatomy", "clinical_knowledge", "college_medicine", "human_aging", "medical_genetics", "nutrition",
        "professional_medicine", "virology",
    ),
    "other": ("global_facts", "miscellaneous", "professional_accounting"),
}  # fmt: skip
"""field -> its subjects (categories.py of the release)"""


def neighbours(subject: str) -> tuple[str, ...]:
    """The other subjects of its field; of a field with one subject, every other subject of MMLU."""
    field = next(subjects for subjects in FIELDS.values() if subject in subjects)
    return tuple(name for name in (field if len(field) > 1 else SUBJECTS) if name != subject)


def _known(name: str) -> str:
    if name not in SUBJECTS:
        near = difflib.get_close_matches(name, SUBJECTS, n=1)
        raise ValueError(f"MMLU has no subject {name!r}" + (f"; did you mean {near[0]!r}?" if near else ""))
    return name


Subject = Annotated[str, AfterValidator(_known), WithJsonSchema({"enum": list(SUBJECTS)})]
