"""How much of everyday-knowledge a model knows before anything is unlearned.

    python docs/results/measure_everyday_knowledge.py MODEL_FOLDER

Greedy exact match of the cloze answers, per subject and wording: an item counts when every token of the
answer is the model's most likely next token. The wordings in the data were chosen with this script.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Iterator, Sequence

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from unlearn_suite_knowledge.data import SUBJECTS, Fact, load_subject

BATCH = 32


def knows(model: torch.nn.Module, tokenizer: object, pairs: Sequence[tuple[str, str]]) -> list[bool]:
    """Whether greedy decoding continues each (prompt, answer) with exactly the answer."""
    rows = [(tokenizer(prompt).input_ids, tokenizer(f" {answer}").input_ids) for prompt, answer in pairs]
    order = sorted(range(len(rows)), key=lambda i: sum(map(len, rows[i])))
    found = [False] * len(rows)
    for start in range(0, len(order), BATCH):
        chunk = order[start : start + BATCH]
        width = max(sum(map(len, rows[i])) for i in chunk)
        ids_bt = torch.zeros(len(chunk), width, dtype=torch.long)
        mask_bt = torch.zeros_like(ids_bt)
        for b, i in enumerate(chunk):
            tokens = [*rows[i][0], *rows[i][1]]
            ids_bt[b, : len(tokens)] = torch.tensor(tokens)
            mask_bt[b, : len(tokens)] = 1
        with torch.inference_mode():
            best_bt = model(input_ids=ids_bt, attention_mask=mask_bt).logits.argmax(-1)
        for b, i in enumerate(chunk):
            prompt, answer = rows[i]
            found[i] = best_bt[b, len(prompt) - 1 : len(prompt) + len(answer) - 1].tolist() == answer
    return found


def table(facts: Sequence[Fact], found: dict[tuple[str, int], bool]) -> Iterator[str]:
    """One line per kind of fact and wording, and one for the subject."""
    kinds = defaultdict(list)
    for fact in facts:
        kinds[fact.kind].append(fact)
    for kind, members in kinds.items():
        for i in range(len(members[0].cloze)):
            share = sum(found[fact.id, i] for fact in members) / len(members)
            prompt = max((fact.cloze[i] for fact in members), key=len)
            yield f"  {kind:<12} {len(members):>4} facts  {share:.3f}  e.g. {prompt!r}"
    items = [found[fact.id, i] for fact in facts for i in range(len(fact.cloze))]
    yield f"  all          {len(facts):>4} facts  {sum(items) / len(items):.3f}  over {len(items)} prompts"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="folder of a causal language model")
    parser.add_argument("--subjects", nargs="*", default=list(SUBJECTS))
    args = parser.parse_args()
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    model = AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.float32).eval()
    for subject in args.subjects:
        facts = load_subject(subject)
        keys = [(fact.id, i) for fact in facts for i in range(len(fact.cloze))]
        pairs = [(fact.cloze[i], fact.answer) for fact in facts for i in range(len(fact.cloze))]
        found = dict(zip(keys, knows(model, tokenizer, pairs), strict=True))
        print(subject, *table(facts, found), sep="\n", flush=True)


if __name__ == "__main__":
    main()
