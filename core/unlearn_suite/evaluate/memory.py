"""What has been scored or written is not computed again, for one model whose weights stand still."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence

from .encode import Item
from .scorer import TokenScores

TOKENS = 500_000
"""scored tokens that are remembered (about 60 MB)"""
TEXTS = 100_000
"""continuations that are remembered"""


class ScoreMemory:
    """Scores of the items asked for last, up to `limit` scored tokens, and the last continuations. The key is all token
    ids, so an answer is the model's own; its last bits are those of the batch it was computed in, as everywhere."""

    def __init__(self, limit: int = TOKENS) -> None:
        self.limit = limit
        self.tokens = self.texts = 0
        self._known: OrderedDict[Item, TokenScores] = OrderedDict()
        self._written: OrderedDict[Hashable, list[list[str]]] = OrderedDict()

    def __call__(
        self, items: Sequence[Item], moments: bool, score: Callable[[Sequence[Item]], list[TokenScores]]
    ) -> list[TokenScores]:
        """Scores in the order of `items`; `score` is asked once for each distinct item that is not known."""
        found = {item: known for item in items if (known := self._get(item, moments)) is not None}
        new = list(dict.fromkeys(item for item in items if item not in found))
        found.update(zip(new, score(new) if new else [], strict=True))
        for item in new:
            self._put(item, found[item])
        return [found[item] for item in items]

    def _get(self, item: Item, moments: bool) -> TokenScores | None:
        known = self._known.get(item)
        if known is None or (moments and not known.means):
            return None
        self._known.move_to_end(item)
        return known if moments else known.without_moments()

    def _put(self, item: Item, scores: TokenScores) -> None:
        if self._known.pop(item, None) is None:
            self.tokens += len(scores.tokens)
        self._known[item] = scores
        while self.tokens > self.limit:
            _, dropped = self._known.popitem(last=False)
            self.tokens -= len(dropped.tokens)

    def written(self, asked: Hashable, write: Callable[[], list[list[str]]]) -> list[list[str]]:
        """Continuations of prompts; `asked` is all that decides them."""
        if asked not in self._written:
            self._written[asked] = write()
            self.texts += _count(self._written[asked])
            while self.texts > TEXTS and len(self._written) > 1:
                self.texts -= _count(self._written.popitem(last=False)[1])
        return [list(texts) for texts in self._written[asked]]


def _count(written: Sequence[Sequence[str]]) -> int:
    return sum(len(texts) for texts in written)
