"""Sentences, loud or calm, from a file of the package."""

from importlib.resources import files

from unlearn_suite import Example


def load(config):
    lines = (files(__package__) / "data" / "voices.txt").read_text(encoding="utf-8").splitlines()
    texts = [line.upper() if config.loud else line for line in lines]
    return [Example(id=f"{'loud' if config.loud else 'calm'}/{i}", text=text) for i, text in enumerate(texts)]
