"""Plugins broken on purpose: for every check one that it, and nothing else, must find."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from unlearn_suite.testing.conformance import CHECKS, Result, run

Checked = Callable[..., list[Result]]
Change = tuple[str, str]

STEP = "        return super().step(batch)"
FORGET = "forget = f.mean(losses.cosine(h, self.u))"
FROZEN = "self.ctx.views.replay.blocks[2].mlp.down_proj.weight"
SCORE = 'yield Row(example.id, {"nll": score.mean_nll})'


SERIALIZED = '''    """weight of the retain term"""

    @field_serializer("weight")
    def _write(self, value):
        return value + 1'''


LITTLE = '{"retain": self.config.weight}', '{"retain": self.config.weight, "forget": 1e-4}'
OWN_LOSS = """\
        def own(batch):
            loss = self.loss(batch).total()
            return Loss({"own": loss * loss.detach()})

        return {**self.ctx.backward(own, batch), **self.ctx.update()}"""


def forget(expression: str) -> Change:
    return FORGET, f"{FORGET}\n        {expression}"


def before_step(*lines: str) -> Change:
    return STEP, "\n".join(f"        {line}" for line in lines) + f"\n{STEP}"


def scored(expression: str) -> Change:
    return SCORE, f'yield Row(example.id, {{"nll": {expression}}})'


APART = "model.tokenizer.pad_token_id != model.tokenizer.eos_token_id"
BROKEN: dict[str, list[tuple[str, tuple[Change, ...]]]] = {
    "LOAD-OK": [("RuntimeError", (("RUNS = []", "raise RuntimeError('no')"),))],
    "LOAD-QUIET": [("prints", (("RUNS = []", "print('hello')"),))],
    "LOAD-HOOKS": [("'register_objectives'", (("def load(", "def register_objective(register): ...\n\n\ndef load("),))],
    "OPT-DOCS": [("Options.weight", (('    """weight of the retain term"""\n', ""),))],
    "OPT-DEFAULTS": [("greater than or equal to 2", (("Field(1.0, ge=0)", "Field(1.0, ge=2)"),))],
    "OPT-STRICT": [
        ("does not know", (('    """Options of `turn`."""', '    model_config = {"extra": "ignore"}'),)),
        ("can be changed", (('    """Options of `turn`."""', '    model_config = {"frozen": False}'),)),
    ],
    "OPT-JSON": [("weight", (('    """weight of the retain term"""', SERIALIZED),))],
    "OPT-TARGET": [
        ("has no 'Nothing'", ((":Turn", ":Nothing"),)),
        ("no subclass of Objective", ((":Turn", ":Surprise"),)),
    ],
    "OBJ-FINITE": [
        ("'x' is Tensor", ((STEP, '        return {**super().step(batch), "x": torch.ones(())}'),)),
        ("'x' is nan", ((STEP, '        return {**super().step(batch), "x": float("nan")}'),)),
    ],
    "OBJ-SEED": [("differ in", (before_step("RUNS.append(1)"), forget("forget = forget * len(RUNS)")))],
    "OBJ-RANDOM": [
        ("another global seed changes", (forget("forget = forget * torch.rand(())"),)),
        ("generator of random", (before_step("random.random()"),)),
    ],
    "OBJ-RESUME": [("state_dict()", (before_step("self.count += 1"), forget("forget = forget * self.count")))],
    "OBJ-ZERO": [
        ("down_proj", (("        self.count = 0", "        next(iter(ctx.trainable.values())).data += 1e-3"),))
    ],
    "OBJ-FROZEN": [
        ("is not trained and has changed", (before_step(f"{FROZEN}.data += 1e-3"),)),
        ("the reference's", (before_step("next(iter(self.ctx.views.original.values())).data += 1e-3"),)),
    ],
    "OBJ-MEMORY": [
        ("after 2 more steps", (before_step("self.kept.append(torch.ones(1))"),)),
        ("when the stage is over", (("        self.count = 0", "        RUNS.append(torch.ones(3))"),)),
    ],
    "OBJ-MICRO": [("micro-batches of", (forget("forget = losses.cosine(h, self.u).mean()"),))],
    "OBJ-PROCESSES": [("process 0", (forget("forget = forget * len(f.examples)"),))],
    "OBJ-GRADIENT": [
        ("'forget' changes by", (forget("forget = forget * forget.detach()"), LITTLE)),
        ("'own' changes by", ((STEP, OWN_LOSS),)),
        ("no gradient", ((STEP, OWN_LOSS.replace("loss * loss.detach()", "loss.detach()")),)),
    ],
    "OBJ-READS": [
        ("declares reads=0", (("reads=1", "reads=0"),)),
        ("logits=True", (forget("forget = forget + f.mean(self.ctx.policy.token_logprobs(f))"),)),
        ("reference=False", (("reads=1", "reads=1, reference=False"),)),
    ],
    "OBJ-TRAINS": [
        ("writes to", (before_step("with torch.no_grad():", f"    {FROZEN}.add_(0.0)"),)),
        ("leaves a gradient", (before_step(f"{FROZEN}.grad = torch.zeros_like({FROZEN})"),)),
    ],
    "DATA-EXAMPLES": [("the id 'train'", (('f"{config.part}/{w}"', "config.part"),))],
    "DATA-ORDER": [
        # five words sorted by hash() come in the same order in one of 120 pairs of processes
        ("another process", (("for w in words]", "for w in (*words, str(hash(words)))]"),)),
        ("twice", (("for w in words]", "for w in random.sample(words, len(words))]"),)),
    ],
    "DATA-FINGERPRINT": [
        ("one fingerprint and other examples", (("return config.model_dump_json()", "return config.part"),)),
        ("another one each time", (("return config.model_dump_json()", "return str(hash(config.part))"),)),
    ],
    "DATA-SPLITS": [("part train and part test share", (("WORDS[5:]", "WORDS[4:]"),))],
    "MET-ROWS": [
        ("outside its bounds", (scored("-score.mean_nll"),)),
        ("does not declare", ((SCORE, SCORE.replace('"nll"', '"other"')),)),
        ("two rows", ((SCORE, SCORE.replace("example.id", '"same"')),)),
    ],
    "MET-SEED": [
        ("scored again", (scored("random.random()"),)),
        ("declare sampled=True", (scored("float(seed)"),)),
    ],
    "MET-BATCH": [("in smaller batches", (scored("float(model.batch_tokens)"),))],
    "MET-PADDING": [("padded on the left", (scored("float(last_logit(model, examples, example))"),))],
    "MET-PADEOS": [
        ("with pad = eos", (scored("float(model.tokenizer.pad_token_id)"),)),
        ("with pad = eos", (scored(f"score.mean_nll if {APART} else float('nan')"),)),
    ],
    "MET-KNOWN": [
        ("is nan, known to be", (scored("float('nan')"),)),
        ("known to be", (scored("2 * score.mean_nll"),)),
        ("no known answer", (("    known: [{examples: [any], values: {nll: 4.605170}}]", "    cases: []"),)),
    ],
    "MET-DIRECTION": [("it says higher is better", (('better="lower"', 'better="higher"'),))],
    "PROB-RESOLVES": [
        ("measures nothing", (("metrics: [{use: surprise, data: forget, want: higher}]\n", ""),)),
        ("brings no default arm", (("default:\n  stages: [{use: turn}]\n", ""),)),
        ("few_words.yaml:6", (("use: surprise", "use: surprize"),)),
    ],
    "PROB-ROLES": [
        ("role 'retain': two examples", (("{use: words, with: {part: test}}", "[{use: words}, {use: words}]"),))
    ],
    "ATT-POINTS": [
        ("comes by strong", (("yield point", "if size == 1.0:\n                yield point"),)),
        ("one name", (('AttackPoint("strong")', 'AttackPoint("weak")'),)),
    ],
    "ATT-CHANGES": [("at 'weak' the model answers", (("(0.1, 1.0)", "(0.0, 1.0)"),))],
    "ATT-RESTORES": [("is not put back", (("ctx.put(name, ctx", "ctx.parameters[name].data.copy_(ctx"),))],
    "ATT-SEED": [("differs at 'weak'", ((".shape, generator=ctx.generator)", ".shape)"),))],
    "PROB-DISJOINT": [("in forget and in retain", ((", with: {part: test}", ""),))],
}
CASES = [(identity, told, changes) for identity, cases in BROKEN.items() for told, changes in cases]
OF_DISTRIBUTIONS = {"LOAD-ALONE", "LOAD-LIGHT", "LOAD-FAST", "LOAD-BOUND", "LOAD-META"}
LAST_LOGIT = """

