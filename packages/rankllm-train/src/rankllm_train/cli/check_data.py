"""`train check-data`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from rankllm_core.command_line import NAME
from rankllm_core.errors import RankLLMError
from rankllm_train.cli import SETTINGS, say

if TYPE_CHECKING:
    from rankllm_train.data.check_data import ListwiseReport, PointwiseReport, RecordKind


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
    from rankllm_train.data.check_data import ListwiseReport, check_data

    report = check_data(file, kind=kind)
    shown = report.problems[: max_problems or None]
    for line in shown:
        click.echo(line)
    if len(report.problems) > len(shown):
        click.echo(f"... and {len(report.problems) - len(shown)} more (--max-problems 0 names all)")
    _say_listwise(report) if isinstance(report, ListwiseReport) else _say_pointwise(report)
    if report.stopped:
        raise RankLLMError(report.stopped)
    if not report.is_clean:
        raise RankLLMError(
            f"{file}: {len(report.problems)} of {report.n_records} records are bad; correct them, or train with "
            "--bad-records skip"
            if report.n_records
            else f"{file}: no record in it"
        )
    if isinstance(report, ListwiseReport) and len(report.n_by_kind) > 1:
        raise RankLLMError(
            f"{file}: numeric and alpha identifiers in one file; train with --identifiers alpha or numeric"
        )


def _say_listwise(report: ListwiseReport) -> None:
    kinds = ", ".join(f"{n} {kind}" for kind, n in report.n_by_kind.items()) or "none"
    say(f"{report.n_records} records, {report.n_good} good ({kinds}); with a system turn: {report.n_with_system}")
    if report.n_by_length:
        say(", ".join(f"{n} of {length} passages" for length, n in report.n_by_length.items()))
    if n_single := report.n_by_length.get(1, 0):
        say(f"{n_single} of one passage have no order: bad records for --objective ranking and combined")


def _say_pointwise(report: PointwiseReport) -> None:
    say(
        f"{report.n_records} records, {report.n_good} good (pointwise); positives: {report.n_positives}; "
        f"with teacher scores: {report.n_with_teacher}"
    )
    if report.n_by_negatives:
        say(", ".join(f"{n} with {length} negatives" for length, n in report.n_by_negatives.items()))
    if 0 < report.n_with_teacher < report.n_good:
        say(
            f"{report.n_good - report.n_with_teacher} have no teacher scores: bad records for --objective kl and margin"
        )
