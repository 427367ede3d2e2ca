"""`train check-data`."""

from __future__ import annotations

import click

from rankllm_core.errors import RankLLMError
from rankllm_train.cli import SETTINGS, say


@click.command("check-data", context_settings=SETTINGS)
@click.argument("file")
@click.option("--max-problems", type=click.IntRange(0), default=20, show_default=True, help="Name so many; 0: all.")
def command(file: str, max_problems: int) -> None:
    """Check a listwise training file record by record, and name the bad ones. Exit status 1 where there are any."""
    from rankllm_train.check_data import check_listwise

    report = check_listwise(file)
    shown = report.problems[: max_problems or None]
    for line in shown:
        click.echo(line)
    if len(report.problems) > len(shown):
        click.echo(f"... and {len(report.problems) - len(shown)} more (--max-problems 0 names all)")
    kinds = ", ".join(f"{n} {kind}" for kind, n in report.n_by_kind.items()) or "none"
    lengths = ", ".join(f"{n} of {length} passages" for length, n in report.n_by_length.items())
    say(f"{report.n_records} records, {report.n_good} good ({kinds}); with a system turn: {report.n_with_system}")
    if lengths:
        say(lengths)
    if report.stopped:
        raise RankLLMError(report.stopped)
    if not report.is_clean:
        raise RankLLMError(
            f"{file}: {len(report.problems)} bad records; mend them, or train with --bad-records skip"
            if report.n_records
            else f"{file}: no record in it"
        )
