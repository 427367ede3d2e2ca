"""What the subcommands share: the format of runs that are read, and options that are accepted and ignored."""

from __future__ import annotations

from typing import get_args

import click

from rankllm_core.command_line import ignored as ignored
from rankllm_core.trec import RunFormat

run_format_option = click.option(
    "--run-format",
    type=click.Choice(get_args(RunFormat)),
    default="auto",
    help="Layout of the runs. Needed where three columns may hold scores (tsv) or ranks (msmarco).",
)
"""--run-format, for every command that reads a run. Of several runs, it is said of those with three columns."""
