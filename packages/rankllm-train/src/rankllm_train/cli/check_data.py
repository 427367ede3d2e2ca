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
    help="Which records FILE holds [default: what its first record is].",
)
@click.option("--max-problems", type=click.IntRange(0), default=20, show_default=True, help="Name so many; 0: all.")
def command(file: str, kind: RecordKind | None, max_problems: int) -> None:
    """Check a training file, listwise or pointwise, record by record, and name the bad ones.

    FILE may also be a Hugging Face data set. Exit status 1 where there are bad records, none at
    all, or both numeric and alpha identifiers.
    """
    from rankllm_train.data.check_data import check_data

    report = check_data(file, kind=kind)
    shown = report.problems[: max_problems or None]
    for line in shown:
        click.echo(line)
    if len(report.problems) > len(shown):
        click.echo(f"... and {len(report.problems) - len(shown)} more (--max-problems 0 names all)")
    for line in report.summary():
        say(line)
    if verdict := report.verdict():
        raise RankLLMError(verdict)
