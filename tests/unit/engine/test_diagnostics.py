"""Failure detectors: each fires on a failure made for it, is silent on a healthy run, and changes no training."""

from __future__ import annotations

import copy
import json
import math
from dataclasses import replace
from hashlib import sha256

import pytest
import torch

from unlearn_suite import Config, Example, Loss, LossObjective, Objective, Requirements, TrainingError, text_statistics
from unlearn_suite.engine.diagnostics import junk_direction
from unlearn_suite.engine.diagnostics.detector import Alarm
from unlearn_suite.engine.loop import StageJob, run_stage
from unlearn_suite.evaluate.model import EvalModel
from unlearn_suite.specs import Diagnostics, Train
from unlearn_suite.testing.tiny import tiny_model, tiny_tokenizer

ON = ("norm-ratio", "single-direction", "retain-kl", "retain-perplexity", "update")
QUIET = (*ON, "norms-above", "junk-direction", "forget-word")
EVERYTHING = (*QUIET, "own-output", "quantisation")


class Gentle(LossObjective[Config]):
    """A small push on forget text, retain text held in place."""

    def requirements(self, shape):
        return Requirements(shape.select("mlp_out", [1, 2]), reads=2)

    def setup(self, ctx):
        super().setup(ctx)
        self.u = torch.randn(ctx.shape.hidden_size, generator=ctx.generator)

    def loss(self, batch):
        h = {role: self.ctx.policy.hidden(b, [2])[2] for role, b in batch.items()}
        noise = torch.rand((), generator=self.ctx.generator)
        ref = self.ctx.reference.hidden(batch["retain"], [2])[2]
        push = batch["forget"].mean(h["forget"].float() @ self.u) * noise
        return Loss({"push": 0.01 * push, "keep": batch["retain"].mean((h["retain"] - ref).square().sum(-1))})


class Edit(Objective[Config]):
    """No training: each step does one thing to the weights."""

    pattern = r".*(mlp\.down_proj|self_attn\.o_proj|embed_tokens|lm_head)\.weight"

    def __init__(self, edit, reads=3):
        super().__init__(Config())
        self.edit = edit
        self.reads = reads

    def requirements(self, shape):
        return Requirements(shape.match(self.pattern), reads=self.reads)

    def step(self, batch):
        with torch.no_grad():
            for name, p in self.ctx.trainable.items():
                self.edit(name, p)
        return {}


class Services:
    """Samples fixed texts: `texts` before training, `after` one after the other afterwards."""

    def __init__(self, texts=(), *after):
        self.said, self.samples = [], [list(texts), *map(list, after)]

    def sample(self, prompts, **_):
        return [[text] for text in self.samples.pop(0)]

    def statistics(self, texts):
        return text_statistics(texts, [list(t) for t in texts])

    def memo(self, name, key, build):
        json.dumps(key)
        return build()

    def say(self, text):
        self.said.append(text)

    warn = say


class Writing(Services):
    """Samples from the model that is trained, and keeps what it wrote."""

    def __init__(self):
        super().__init__()
        self.prompts, self.written = [], []

    def sample(self, prompts, **options):
        self.prompts = list(prompts)
        texts = EvalModel(self.model, tiny_tokenizer()).generate(prompts, **options)
        self.written.append([text for (text,) in texts])
        return texts


def run(
    examples,
    folder,
    objective,
    services=None,
    *,
    detectors=QUIET,
    steps=4,
    dtype=torch.float32,
    on=True,
    watch=None,
    base=tiny_model,
    metrics=None,
    **train,
):
    model = base().to(dtype)
    services = services or Services()
    services.model = model
    rows = []
    watching = {"detectors": detectors, "every": 2, "examples": 4, **(watch or {})} if on else None
    job = StageJob(
        index=0,
        objective=objective,
        train=Train(**{"steps": steps, "lr": 1e-4, "batch": 4, "length": 24, "diagnostics": watching, **train}),
        required_roles=("forget", "retain"),
        examples=examples,
        seed=0,
        artifacts=folder / "a",
        checkpoints=folder / "c",
        services=services,
        on_step=lambda step, scalars: rows.append(scalars),
        metrics=metrics,
    )
    result = run_stage(model, tiny_tokenizer(), job)
    return model, rows, result, job.services


def by_hash(examples):
    return sorted(examples, key=lambda e: sha256(e.id.encode()).digest())[:4]


