"""The folder `data` of plugins/benchmarks/plans/family-in-small.yaml and muse-in-small.yaml, from public files.

    python docs/results/family_data.py RAW plugins/benchmarks/plans/data

RAW holds slices of the releases: mmlu (dev, test), arc (ARC-Easy-topics-train.jsonl and -validation.jsonl, whose
`subject` is life, physical, ... by keywords), opentriviaqa (questions.jsonl), rwku, realtoxicityprompts (any .jsonl),
paradetox, crows_pairs, stereoset, muse (bbc_knowmem_*_qa.json), tofu, wikitext2 (valid.txt). Most are linked. Where
a release is no use here, something in its form stands in for it, from the same public files: SmolLM2-135M answers WMDP
at chance, and the texts of MUSE are not free, so questions of ARC-Easy and OpenTriviaQA take WMDP's place, and articles
of WikiText-2 BBC's.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

LINKED = ("mmlu", "rwku", "realtoxicityprompts", "paradetox", "crows_pairs", "stereoset", "tofu")
Row = Mapping[str, Any]


def main(raw: Path, out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    for name in LINKED:
        if not (out / name).exists():
            (out / name).symlink_to((raw / name).resolve())
    exams(raw, out)
    articles = list(texts_of(raw / "wikitext2/valid.txt"))
    muse(raw / "muse", out / "muse", articles)
    story = [" ".join(words) for words in pieces(articles[12], 40, 16)]
    (out / "story.txt").write_text("\n\n".join(story), encoding="utf-8")
    custom = [" ".join(words) for article in articles[8:10] for words in pieces(article, 40, 8)]
    write(out / "custom/forget.jsonl", [{"text": text} for text in custom[:8]])
    write(out / "custom/retain.jsonl", [{"text": text} for text in custom[8:]])


def exams(raw: Path, out: Path) -> None:
    """bio, chem: ARC-Easy about life and about matter; cyber: OpenTriviaQA about science and technology."""
    train, test = (read(raw / f"arc/ARC-Easy-topics-{part}.jsonl") for part in ("train", "validation"))
    trivia = [row for row in read(raw / "opentriviaqa/questions.jsonl") if row["subject"] == "science-technology"]
    trivia = [row for row in trivia if len(row["choices"]) == 4]
    write(out / "wmdp/bio.jsonl", [row for row in test if row["subject"] == "life"])
    write(out / "wmdp/chem.jsonl", [row for row in test if row["subject"] == "physical"])
    write(out / "wmdp/cyber.jsonl", trivia[:200])
    corpora = {
        "bio-forget": [row for row in train if row["subject"] == "life"],
        "bio-retain": [row for row in train if row["subject"] != "life"],
        "cyber-forget": trivia[200:],
        "cyber-retain": [row for row in train if row["subject"] != "life"],
    }
    for name, rows in corpora.items():
        write(out / f"corpora/{name}-corpus.jsonl", [{"text": statement(row)} for row in rows])


def statement(row: Row) -> str:
    return f"{row['question']} {row['choices'][row['answer']]}"


def muse(questions: Path, out: Path, articles: list[list[str]]) -> None:
    """Two articles to forget, two to keep, two held out, in the layout of MUSE; the questions are MUSE's own."""
    forget, retain, other = ([w for a in articles[i : i + 2] for w in pieces(a, 60, 5)] for i in (0, 2, 4))
    for place, words in (("raw/forget", forget), ("raw/retain1", retain), ("raw/holdout", other)):
        write(out / f"news/{place}.jsonl", [{"text": " ".join(w)} for w in words])
    write(out / "news/verbmem/forget.jsonl", [{"prompt": " ".join(w[:30]), "gt": " ".join(w[30:])} for w in forget])
    write(out / "news/privleak/forget.jsonl", [{"text": " ".join(w)} for w in forget])
    write(out / "news/privleak/holdout.jsonl", [{"text": " ".join(w)} for w in other])
    for split, name in (("forget_qa", "forget_qa"), ("retain_qa", "retain2_qa")):
        rows = json.loads((questions / f"bbc_knowmem_{name}.json").read_text(encoding="utf-8"))
        write(out / f"news/knowmem/{split}.jsonl", rows[:40])


def texts_of(path: Path) -> Iterator[list[str]]:
    """The words of each article, headings left out and the spaces of the tokenised release taken back."""
    words: list[str] = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if re.fullmatch(r" = [^=].* = ", line):
            if len(words) > 700:
                yield words
            words = []
        elif line.strip() and not line.startswith(" ="):
            plain = re.sub(r" @(.)@ ", r"\1", line.replace("<unk>", "thing"))
            words += re.sub(r" ([,.;:?!)])", r"\1", plain).split()


def pieces(words: list[str], size: int, count: int) -> list[list[str]]:
    return [words[i * size : (i + 1) * size] for i in range(count)]


def read(path: Path) -> list[Row]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def write(path: Path, rows: Iterable[Row]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
