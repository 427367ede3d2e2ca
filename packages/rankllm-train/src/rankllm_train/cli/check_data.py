"""`train check-data`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from rankllm_core.command_line import NAME
from rankllm_core.errors import RankLLMError
from rankllm_train.cli import SETTINGS, say

if TYPE_CHECKING:
    from rankllm_train.data.check_data import RecordKind


@click.command("check-data", context_settings=SETTINGS)
@click.argument("file", type=NAME)
@click.option(
    "--kind",
    type=click.Choice(["listwise", "pointwise"]),
    help="Kind of records in FILE.  [default: detected from the first record]",
)
@click.option(
    "--max-problems",
    type=click.IntRange(0),
    default=20,
    show_default=True,
    help="Maximum number of problems to print; 0: all.",
)
def command(file: str, kind: RecordKind | None, max_problems: int) -> None:
    """Validate the listwise or pointwise records in FILE and report every invalid one.

    FILE is a local file or a Hugging Face dataset. Exits with status 1 if a record is invalid, if there are no
    records, or if both numeric and alphabetic identifiers occur.
    """
    from rankllm_train.data.check_data import check_data

    report = check_data(file, kind=kind)
    shown = report.problems[: max_problems or None]
    for line in shown:
        click.echo(line)
    if len(report.problems) > len(shown):
        click.echo(f"... and {len(report.problems) - len(shown)} more (--max-problems 0 prints all)")
    for line in report.summary():
        say(line)
    if verdict := report.verdict():
        raise RankLLMError(verdict)
