"""What the host lends to an objective: sampling from the model as it is now, and a memory on disk."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..engine.distributed import here
from ..evaluate.model import EvalModel
from ..evaluate.text import text_statistics
from ..store.atomic import write_json
from ..study import digest
from .loaded import chat_of
from .weights import made_of
from .work import Interrupted

if TYPE_CHECKING:
    from ..runner.progress import Progress
    from ..store import RunDir
    from ..study import Cell
    from .loaded import LoadedModel


class StageServices:
    """`engine.context.Services` for one stage of one cell."""

    def __init__(self, cell: Cell, stage: int, run: RunDir, loaded: LoadedModel, progress: Progress) -> None:
        self._run = run
        self._loaded = loaded
        self._progress = progress
        self._weights = {**made_of(cell, stage), "chat": cell.chat}
        self._chat = chat_of(cell, loaded.tokenizer)

    def sample(
        self, prompts: Sequence[str], *, n: int, max_new_tokens: int, temperature: float, top_p: float, seed: int
    ) -> list[list[str]]:
        self._loaded.bring(None, self._progress)
        model = EvalModel(self._loaded.model, self._loaded.tokenizer, device=self._loaded.device, chat=self._chat)
        self._progress.begin("sampling from the model", len(prompts) * n)
        model.progress = self._sampled
        texts = model.generate(
            prompts, max_new_tokens=max_new_tokens, n=n, temperature=temperature, top_p=top_p, seed=seed
        )
        self._progress.end()
        return texts

    def _sampled(self, done: int, _: int) -> None:
        """A requested stop does not wait for the last text; among several processes, which go in step, it does."""
        self._progress.update(done)
        if self._progress.stop_requested() and here().size == 1:
            raise Interrupted

    def memo(self, name: str, key: Any, build: Callable[[], Any]) -> Any:
        identity = digest({"name": name, "key": key, **self._weights}, 20)
        path = Path(self._run.path) / "shared" / "memo" / f"{name}-{identity}.json"
        with self._run.shared_lock(identity):
            if path.exists():
                return json.loads(path.read_text(encoding="utf-8"))
            value = build()
            path.parent.mkdir(parents=True, exist_ok=True)
            write_json(path, value)
            return value

    def statistics(self, texts: Sequence[str]) -> Mapping[str, float]:
        tokenizer = self._loaded.tokenizer
        return text_statistics(texts, [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts])

    def say(self, text: str) -> None:
        self._progress.say(text)

    def warn(self, text: str) -> None:
        self._progress.warn(text)
