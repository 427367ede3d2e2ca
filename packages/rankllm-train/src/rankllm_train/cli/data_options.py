"""What the commands that make data share: options, how far they are, and what they say at the end."""

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
"""What takes no longer than this is not announced."""
_SHARED = {
    "seed": click.option("--seed", type=int, default=42, show_default=True, help="Of everything random."),
    "run_format": click.option(
        "--run-format",
        type=click.Choice(get_args(RunFormat)),
        default="auto",
        show_default=True,
        help="Layout of the runs. Needed where three columns may hold scores (tsv) or ranks (msmarco).",
    ),
    "random_negatives": click.option(
        "--random-negatives",
        type=click.IntRange(0),
        default=0,
        show_default=True,
        help="Easy negatives: answers to other queries, none that a run ranks for this one.",
    ),
    "skip_queries": click.option(
        "--skip-queries", type=click.IntRange(0), default=0, show_default=True, help="Leave out the first."
    ),
    "output_path": click.option(
        "--output-path", type=PATH, required=True, help="The records: JSON Lines; a .gz name is compressed."
    ),
    "strict": click.option(
        "--strict/--no-strict", default=False, help="A query or a passage without a text is an error."
    ),
    "report": click.option("--report", type=PATH, help="Write the counts and the options here, as JSON."),
    "overwrite": click.option("--overwrite/--no-overwrite", default=False, help="Replace outputs that exist."),
}


def shared(*names: str) -> Callable[[FC], FC]:
    """Options that several commands have, in the order given."""

    def decorate(command: FC) -> FC:
        for name in reversed(names):
            command = _SHARED[name](command)
        return command

    return decorate


def run_file(path: Path | None, run_format: RunFormat) -> RunFile | None:
    """The run that an option names, read as --run-format says."""
    return None if path is None else RunFile(path, run_format)


def counted(items: Iterable[Any], what: str) -> Iterator[Any]:
    """The same items; how many have come is shown on standard error. what: what they are, in the plural."""
    from tqdm import tqdm

    # A log file wants a line now and then, a terminal one that moves.
    quiet_s = 0.5 if sys.stderr.isatty() else 30.0
    yield from tqdm(items, unit=f" {what}", delay=_BRIEF_S, mininterval=quiet_s, file=sys.stderr)


def refuse_given(names: Sequence[str], where: str) -> None:
    """Raise ConfigError where one of these options of the current command was given: it would have no effect."""
    context = click.get_current_context()
    for name in names:
        if context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            raise ConfigError(f"--{name.replace('_', '-')}: has no effect {where}; leave it out")


def tell(tally: Tally, *, outputs: Sequence[Path], report: Path | None, given: Mapping[str, object]) -> None:
    """Say what was made and what was left out; write it as a report too, where one is asked for."""
    for line in tally.lines():
        say(line)
    if report is not None:
        write_report(report, tally, options=given)
    for path in outputs:
        click.echo(path)
