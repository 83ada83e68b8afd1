"""DPO: on given pairs, towards refusals, towards self-generated alternates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from torch import Tensor

from unlearn_suite import Batch, Example, StageContext, losses

from ..cards.altpo import AltPoConfig
from ..cards.dpo import DpoConfig
from ..cards.idk_dpo import IdkDpoConfig
from .base import ForgetRetain
from .logratio import log_ratio
from .pairs import Pair, Pairs, against, pick, question

D = TypeVar("D", bound=DpoConfig)


class Preference(ForgetRetain[D]):
    """A DPO loss between each forget example and its alternate."""

    reads_base = True

    def setup(self, ctx: StageContext) -> None:
        super().setup(ctx)
        self.prepare()
        self.pairs = Pairs(ctx, self.pairs_of)

    def prepare(self) -> None:
        """What is needed before `pairs_of` is asked."""

    def pairs_of(self, example: Example) -> Sequence[Pair]:
        raise NotImplementedError

    def forget(self, batch: Batch) -> Tensor:
        margin = log_ratio(self.ctx, self.pairs.partner(batch)) - log_ratio(self.ctx, batch)
        return batch.mean_examples(losses.preference(margin, self.config.beta))


class Dpo(Preference[DpoConfig]):
    """cards/dpo.py"""

    def prepare(self) -> None:
        given = self.ctx.examples.get("alternate") or self.ctx.examples.get("retain", ())
        self._given: dict[tuple[str, str], list[Example]] = {}
        for example in given:
            self._given.setdefault((example.unit or example.id, example.prompt), []).append(example)

    def pairs_of(self, example: Example) -> Sequence[Pair]:
        return [(example, other) for other in self._given.get((example.unit or example.id, example.prompt), ())]


class IdkDpo(Preference[IdkDpoConfig]):
    """cards/idk_dpo.py"""

    def pairs_of(self, example: Example) -> Sequence[Pair]:
        refusal = pick(example.id, self.config.refusals)
        return [against(example, self.config.prompt_share, refusal)]


class AltPo(Preference[AltPoConfig]):
    """cards/altpo.py"""

    def prepare(self) -> None:
        c, examples = self.config, [e.example for e in self.ctx.roles["forget"].encoded]
        asked = [question(example, c.prompt_share) for example in examples]
        prompts = [c.template.replace("{prompt}", p).replace("{answer}", a) for p, a in asked]
        sampling = {"n": c.alternates, "max_new_tokens": c.max_new_tokens, "temperature": c.temperature}
        texts = self.ctx.services.memo(
            "altpo",
            {"prompts": prompts, "top_p": c.top_p, **sampling},
            lambda: self.ctx.services.sample(
                prompts,
                n=c.alternates,
                max_new_tokens=c.max_new_tokens,
                temperature=c.temperature,
                top_p=c.top_p,
                seed=0,
            ),
        )
        self._texts = {e.id: t for e, t in zip(examples, texts, strict=True)}

    def pairs_of(self, example: Example) -> Sequence[Pair]:
        _, answer = question(example, self.config.prompt_share)
        distinct = [t for t in dict.fromkeys(self._texts[example.id]) if t.strip() and t.strip() != answer.strip()]
        return [against(example, self.config.prompt_share, text) for text in distinct]
