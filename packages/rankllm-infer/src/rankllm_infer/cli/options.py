"""What the subcommands share: the format of runs that are read, and options that are accepted and ignored."""

from __future__ import annotations

from collections.abc import Callable
from typing import get_args

import click
from click.decorators import FC

from rankllm_core.trec import RunFormat
from rankllm_infer.cli import say

run_format_option = click.option(
    "--run-format",
    type=click.Choice(get_args(RunFormat)),
    default="auto",
    help="Layout of the runs. Needed where three columns may hold scores (tsv) or ranks (msmarco).",
)
"""--run-format, for every command that reads a run. Of several runs, it is said of those with three columns."""


def ignored(name: str, *, takes_value: bool) -> Callable[[FC], FC]:
    """A hidden option of the originals that has no effect here: it is accepted, with one warning.

    name: in kebab-case, with its dashes. takes_value: False for a switch, which gets a `--no-` form as well.
    """

    def warn(ctx: click.Context, parameter: click.Parameter, value: object) -> None:
        if value is not None:
            say(f"Warning: {name} has no effect in rankllm and is ignored")

    if takes_value:
        return click.option(name, type=click.UNPROCESSED, hidden=True, expose_value=False, callback=warn)
    switch = f"{name}/--no-{name.removeprefix('--')}"
    return click.option(switch, default=None, hidden=True, expose_value=False, callback=warn)