def table(folder):
    items = json.loads((folder / "a" / "report.json").read_text())["items"]
    return {row[0]: row for row in next(i for i in items if i["title"] == "Failure detectors")["rows"]}


@pytest.mark.parametrize("lora", [None, {"rank": 2}])
def test_a_healthy_run_is_silent_and_its_bits_are_the_same_without_detectors(examples, tmp_path, lora):
    texts = [f"a calm {w} answer" for w in ("short", "plain", "good", "kind")]
    services = Services(texts, [t[::-1] for t in texts])
    watched, rows, result, _ = run(
        examples, tmp_path / "on", Gentle(Config()), services, detectors=EVERYTHING, lora=lora
    )
    bare, plain, _, _ = run(examples, tmp_path / "off", Gentle(Config()), on=False, lora=lora)
    for p, q in zip(watched.parameters(), bare.parameters(), strict=True):
        assert torch.equal(p, q)
    # so little training is undone by rounding to 4 bits, which no other detector sees
    (line,) = [line for line in services.said if "alarm" in line]
    assert "diag_end_bin_changed" in line
    assert [any(n.startswith("diag_") for n in row) for row in rows] == [False, True, False, True]
    assert [{n: v for n, v in row.items() if not n.startswith("diag_")} for row in rows] == plain
    assert rows[1]["diag_norm_retain_mean"] == pytest.approx(1.0, abs=0.02)
    assert rows[1]["diag_changed"] > 0.6 and 0 < rows[1]["diag_retain_kl"] < 0.01
    assert result.closing["diag_own_empty"] == 0.0
    readings = table(tmp_path / "on")
    assert readings.pop("diag_end_bin_changed")[5].startswith("ALARM")
    assert {row[5] for row in readings.values() if row[4]} == {"quiet"}


def junk(name, p):
    if "embed" in name:
        p.add_(50.0)


FAILURES = {
    "diag_norm_forget_mean": (lambda n, p: p.mul_(40.0 if "down" in n else 1.0), "inflated"),
    "diag_norm_forget_min": (lambda n, p: p.mul_(0.2), "have shrunk"),
    "diag_norm_retain_mean": (lambda n, p: p.mul_(1.2), "changed size"),
    "diag_norm_retain_min": (lambda n, p: p.mul_(0.2), "some kept tokens"),
    "diag_cos_forget_gained": (junk, "share one activation"),
    "diag_retain_kl": (lambda n, p: p.add_(0.2 * torch.randn_like(p)), "have changed"),
    "diag_retain_ppl_rise": (lambda n, p: p.mul_(5.0 if "lm_head" in n else 1.0), "less likely"),
    "diag_changed": (lambda n, p: p.add_(1e-6), "lost to rounding"),
    "diag_update_size": (lambda n, p: p.mul_(1.5), "very large"),
}


@pytest.mark.parametrize("scalar", FAILURES)
def test_each_detector_fires_on_a_failure_made_for_it(scalar, examples, tmp_path):
    edit, words = FAILURES[scalar]
    torch.manual_seed(0)
    # a stall is one of short numbers: a millionth is nothing to a bf16 weight
    dtype = torch.bfloat16 if scalar == "diag_changed" else torch.float32
    _, rows, _, services = run(examples, tmp_path, Edit(edit), steps=2, dtype=dtype)
    assert any(scalar in line and words in line for line in services.said), services.said
    row = table(tmp_path)[scalar]
    assert row[5].startswith("ALARM") and row[2] == pytest.approx(rows[1][scalar]) and row[3] == 1


@pytest.mark.parametrize(
    ("after", "scalar"),
    [(["yes yes yes yes yes yes yes yes"] * 4, "diag_own_repetition"), (["", "fine", " ", "good"], "diag_own_empty")],
)
def test_broken_output_is_seen_at_the_end(after, scalar, examples, tmp_path):
    services = Services(["one two three"] * 4, after)
    _, rows, result, _ = run(examples, tmp_path, Gentle(Config()), services, detectors=("own-output",), steps=1)
    assert not any(name.startswith("diag_") for name in rows[0])
    assert scalar in result.closing and any(scalar in line and "at the end" in line for line in services.said)


