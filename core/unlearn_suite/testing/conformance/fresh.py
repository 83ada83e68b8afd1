"""A plugin in a process of its own: what loading it does, and whether its data are the same there.

`python -m unlearn_suite.testing.conformance.fresh` reads a request as JSON from stdin and writes the answer as the
last line of stdout. The process has another hash seed than most, so an order that hangs on hashes shows.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from hashlib import sha256
from typing import Any

from ...errors import SuiteError
from ...specs import Example
from .subject import Subject

HEAVY = ("torch", "transformers", "tensorflow", "jax", "datasets", "lm_eval", "sklearn", "scipy", "pandas")


def digest(examples: Sequence[Example]) -> str:
    """A hash of the examples in their order."""
    whole = json.dumps([asdict(e) for e in examples], sort_keys=True, default=str)
    return sha256(whole.encode()).hexdigest()


def answer_of(subject: Subject) -> dict[str, Any]:
    """The answer for the subject's plugin, asked once per run of the kit."""
    if "fresh" not in subject.memo:
        subject.memo["fresh"] = _ask(subject)
    found: dict[str, Any] = subject.memo["fresh"]
    return found


def _ask(subject: Subject) -> dict[str, Any]:
    from .datasets import asked_of

    request = {
        "path": [entry for entry in sys.path if entry],
        "files": [str(path) for path in subject.files],
        "distribution": subject.report.distribution,
        "entry_point": subject.report.entry_point,
        "datasets": asked_of(subject),
    }
    command = [sys.executable, "-m", "unlearn_suite.testing.conformance.fresh"]
    environment = {**os.environ, "PYTHONHASHSEED": "12345"}
    done = subprocess.run(
        command, input=json.dumps(request), capture_output=True, text=True, check=False, env=environment, timeout=600
    )
    if done.returncode != 0:
        raise RuntimeError(f"the process of its own ended with {done.returncode}: {done.stderr[-500:]}")
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def main() -> None:
    """Answer one request."""
    request = json.loads(sys.stdin.read())
    sys.path[:] = request["path"]
    from pathlib import Path

    from ...plugins.load import load_plugin
    from ...plugins.source import from_files, installed

    host_seconds = time.process_time()
    wanted = (request["distribution"], request["entry_point"])
    candidates = [*installed(), *from_files([Path(file) for file in request["files"]])]
    (candidate,) = [c for c in candidates if (c.distribution, c.entry_point) == wanted]
    before, start = set(sys.modules), time.process_time()
    loaded = load_plugin(candidate, ())
    seconds = time.process_time() - start
    heavy = [name for name in HEAVY if name in sys.modules and name not in before]
    random.seed(98765)
    answer = {
        "status": loaded.report.status,
        "message": loaded.report.message,
        "where": loaded.report.where,
        "notes": loaded.report.notes,
        "host_seconds": host_seconds,
        "seconds": seconds,
        "heavy": heavy,
        "datasets": [_dataset(loaded.entries, *asked) for asked in request["datasets"]],
    }
    print("\n" + json.dumps(answer))


def _dataset(entries: Sequence[Any], name: str, options: dict[str, Any]) -> dict[str, Any]:
    from ...plugins import load_target

    found = [entry.spec for entry in entries if entry.kind == "dataset" and entry.spec.name == name]
    if not found:
        return {"error": "in a process of its own the plugin does not bring it"}
    spec = found[0]
    try:
        config = spec.config(**options)
        examples = load_target(spec.load)(config)
        mark = load_target(spec.fingerprint)(config) if spec.fingerprint else ""
    except SuiteError as error:
        return {"error": str(error)}
    return {"examples": digest(examples), "fingerprint": mark}


if __name__ == "__main__":
    main()