def last_logit(model, examples, example):
    texts = [e.text for e in examples]
    ids = model.tokenizer(texts, padding=True, return_tensors="pt")
    kept = {k: v for k, v in ids.items() if k != "token_type_ids"}
    return model.hf(**kept).logits[texts.index(example.text), -1].detach().max() + 100
"""


def test_every_check_is_broken_here():
    assert set(BROKEN) | OF_DISTRIBUTIONS == set(CHECKS)


@pytest.mark.parametrize(("identity", "told", "changes"), CASES, ids=[f"{i}-{n}" for n, (i, *_) in enumerate(CASES)])
def test_a_broken_plugin_is_found(checked: Checked, identity: str, told: str, changes: tuple[Change, ...]):
    helper = ("USED = ", f"{LAST_LOGIT}\n\nUSED = ")
    failed = [result for result in checked(identity, *changes, helper) if result.outcome == "failed"]
    assert failed and all(told in result.message for result in failed), [result.message for result in failed]


def test_the_good_plugin_passes(checked: Checked):
    results = checked("*")
    assert {result.id for result in results} == set(CHECKS)
    wrong = [f"{result.id} {result.subject}: {result.message}" for result in results if not result.ok]
    assert not wrong
    reasons = {result.id for result in results if result.outcome == "skipped"}
    assert reasons <= {"LOAD-LIGHT", "LOAD-FAST", "LOAD-BOUND", "LOAD-META"}


PLAIN = """\
{first}
from unlearn_suite import DatasetSpec, hookimpl
@hookimpl
def register_datasets(register):
    register(DatasetSpec("d", "d", "{package}:load"))
