"""Shared by the data preparation commands: common options, progress and the summary at the end of a run."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import click
from click.core import ParameterSource
from click.decorators import FC

from rankllm_core.command_line import PATH
from rankllm_core.errors import ConfigError
from rankllm_core.trec.run_layout import RunFormat
from rankllm_train.cli import say
from rankllm_train.preparation.ranked_queries import RunFile
from rankllm_train.preparation.tally import Tally, write_report

_BRIEF_S = 2.0
"""Seconds before a progress bar appears; shorter work stays silent."""
_SHARED = {
    "seed": click.option("--seed", type=int, default=42, show_default=True, help="Random seed."),
    "run_format": click.option(
        "--run-format",
        type=click.Choice(get_args(RunFormat)),
        default="auto",
        show_default=True,
        help="Run format. Required for three-column runs whose last column could hold scores (tsv) or ranks (msmarco).",
    ),
    "random_negatives": click.option(
        "--random-negatives",
        type=click.IntRange(0),
        default=0,
        show_default=True,
        help="Random (easy) negatives per record: positives for other queries that no run retrieves for this query.",
    ),
    "skip_queries": click.option(
        "--skip-queries",
        type=click.IntRange(0),
        default=0,
        show_default=True,
        help="Number of queries to skip from the start.",
    ),
    "output_path": click.option(
        "--output-path",
        type=PATH,
        required=True,
        help="Output file for the records (JSON Lines, gzipped if the name ends in .gz).",
    ),
    "strict": click.option(
        "--strict/--no-strict", default=False, help="Treat queries and passages without text as errors."
    ),
    "report": click.option("--report", type=PATH, help="JSON file for the options and counts of this run."),
    "overwrite": click.option("--overwrite/--no-overwrite", default=False, help="Overwrite existing output files."),
}


def shared(*names: str) -> Callable[[FC], FC]:
    """Decorate a command with options shared by several commands, in the given order."""

    def decorate(command: FC) -> FC:
        for name in reversed(names):
            command = _SHARED[name](command)
        return command

    return decorate


def run_file(path: Path | None, run_format: RunFormat) -> RunFile | None:
    """Return the run that an option names, to be read in the format of --run-format."""
    return None if path is None else RunFile(path, run_format)


def counted(items: Iterable[Any], what: str) -> Iterator[Any]:
    """Yield the items unchanged and show progress on standard error. what: the plural noun for an item."""
    from tqdm import tqdm

    # A log file wants a line every half minute, a terminal a bar that moves.
    quiet_s = 0.5 if sys.stderr.isatty() else 30.0
    yield from tqdm(items, unit=f" {what}", delay=_BRIEF_S, mininterval=quiet_s, file=sys.stderr)


def refuse_given(names: Sequence[str], where: str) -> None:
    """Raise ConfigError if any of these options of the current command was given where it has no effect."""
    context = click.get_current_context()
    for name in names:
        if context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            raise ConfigError(f"--{name.replace('_', '-')}: has no effect {where}; leave it out")


def tell(tally: Tally, *, outputs: Sequence[Path], report: Path | None, given: Mapping[str, object]) -> None:
    """Print how many records were written and skipped, optionally write the report, then print the output paths."""
    for line in tally.lines():
        say(line)
    if report is not None:
        write_report(report, tally, options=given)
    for path in outputs:
        click.echo(path)
