"""Continuations: left padding, cached keys and values, one random stream per sequence.

Each (seed, prompt, sample) draws from its own stream by inverse transform, so a sampled text depends
neither on the batch it was made in nor on the other prompts.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from .forward import Forward, pad, shareable

CANDIDATES = (256, 4096)
"""most probable tokens looked at before all are sorted; exact, since a wider nucleus gets the next number"""


@dataclass(frozen=True)
class Sampling:
    """`temperature` 0 is greedy decoding; `top_p` 1 samples from the whole distribution."""

    max_new_tokens: int
    n: int = 1
    temperature: float = 1.0
    top_p: float = 1.0
    seed: int = 0
    stop: tuple[str, ...] = ()


@dataclass
class _Sequence:
    """One continuation in the making."""

    prompt: int
    sample: int
    tokens: list[int] = field(default_factory=list)
    done: bool = False


def uniforms(seed: int, prompt: int, sample: int, count: int) -> Tensor:
    """[count] float64 draws in [0, 1) of the stream that belongs to one sequence."""
    digest = hashlib.blake2b(f"{seed}/{prompt}/{sample}".encode(), digest_size=8).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest, "big") >> 1)
    return torch.rand(count, generator=generator, dtype=torch.float64)


def choose(logits_nv: Tensor, u_n: Tensor, temperature: float, top_p: float) -> Tensor:
    """[N] token ids: argmax, or the nucleus's inverse distribution function at `u_n`.

    The nucleus is the smallest set of most probable tokens whose mass reaches `top_p`.
    """
    if temperature == 0:
        return logits_nv.argmax(dim=1)
    if temperature != 1:
        logits_nv = logits_nv / temperature
    log_z = logits_nv.logsumexp(dim=1, keepdim=True)
    if top_p >= 1:
        return _inverse((logits_nv - log_z).double().exp(), u_n)
    chosen = torch.empty(len(logits_nv), dtype=torch.long, device=logits_nv.device)
    left = torch.arange(len(logits_nv), device=logits_nv.device)
    for width in (*CANDIDATES, logits_nv.shape[1]):
        every = width >= logits_nv.shape[1]
        values, ids = logits_nv[left].sort(dim=1, descending=True) if every else logits_nv[left].topk(width, dim=1)
        probs = (values - log_z[left]).double().exp()
        picked = ids.gather(1, _inverse(_nucleus(probs, top_p), u_n[left])[:, None])[:, 0]
        # A nucleus that is wider than the candidates is tried again with more of them.
        inside = (probs.sum(dim=1) >= top_p) | every
        chosen[left[inside]] = picked[inside]
        left = left[~inside]
        if len(left) == 0:
            break
    return chosen


def _nucleus(probs_nk: Tensor, top_p: float) -> Tensor:
    """Descending probabilities with everything after the nucleus set to 0."""
    before = probs_nk.cumsum(dim=1) - probs_nk
    return probs_nk.masked_fill(before >= top_p, 0.0)


def _inverse(probs_nk: Tensor, u_n: Tensor) -> Tensor:
    """[N] indices drawn from unnormalised probabilities; never one of probability 0."""
    cdf = probs_nk.cumsum(dim=1)
    index = torch.searchsorted(cdf, (u_n * cdf[:, -1])[:, None], right=True)[:, 0]
    last = probs_nk.shape[1] - 1 - (probs_nk.flip(1) > 0).int().argmax(dim=1)
    return torch.minimum(index, last)


class Generator:
    """Continues prompts given as token ids."""

    def __init__(
        self,
        forward: Forward,
        tokenizer: Any,
        eos_ids: frozenset[int],
        rows: int,
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        self.forward = forward
        self.tokenizer = tokenizer
        self.eos_ids = eos_ids
        self.rows = rows
        self.progress = progress

    def __call__(self, prompts: Sequence[Sequence[int]], sampling: Sampling, first: int = 0) -> list[list[str]]:
        """For each prompt its `n` continuations (the same one `n` times when greedy). Prompts count from `first`."""
        copies = 1 if sampling.temperature == 0 else sampling.n
        order = sorted(range(len(prompts)), key=lambda index: -len(prompts[index]))
        jobs = [_Sequence(prompt, sample) for prompt in order for sample in range(copies)]
        texts: dict[tuple[int, int], str] = {}
        for start in range(0, len(jobs), self.rows):
            batch = jobs[start : start + self.rows]
            self._run(batch, prompts, sampling, first)
            texts.update({(s.prompt, s.sample): self._text(s, sampling.stop) for s in batch})
            if self.progress:
                self.progress(len(texts), len(jobs))
        repeat = sampling.n // copies
        return [[texts[p, s] for s in range(copies)] * repeat for p in range(len(prompts))]

    def _run(self, batch: list[_Sequence], prompts: Sequence[Sequence[int]], sampling: Sampling, first: int) -> None:
        h_nd, cache, mask = self._read_prompts(batch, prompts)
        draws = [uniforms(sampling.seed, first + s.prompt, s.sample, sampling.max_new_tokens) for s in batch]
        u_nt = torch.stack(draws).to(self.forward.device)
        alive = batch
        for step in range(sampling.max_new_tokens):
            logits_nv = self.forward.logits(h_nd)
            ids_n = choose(logits_nv, u_nt[:, step], sampling.temperature, sampling.top_p)
            self._append(alive, ids_n.tolist(), sampling.stop)
            going = [row for row, sequence in enumerate(alive) if not sequence.done]
            if not going or step + 1 == sampling.max_new_tokens:
                return
            if len(going) <= 0.75 * len(alive) and shareable(cache):
                rows = torch.tensor(going, device=self.forward.device)
                cache.batch_select_indices(rows)
                alive = [alive[row] for row in going]
                ids_n, mask, u_nt = ids_n[rows], mask[rows], u_nt[rows]
            mask = torch.cat([mask, mask.new_ones((len(alive), 1))], dim=1)
            positions = mask.sum(dim=1, keepdim=True) - 1
            h_btd, cache = self.forward.hidden(ids_n[:, None], mask, positions, cache, keep=True)
            h_nd = h_btd[:, -1]

    def _read_prompts(self, batch: list[_Sequence], prompts: Sequence[Sequence[int]]) -> tuple[Tensor, Any, Tensor]:
        """Hidden state of each sequence's last prompt token, cache and mask. A prompt is read only once."""
        distinct = list(dict.fromkeys(sequence.prompt for sequence in batch))
        h_nd, cache, mask = self._prefill([prompts[p] for p in distinct])
        if len(distinct) == len(batch):
            return h_nd, cache, mask
        if not shareable(cache):
            return self._prefill([prompts[sequence.prompt] for sequence in batch])
        row_of = {prompt: row for row, prompt in enumerate(distinct)}
        rows = torch.tensor([row_of[sequence.prompt] for sequence in batch], device=self.forward.device)
        cache.batch_select_indices(rows)
        return h_nd[rows], cache, mask[rows]

    def _prefill(self, prompts: Sequence[Sequence[int]]) -> tuple[Tensor, Any, Tensor]:
        ids_bt, mask_bt = pad(prompts, self.forward.device, left=True)
        positions = (mask_bt.cumsum(dim=1) - 1).clamp_min(0)
        h_btd, cache = self.forward.hidden(ids_bt, mask_bt, positions, keep=True)
        return h_btd[:, -1], cache, mask_bt

    def _append(self, alive: list[_Sequence], tokens: list[int], stop: tuple[str, ...]) -> None:
        for sequence, token in zip(alive, tokens, strict=True):
            if sequence.done:
                continue
            if token in self.eos_ids:
                sequence.done = True
                continue
            sequence.tokens.append(token)
            if stop and any(word in self._decode(sequence.tokens) for word in stop):
                sequence.done = True

    def _decode(self, tokens: list[int]) -> str:
        return str(self.tokenizer.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False))

    def _text(self, sequence: _Sequence, stop: tuple[str, ...]) -> str:
        text = self._decode(sequence.tokens)
        cuts = [at for word in stop if (at := text.find(word)) >= 0]
        return text[: min(cuts)] if cuts else text