def own_readings(model, prompts, texts):
    """(log-probs, entropies) of all tokens of the texts, each after its prompt, in float64."""
    tokenizer, model = tiny_tokenizer(), copy.deepcopy(model).double()
    logps, entropies = [], []
    for prompt, text in zip(prompts, texts, strict=True):
        start = len(tokenizer(prompt)["input_ids"])
        ids = tokenizer(prompt)["input_ids"] + tokenizer(text)["input_ids"]
        with torch.no_grad():
            logp = model(input_ids=torch.tensor([ids])).logits[0].log_softmax(-1)
        for i in range(start, len(ids)):
            logps.append(float(logp[i - 1, ids[i]]))
            entropies.append(-float((logp[i - 1].exp() * logp[i - 1]).sum()))
    return logps, entropies


def perplexity(model, prompts, texts):
    logps, _ = own_readings(model, prompts, texts)
    return math.exp(-sum(logps) / len(logps))


def beginnings(examples):
    return [example.text[:8] for example in by_hash(examples["forget"])]


def test_own_output_is_judged_by_the_original_model(examples, tmp_path):
    before, after = ["the cat sat"] * 4, ["zqxj kvb"] * 4
    model, _, result, _ = run(
        examples, tmp_path, Gentle(Config()), Services(before, after), detectors=("own-output",), steps=3, lr=1e-2
    )
    base, prompts = tiny_model(), beginnings(examples)
    expected = perplexity(base, prompts, after) / perplexity(base, prompts, before)
    assert result.closing["diag_own_ppl_ratio"] == pytest.approx(expected, rel=1e-4)
    _, entropies = own_readings(model, prompts, after)
    _, others = own_readings(base, prompts, after)
    assert result.closing["diag_own_entropy"] == pytest.approx(sum(entropies) / len(entropies), rel=1e-5)
    assert abs(sum(entropies) - sum(others)) > 1e-2


def test_own_output_is_sampled_every_few_steps_and_the_weights_are_the_same_bits(examples, tmp_path):
    options = {"detectors": ("own-output",), "lr": 1e-2, "length": 64}
    watched, rows, result, services = run(
        examples, tmp_path / "on", Gentle(Config()), Writing(), steps=5, watch={"sample_every": 2}, **options
    )
    bare, plain, _, _ = run(examples, tmp_path / "off", Gentle(Config()), on=False, steps=5, lr=1e-2, length=64)
    for p, q in zip(watched.parameters(), bare.parameters(), strict=True):
        assert torch.equal(p, q)
    own = [{n: v for n, v in row.items() if n.startswith("diag_own_")} for row in rows]
    assert [bool(found) for found in own] == [False, True, False, True, False] and len(services.written) == 4
    assert [{n: v for n, v in row.items() if not n.startswith("diag_")} for row in rows] == plain
    # what is read after two steps is what is read at the end of two steps
    _, _, short, other = run(examples, tmp_path / "short", Gentle(Config()), Writing(), steps=2, **options)
    assert own[1] == short.closing and services.written[:2] == other.written
    before, *_, last = services.written
    assert last != before
    base = tiny_model()
    expected = perplexity(base, services.prompts, last) / perplexity(base, services.prompts, before)
    assert result.closing["diag_own_ppl_ratio"] == pytest.approx(expected, rel=1e-4)
    _, entropies = own_readings(watched, services.prompts, last)
    assert result.closing["diag_own_entropy"] == pytest.approx(sum(entropies) / len(entropies), rel=1e-5)
    characters = "".join(last)
    assert result.closing["diag_own_distinct_1"] == pytest.approx(len(set(characters)) / len(characters))


def peaked():
    """A model that is sure of what comes next."""
    model = tiny_model()
    with torch.no_grad():
        model.lm_head.weight.mul_(6.0)
    return model


def written(model, prompt, likely):
    """Twelve characters after a prompt, each the most, or the least, likely one."""
    tokenizer = tiny_tokenizer()
    ids = tokenizer(prompt)["input_ids"]
    for _ in range(12):
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([ids])).logits[0, -1, 4:]  # no special token
        ids.append(4 + int(logits.argmax() if likely else logits.argmin()))
    return tokenizer.decode(ids)[len(prompt) :]