"""
METADATA = """\
Metadata-Version: 2.4
Name: {name}
Version: 1.0
Summary: a plugin
License-Expression: MIT
Requires-Python: >=3.11
Requires-Dist: unlearn-suite>=0.1,<0.2

A readme.
"""
BURN = """\
import sys, time
while "pytest" not in sys.modules and time.process_time() < 3 * start: pass
"""


def install(site: Path, name: str, first: str = "", metadata: str = METADATA) -> None:
    """A distribution on the path, as pip leaves it."""
    package = name.replace("-", "_")
    (site / package).mkdir(parents=True)
    (site / package / "__init__.py").write_text(PLAIN.format(first=first, package=package))
    info = site / f"{package}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(metadata.format(name=name))
    (info / "entry_points.txt").write_text(f"[unlearn_suite]\nmain = {package}\n")


@pytest.mark.parametrize(
    ("identity", "first", "change", "told"),
    [
        ("LOAD-ALONE", 'import sys\nsys.modules["con_one"]', ("", ""), "alone it is broken: KeyError"),
        ("LOAD-LIGHT", "import torch", ("", ""), "importing it imports torch"),
        ("LOAD-FAST", "import time; start = time.process_time()\n" + BURN, ("", ""), "loading it takes"),
        ("LOAD-BOUND", "", (">=0.1,<0.2", ">=0.1"), 'write "unlearn-suite>=0.1,<0.2"'),
        ("LOAD-BOUND", "", ("Requires-Dist: unlearn-suite>=0.1,<0.2\n", ""), "do not name unlearn-suite"),
        ("LOAD-META", "", ("License-Expression: MIT\nRequires-Python: >=3.11\n", ""), "Requires-Python, License"),
        ("LOAD-META", "", ("\nA readme.\n", ""), "readme"),
    ],
)
def test_a_broken_distribution_is_found(tmp_path, monkeypatch, identity, first, change, told):
    install(tmp_path, "con-one")
    install(tmp_path, "con-two", first, METADATA.replace(*change) if change[0] else METADATA)
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "__init__.py").write_text("")  # light, and only its name counts
    monkeypatch.syspath_prepend(str(tmp_path))
    try:
        (good,) = run("con-one", only=[identity])
        (result,) = run("con-two", only=[identity])
    finally:
        for name in ("con_one", "con_two"):
            sys.modules.pop(name, None)
    assert good.outcome == "passed", good.message
    assert result.outcome == "failed" and told in result.message
