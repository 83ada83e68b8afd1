"""`unlearn-suite completion SHELL`, and what the shell is offered for names."""

from __future__ import annotations

import click
from click.shell_completion import CompletionItem, get_completion_class

from .options import debug_option

VARIABLE = "_UNLEARN_SUITE_COMPLETE"


@click.command()
@click.argument("shell", type=click.Choice(("bash", "zsh", "fish")))
@debug_option
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print the completion script of SHELL.

    It completes commands, options and the names of what is installed.

    For bash: eval "$(unlearn-suite completion bash)", in ~/.bashrc to keep it.
    """
    made = get_completion_class(shell)
    assert made is not None
    click.echo(made(context.find_root().command, {}, "unlearn-suite", VARIABLE).source())


def complete_name(context: click.Context, parameter: click.Parameter, begun: str) -> list[CompletionItem]:
    """Names of everything that is installed."""
    from ..plugins import load_catalog
    from ..plugins.entry import KINDS

    catalog = load_catalog()
    entries = [entry for kind in KINDS for entry in catalog.entries(kind) if entry.spec.name.startswith(begun)]
    return [CompletionItem(entry.spec.name, help=entry.spec.summary) for entry in entries]