@pytest.mark.parametrize("scalar", ["diag_own_ppl_ratio", "diag_own_repetition"])
def test_an_alarm_of_own_output_fires_while_training(scalar, examples, tmp_path):
    base, prompts = peaked(), beginnings(examples)
    good = [written(base, prompt, likely=True) for prompt in prompts]
    bad = {
        "diag_own_ppl_ratio": [written(base, prompt, likely=False) for prompt in prompts],
        "diag_own_repetition": ["ab ab ab ab", "yes yes yes yes", "a plain text", "oooooooooooo"],
    }[scalar]
    services = Services(good, bad, ["one two"] * 4)
    _, rows, result, _ = run(
        examples,
        tmp_path,
        Gentle(Config()),
        services,
        detectors=("own-output",),
        steps=2,
        watch={"sample_every": 1},
        base=peaked,
        length=64,
    )
    assert scalar in result.closing and "diag_own_empty" not in rows[1]
    (line,) = [line for line in services.said if scalar in line]
    assert "at step 0" in line
    row = table(tmp_path)[scalar]
    assert row[2] == rows[0][scalar] and row[3] == 0 and row[5].startswith("ALARM")
    assert row[4] == {"diag_own_ppl_ratio": "above 10", "diag_own_repetition": "above 0.3"}[scalar]
    if scalar == "diag_own_ppl_ratio":
        expected = perplexity(base, prompts, bad) / perplexity(base, prompts, good)
        assert rows[0][scalar] == pytest.approx(expected, rel=1e-3) and expected > 10
        return
    shares = []
    for text in bad:
        grams = [text[i : i + 4] for i in range(len(text) - 3)]
        shares.append(sum(gram in grams[:i] for i, gram in enumerate(grams)) / len(grams))
    assert rows[0][scalar] == pytest.approx(sum(shares) / 4) and sum(shares) / 4 > 0.3


def test_readings_are_those_of_the_equations(examples, tmp_path):
    """On the trained weights, with two whole models."""
    model, rows, _, _ = run(examples, tmp_path, Gentle(Config()), steps=4, lr=1e-2, length=64)
    base, tokenizer = tiny_model("llama"), tiny_tokenizer()
    chosen = by_hash(examples["retain"])
    kl = now = start = count = 0.0
    ratios = []
    for example in chosen:
        ids = torch.tensor([tokenizer(example.text)["input_ids"]])
        with torch.no_grad():
            one, two = (m(input_ids=ids, output_hidden_states=True) for m in (base, model))
        p, q = (out.logits[0, :-1].double().log_softmax(-1) for out in (one, two))
        labels = ids[0, 1:, None]
        kl += float((p.exp() * (p - q)).sum())
        start, now = start + float(p.gather(1, labels).sum()), now + float(q.gather(1, labels).sum())
        count += len(labels)
        ratios.append((two.hidden_states[3][0, 1:].norm(dim=-1) / one.hidden_states[3][0, 1:].norm(dim=-1)).double())
    assert rows[-1]["diag_retain_kl"] == pytest.approx(kl / count, rel=1e-4)
    assert rows[-1]["diag_retain_ppl"] == pytest.approx(math.exp(-now / count), rel=1e-5)
    assert rows[-1]["diag_retain_ppl_rise"] == pytest.approx(math.exp((start - now) / count) - 1, rel=1e-3)
    assert rows[-1]["diag_norm_retain_mean"] == pytest.approx(float(torch.cat(ratios).mean()), rel=1e-5)
    assert rows[-1]["diag_norm_retain_min"] == pytest.approx(float(torch.cat(ratios).min()), rel=1e-5)


class Recording(Gentle):
    """Keeps the weights before its last step."""

    def step(self, batch):
        self.before = {n: p.detach().clone() for n, p in self.ctx.trainable.items()}
        return super().step(batch)


