"""hf: whatever the `datasets` library reads, from the hub or from this machine."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path
from typing import Any

from pydantic import Field, model_validator

from ..errors import PlanError, PrerequisiteError, SuiteError
from ..plugins.guard import require_extra
from ..specs import Config, Example
from .columns import Columns, Record, Where, examples_of
from .files import stem_of

_COMMIT = re.compile(r"[0-9a-f]{40}")
_BUILDERS = {".json": "json", ".jsonl": "json", ".csv": "csv", ".tsv": "csv", ".parquet": "parquet"}
_BUILDERS |= {".txt": "text", ".arrow": "arrow"}
_MISSING = ("DatasetNotFoundError", "DataFilesNotFoundError", "RepositoryNotFoundError", "RevisionNotFoundError")


class HubConfig(Config):
    """A dataset of the `datasets` library, and what its columns mean. Exactly one of `path`, `folder` and
    `files` says where it is; a split of the hub should be pinned by `revision`."""

    path: str | None = None
    """id on the Hugging Face hub, owner/name"""
    folder: Path | None = None
    """local dataset folder, from the plan's own folder (data files, or what `save_to_disk` wrote)"""
    files: tuple[Path, ...] = ()
    """local files of one type (json, jsonl, csv, tsv, parquet, txt, arrow), from the plan's own folder"""
    name: str | None = None
    """configuration of the dataset"""
    split: str = "train"
    """split, or a slice of one, such as test[:200]"""
    revision: str | None = None
    """commit of the hub repository"""
    data_files: tuple[str, ...] = ()
    """files inside `path` or `folder` to read, as patterns (none = its own choice)"""
    columns: Columns = Columns()
    """which column is what"""
    where: Where = Field(default_factory=dict)
    """records to take: column -> the value it must have, or a list of such values"""
    limit: int | None = Field(None, ge=1)
    """largest number of examples, from the top (none = no limit)"""

    @model_validator(mode="after")
    def _one_source(self) -> HubConfig:
        given = [key for key in ("path", "folder", "files") if getattr(self, key)]
        if len(given) != 1:
            raise ValueError(f"give exactly one of `path`, `folder` and `files`, found {' and '.join(given) or 'none'}")
        if self.revision and not self.path:
            raise ValueError("only a dataset of the hub (`path`) has a `revision`")
        if len({_builder(file) for file in self.files}) > 1:
            raise ValueError("the files must be of one type")
        if self.files and not _builder(self.files[0]):
            raise ValueError(f"{self.files[0].name} is of no known type: {', '.join(_BUILDERS)}")
        return self

    @property
    def label(self) -> str:
        """What examples are named after."""
        if self.path:
            return self.path.rpartition("/")[2]
        return self.folder.name if self.folder else stem_of(self.files[0])


def load(config: HubConfig) -> Sequence[Example]:
    """One example per record that `where` takes, in the dataset's own order, named `label:row` from 0."""
    return examples_of(records(config), config.columns, config.where, config.limit, config.label)


def fingerprint(config: HubConfig) -> str:
    """The options, for a dataset pinned by commit; otherwise a hash of the examples themselves."""
    options = config.model_dump_json(exclude={"folder", "files"})
    if config.path and config.revision and _COMMIT.fullmatch(config.revision):
        return sha256(f"hf 1\n{options}".encode()).hexdigest()
    digest = sha256(b"hf 1\n")
    for example in load(config):
        digest.update(json.dumps(asdict(example), sort_keys=True).encode() + b"\n")
    return digest.hexdigest()


def records(config: HubConfig) -> Iterator[tuple[int, str, Record]]:
    place = f"hf:{config.path}" if config.path else str(config.folder or config.files[0])
    for row, record in enumerate(_dataset(config, place)):
        yield row, f"{place}[{config.split}] row {row}", record


def _dataset(config: HubConfig, place: str) -> Any:
    datasets = require_extra("datasets", "hub")
    if config.folder and any((config.folder / name).is_file() for name in ("state.json", "dataset_dict.json")):
        return _saved(datasets, config, place)
    source, files = config.path or str(config.folder), list(config.data_files) or None
    if config.files:
        source, files = _builder(config.files[0]), [str(file) for file in config.files]
    options: dict[str, Any] = {"name": config.name, "data_files": files, "split": config.split}
    if config.files and config.files[0].suffixes[-1:] == [".tsv"]:
        options["sep"] = "\t"
    try:
        with _quiet(datasets):
            return datasets.load_dataset(source, revision=config.revision, **options)
    except Exception as error:
        raise _explained(error, place) from error


@contextmanager
def _quiet(datasets: Any) -> Iterator[None]:
    """Without progress bars, and without its log of an error that is raised as well."""
    logging = datasets.utils.logging
    bars, level = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity(logging.CRITICAL)
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def _saved(datasets: Any, config: HubConfig, place: str) -> Any:
    """A dataset that `save_to_disk` wrote, with or without splits."""
    try:
        saved = datasets.load_from_disk(str(config.folder))
    except Exception as error:
        raise _explained(error, place) from error
    if not isinstance(saved, datasets.DatasetDict):
        return saved
    if config.split not in saved:
        hint = f"its splits: {', '.join(saved)}"
        raise PlanError(f"it has no split {config.split!r}", code="data", where=place, hint=hint)
    return saved[config.split]


def _builder(file: Path) -> str:
    return _BUILDERS.get((Path(file.stem) if file.suffix == ".gz" else file).suffix, "")


def _explained(error: Exception, place: str) -> SuiteError:
    """One sentence for whatever the library raises."""
    kind = type(error).__name__
    if kind == "DatasetGenerationError" and isinstance(error.__cause__, Exception):
        error = error.__cause__  # it says which file and line; the outer one says nothing
    told = " ".join(str(error).split())[:300] or kind
    if isinstance(error, ConnectionError | TimeoutError) or kind in ("OfflineModeIsEnabled", "ConnectError"):
        hint = "connect once, or copy the files here and use `folder` or `files`"
        message = "the dataset is not on this machine and the hub cannot be reached"
        return PrerequisiteError(message, code="no-network", where=place, hint=hint)
    if kind == "GatedRepoError" or "gated dataset" in told:
        hint = f"ask for access at huggingface.co/datasets/{place.removeprefix('hf:')}, then set HF_TOKEN"
        message = "the dataset's owner gives it only to those who asked"
        return PrerequisiteError(message, code="hub-gated", where=place, hint=hint)
    if isinstance(error, FileNotFoundError) or kind in _MISSING:
        return PlanError(
            told, code="data-file", where=place, hint="check its name and files; a private one needs HF_TOKEN"
        )
    if isinstance(error, ValueError):
        return PlanError(told, code="data", where=place, hint="check `name`, `split` and `data_files`")
    return PrerequisiteError(
        f"datasets cannot read it: {kind}: {told}", code="data", where=place, hint="check its files"
    )
