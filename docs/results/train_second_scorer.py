"""A second toxicity scorer that shares nothing with the first: other features, other labels, other texts.

    python docs/results/train_second_scorer.py MODEL_FOLDER PARADETOX.tsv REAL_TOXICITY_PROMPTS_FOLDER OUT

profanity-check counts words; this one is a logistic regression on what a (frozen) language model makes of a text at its
last token. It is trained on pairs of ParaDetox, and on prompts of RealToxicityPrompts with Perspective's toxicity >= .5
or <= .25; OUT is an ordinary Hugging Face sequence classifier, for `second_scorer: {name: classifier, folder: OUT}`.
Printed: its AUROC, and that of profanity-check, on continuations of RealToxicityPrompts and on sentences of ParaDetox
that were not trained on.
"""

from __future__ import annotations

import argparse
import csv
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from profanity_check import predict_prob
from sklearn.linear_model import LogisticRegressionCV
from sklearn.metrics import roc_auc_score
from transformers import AutoModelForSequenceClassification, AutoTokenizer

Labelled = tuple[list[str], list[int]]
BATCH = 32


def pairs(path: Path) -> Labelled:
    """Toxic sentences (1) and a neutral rewrite of each (0)."""
    rows = list(csv.DictReader(path.open(encoding="utf-8"), delimiter="\t", quoting=csv.QUOTE_NONE))
    texts = [text for row in rows for text in (row["toxic"], row["neutral1"])]
    return texts, [1, 0] * len(rows)


def rated(folder: Path, part: str) -> Labelled:
    """`prompt` or `continuation` texts that Perspective is clear about."""
    texts, labels = [], []
    for file in sorted(folder.glob("*.jsonl"), reverse=True):
        for line in file.read_text(encoding="utf-8").splitlines():
            found = json.loads(line)[part]
            score = found.get("toxicity")
            if score is not None and not 0.25 < score < 0.5:
                texts.append(found["text"].strip())
                labels.append(int(score >= 0.5))
    return texts, labels


def main() -> None:
    made = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    made.add_argument("model", type=Path)
    made.add_argument("paradetox", type=Path)
    made.add_argument("prompts", type=Path)
    made.add_argument("out", type=Path)
    made.add_argument("--pairs", type=int, default=800, help="pairs of ParaDetox to train on; 200 more are tested on")
    args = made.parse_args()
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    model = AutoModelForSequenceClassification.from_pretrained(
        args.model, num_labels=1, id2label={0: "toxicity"}, label2id={"toxicity": 0}, dtype=torch.float32
    ).eval()
    model.config.pad_token_id = tokenizer.pad_token_id

    def features(texts: Sequence[str]) -> np.ndarray:
        """[N, D]: the last hidden state at the last token, which is what the classifier's head reads."""
        found = []
        order = np.argsort([len(text) for text in texts])
        for start in range(0, len(texts), BATCH):
            batch = tokenizer(
                [texts[i] for i in order[start : start + BATCH]],
                return_tensors="pt",
                padding=True,
                truncation=True,
                max_length=64,
            )
            with torch.inference_mode():
                hidden = model.model(**batch).last_hidden_state
            last = batch["attention_mask"].cumsum(1).argmax(1)
            found.append(hidden[torch.arange(len(last)), last])
        back = np.empty_like(order)
        back[order] = np.arange(len(order))
        return torch.cat(found).numpy()[back]

    sentences, kinds = pairs(args.paradetox)
    prompts, toxic = rated(args.prompts, "prompt")
    cut = 2 * args.pairs
    x, y = features([*sentences[:cut], *prompts]), np.array([*kinds[:cut], *toxic])
    scale = x.std(axis=0)
    # the classifier's head has no intercept
    fitted = LogisticRegressionCV(Cs=np.logspace(-4, 0, 9), fit_intercept=False, scoring="roc_auc", max_iter=2000)
    fitted.fit(x / scale, y)
    with torch.no_grad():
        model.score.weight.copy_(torch.from_numpy(fitted.coef_ / scale))
    model.save_pretrained(args.out)
    tokenizer.save_pretrained(args.out)

    for name, (texts, labels) in {
        "RealToxicityPrompts continuations": rated(args.prompts, "continuation"),
        "ParaDetox, other sentences": (sentences[cut : cut + 400], kinds[cut : cut + 400]),
    }.items():
        mine = features(texts) @ model.score.weight.detach().numpy()[0]
        other = predict_prob(texts)
        print(
            f"{name}: {len(texts)} texts, {sum(labels)} toxic; AUROC {roc_auc_score(labels, mine):.3f}, "
            f"profanity-check {roc_auc_score(labels, other):.3f}; "
            f"rank correlation of the two {np.corrcoef(mine.argsort().argsort(), other.argsort().argsort())[0, 1]:.2f}"
        )


if __name__ == "__main__":
    main()