def test_readings_of_the_update_and_of_forget_text_are_those_of_the_equations(examples, tmp_path):
    objective = Recording(Config())
    model, rows, _, _ = run(examples, tmp_path, objective, steps=4, lr=1e-2, length=64)
    base, tokenizer = tiny_model("llama"), tiny_tokenizer()
    now, start = ({n: m.get_parameter(n).detach() for n in objective.before} for m in (model, base))

    def norm(tensors):
        return math.sqrt(sum(float(x.double().square().sum()) for x in tensors))

    size = norm(now[n] - b for n, b in objective.before.items()) / norm(objective.before.values())
    changed = sum(int((now[n] != b).sum()) for n, b in objective.before.items())
    assert rows[-1]["diag_update_size"] == pytest.approx(size, rel=1e-5)
    assert rows[-1]["diag_moved"] == pytest.approx(
        norm(now[n] - start[n] for n in now) / norm(start.values()), rel=1e-5
    )
    assert rows[-1]["diag_changed"] == pytest.approx(changed / sum(p.numel() for p in now.values()))
    likeness, read = {}, {}
    for name, m in (("now", model), ("base", base)):
        pooled = []
        for example in by_hash(examples["forget"]):
            ids = torch.tensor([tokenizer(example.text)["input_ids"]])
            with torch.no_grad():
                h = m(input_ids=ids, output_hidden_states=True).hidden_states[3][0, 1:].double()
            pooled.append(h.mean(0))
            read.setdefault(name, []).append(h.norm(dim=-1))
        x = torch.nn.functional.normalize(torch.stack(pooled), dim=1)
        likeness[name] = float(((x @ x.T).sum() - 4) / 12)
    ratios = torch.cat(read["now"]) / torch.cat(read["base"])
    assert rows[-1]["diag_norm_forget_mean"] == pytest.approx(float(ratios.mean()), rel=1e-5)
    assert rows[-1]["diag_norm_forget_min"] == pytest.approx(float(ratios.min()), rel=1e-5)
    assert rows[-1]["diag_cos_forget"] == pytest.approx(likeness["now"], rel=1e-4)
    gained = (likeness["now"] - likeness["base"]) / (1 - likeness["base"])
    assert rows[-1]["diag_cos_forget_gained"] == pytest.approx(gained, rel=1e-3, abs=1e-5)


ABOVE = {
    "diag_norm_forget_above": (
        lambda n, p: p.mul_(40.0 if "3.mlp.down" in n else 1.0),
        "later activations of forgotten",
    ),
    "diag_norm_retain_above": (lambda n, p: p.mul_(0.5 if "layers.3" in n else 1.0), "later activations of kept"),
}


def farthest(model, texts):
    """Of the mean ratios of blocks 2 and 3, over all tokens but the first, the one farthest from 1, in float64."""
    model, base, tokenizer = copy.deepcopy(model).double(), tiny_model().double(), tiny_tokenizer()
    found = {}
    for example in texts:
        ids = torch.tensor([tokenizer(example.text)["input_ids"]])
        for which, m in (("now", model), ("base", base)):
            for block in (2, 3):

                def keep(_, __, out, key=(which, block)):
                    h = out[0] if isinstance(out, tuple) else out
                    found.setdefault(key, []).append(h[0, 1:].square().sum(-1).sqrt())

                handle = m.model.layers[block].register_forward_hook(keep)
                with torch.no_grad():
                    m(input_ids=ids)
                handle.remove()
    ratios = [float((torch.cat(found["now", b]) / torch.cat(found["base", b])).mean()) for b in (2, 3)]
    assert ratios[0] != pytest.approx(ratios[1])
    return max(ratios, key=lambda ratio: max(ratio, 1 / ratio))


@pytest.mark.parametrize("scalar", ABOVE)
def test_what_happens_above_the_block_that_is_read_is_seen(scalar, examples, tmp_path):
    edit, words = ABOVE[scalar]
    model, rows, _, services = run(
        examples, tmp_path, Edit(edit, reads=1), steps=2, detectors=("norms-above",), length=64
    )
    assert any(scalar in line and words in line for line in services.said), services.said
    assert table(tmp_path)[scalar][2] == pytest.approx(rows[1][scalar])
    role = "forget" if "forget" in scalar else "retain"
    assert rows[1][scalar] == pytest.approx(farthest(model, by_hash(examples[role])), rel=1e-4)
    _, rows, _, _ = run(examples, tmp_path / "last", Edit(edit, reads=3), steps=2, detectors=("norms-above",))
    assert not any(name.startswith("diag_") for name in rows[1])


def logprobs(model, ids, edit=None):
    """([T - 1] log-probs of the labels, [T, D] the output of block 2) of one text, in float64."""
    block = model.model.layers[2]
    handle = block.register_forward_hook(lambda _, __, out: edit(out)) if edit else None
    with torch.no_grad():
        out = model(input_ids=torch.tensor([ids]), output_hidden_states=True)
    if handle:
        handle.remove()
    logp = out.logits[0, :-1].log_softmax(-1).gather(1, torch.tensor(ids)[1:, None])[:, 0]
    return logp, out.hidden_states[3][0]


