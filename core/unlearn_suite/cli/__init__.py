"""The door: `unlearn-suite`. Each command group is a file; what is heavy is imported by the command that needs it."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import click

from .. import __version__
from .completion import completion
from .doctor import doctor
from .exits import run_guarded
from .models import models
from .options import debug_option
from .patch import apply, export, patch
from .plan import plan
from .plugins import plugins
from .report import report
from .run import run


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="unlearn-suite")
@debug_option
def cli() -> None:
    """Unlearning problems, objectives and evaluations for language models.

    A plan names models, what they are to forget and by which objectives; `run` answers with numbers.
    """


for _command in (run, plan, plugins, report, models, export, apply, patch, doctor, completion):
    cli.add_command(_command)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and leave with its exit code (see `errors`)."""
    sys.exit(run_guarded(cli, list(sys.argv[1:] if arguments is None else arguments)))


__all__ = ["cli", "main"]