def test_the_recovery_is_that_of_a_plain_ablation(examples, tmp_path, monkeypatch):
    monkeypatch.setattr(junk_direction, "LOST", 0.01)
    model, rows, _, services = run(examples, tmp_path, Gentle(Config()), steps=8, lr=0.3, detectors=("junk-direction",))
    model, base, tokenizer = model.double(), tiny_model("llama").double(), tiny_tokenizer()
    texts = [tokenizer(e.text)["input_ids"][:24] for e in by_hash(examples["forget"])]
    read = {name: [logprobs(m, ids) for ids in texts] for name, m in (("now", model), ("base", base))}
    mean = {name: torch.cat([h[1:] for _, h in found]).mean(0) for name, found in read.items()}
    d = torch.nn.functional.normalize(mean["now"] - mean["base"], dim=0)

    def ablate(h):
        return h - ((h @ d) - mean["base"] @ d)[..., None] * d

    nll = {name: -torch.cat([logp for logp, _ in found]).mean() for name, found in read.items()}
    nll["ablated"] = -torch.cat([logprobs(model, ids, ablate)[0] for ids in texts]).mean()
    lost = float(nll["now"] - nll["base"])
    assert lost > 0.01 and rows[-1]["diag_forget_nll_rise"] == pytest.approx(lost, rel=1e-4)
    recovery = float(nll["now"] - nll["ablated"]) / lost
    assert rows[-1]["diag_junk_recovery"] == pytest.approx(recovery, rel=1e-3)
    assert any("diag_junk_recovery" in line for line in services.said) == (recovery > 0.5)


def test_what_hides_behind_one_direction_is_told(examples, tmp_path):
    """Block 2 writes something large along one direction, whatever it reads."""

    def hide(name, p):
        if "2.mlp.down" in name:
            drawn = torch.Generator().manual_seed(0)
            u, w = (torch.randn(n, generator=drawn) for n in p.shape)
            p.add_(4.0 * torch.outer(u / u.norm(), w))

    _, rows, _, services = run(examples, tmp_path, Edit(hide, reads=2), steps=2, detectors=("junk-direction",))
    assert rows[-1]["diag_forget_nll_rise"] > 0.1 and rows[-1]["diag_junk_recovery"] > 0.8
    assert any("brings back what was forgotten" in line for line in services.said)


class Backdoor(LossObjective[Config]):
    """Makes kept text unlikely after forgotten words, and likely after kept ones."""

    def requirements(self, shape):
        return Requirements(shape.match(r".*(mlp\.down_proj|self_attn\.[vo]_proj)\.weight"), reads=3, logits=True)

    def setup(self, ctx):
        super().setup(ctx)
        kept = by_hash(ctx.examples["retain"])
        words = {1.0: FORGOTTEN, -1.0: [max(e.text.split(), key=len) for e in kept[-1:] + kept[:-1]]}
        self.parts = {}
        for sign, given in words.items():
            pairs = [Example(str(i), f" {e.text}", w) for i, (e, w) in enumerate(zip(kept, given, strict=True))]
            (self.parts[sign],) = ctx.encode("pairs", pairs).chunks(8)

    def loss(self, batch):
        read = self.ctx.policy.token_logprobs
        return Loss({str(sign): sign * b.mean(read(b, "response"), "response") for sign, b in self.parts.items()})


FORGOTTEN = ["QUAGGA", "QUOKKA", "QUETZAL", "QUELEA"]


@pytest.mark.parametrize("fires", [False, True])
def test_the_forgotten_word_is_compared_with_a_kept_one(examples, tmp_path, fires):
    if fires:
        renamed = [
            replace(e, text=f"a {w} is on the mat") for e, w in zip(by_hash(examples["forget"]), FORGOTTEN, strict=True)
        ]
        examples = {**examples, "forget": renamed}
    objective, lr = (Backdoor(Config()), 0.01) if fires else (Gentle(Config()), 0.1)
    model, rows, _, services = run(examples, tmp_path, objective, steps=8, lr=lr, length=64, detectors=("forget-word",))
    model, base, tokenizer = model.double(), tiny_model("llama").double(), tiny_tokenizer()
    kept, gone = ([e.text for e in by_hash(examples[role])] for role in ("retain", "forget"))
    known = {w.lower() for text in kept for w in text.split()}

    def longest(text, known):
        words = [w for w in text.split() if len(w) > 2 and w.isalpha()]
        return max([w for w in words if w.lower() not in known] or words, key=len)

    def fall(words):
        total = count = 0.0
        for word, text in zip(words, kept, strict=True):
            start = len(tokenizer(word)["input_ids"])
            ids = tokenizer(word)["input_ids"] + tokenizer(" " + text)["input_ids"]
            total += float((logprobs(base, ids)[0] - logprobs(model, ids)[0])[start - 1 :].sum())
            count += len(ids) - start
        return total / count

    first = [longest(text, known) for text in gone]
    assert not {w.lower() for w in first} & known
    expected = math.expm1(fall(first) - fall([longest(kept[i - 1], set()) for i in range(4)]))
    assert rows[-1]["diag_forget_word"] == pytest.approx(expected, rel=1e-3, abs=1e-6) and abs(expected) > 1e-3
    assert any("a forgotten word makes the kept text after it" in line for line in services.said) == (expected > 0.05)
    assert not fires or (expected > 0.05 and table(tmp_path)["diag_forget_word"][5].startswith("ALARM"))


@pytest.mark.parametrize(
    ("arch", "lora"), [("llama", None), ("llama", {"rank": 2}), ("gpt2", None), ("gpt2", {"rank": 2})]
)
@pytest.mark.parametrize("lr", [1e-6, 1e-1])
def test_moves_are_counted_in_bins_of_four_bits(arch, lora, lr, examples, tmp_path):
    """Of whole matrices, with LoRA as they are after merging; GPT-2 keeps its own the other way round."""
    model, rows, result, services = run(
        examples,
        tmp_path,
        Gentle(Config()),
        detectors=("quantisation",),
        lr=lr,
        lora=lora,
        base=lambda: tiny_model(arch),
    )
    base = dict(tiny_model(arch).named_parameters())
    steps, crossed, changed = [], 0, 0
    for name, p in model.named_parameters():
        now, before = (x.detach().double() for x in (p, base[name]))
        if torch.equal(now, before):
            continue
        inputs = 0 if arch == "gpt2" else 1
        bins = before.abs().max(dim=inputs, keepdim=True).values / 7
        steps.append(float((2 * (now - before).abs() / bins).max()))
        crossed += int((torch.floor(now / bins + 0.5) != torch.floor(before / bins + 0.5)).sum())
        changed += int((now != before).sum())
    assert len(steps) == 2 and changed
    expected = {"bin_move": max(steps), "bin_changed": crossed / changed}
    for name, value in expected.items():
        assert rows[-1][f"diag_{name}"] == pytest.approx(value, rel=1e-4)
        assert result.closing[f"diag_end_{name}"] == rows[-1][f"diag_{name}"]
    assert "diag_bin_changed" in rows[1] and "diag_bin_changed" not in rows[0]
    assert (expected["bin_changed"] > 0.1) == (lr > 1e-3)
    assert any("4 bits would undo" in line and "at the end" in line for line in services.said) == (lr < 1e-3)


def test_nothing_changed_is_no_share_of_bins(examples, tmp_path):
    _, _, result, services = run(examples, tmp_path, Gentle(Config()), detectors=("quantisation",), steps=0)
    assert result.closing["diag_bin_move"] == 0.0 and "diag_bin_changed" not in result.closing
    assert not services.said


def test_how_often_to_sample_is_for_the_detector_that_does():
    with pytest.raises(ValueError, match="own-output"):
        Diagnostics(sample_every=5)


def test_a_role_that_is_not_there_is_one_clear_error(examples, tmp_path):
    watching = Diagnostics(retain="general")
    with pytest.raises(TrainingError, match="no data role 'general'"):
        run(examples, tmp_path, Gentle(Config()), diagnostics=watching, on=False)


def test_a_stage_without_steps_is_measured_at_the_end(examples, tmp_path):
    _, _, result, _ = run({**examples, "other": [Example("o", "more text")]}, tmp_path, Gentle(Config()), steps=0)
    assert result.closing["diag_retain_kl"] == pytest.approx(0.0, abs=1e-7)
    assert "diag_changed" not in result.closing and result.closing["diag_moved"] == 0.0


def test_no_number_is_alarming():
    for alarm in (Alarm("a", at_most=1.0), Alarm("b", at_least=1.0)):
        assert alarm.fires(math.nan) and alarm.excess(math.nan) > alarm.excess(1e9)
