"""What the commands that make data share: options, among them their outputs, their seed and their report."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import click
from click.core import ParameterSource
from click.decorators import FC

from rankllm_core.errors import ConfigError
from rankllm_core.files import check_output, refuse_same_file, write_text
from rankllm_core.trec.run_layout import RunFormat
from rankllm_train.cli import say
from rankllm_train.cli.path_types import PATH
from rankllm_train.preparation.ranked_queries import RunFile
from rankllm_train.preparation.tally import Tally, settings_of

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


def run_file(given: Mapping[str, Any], name: str) -> RunFile | None:
    """The run that an option names, read as --run-format says."""
    return None if given[name] is None else RunFile(given[name], given["run_format"])


def check_outputs(outputs: Sequence[Path | None], sources: Sequence[Path | str | None], *, overwrite: bool) -> None:
    """Raise RankLLMError where an output exists, cannot be written, is an input, or is named twice."""
    named = [path for path in outputs if path is not None]
    for path in named:
        check_output(path, overwrite=overwrite)
        for source in sources:
            if source is not None:
                refuse_same_file(source, path)
    if len({path.resolve() for path in named}) < len(named):
        raise ConfigError(f"{named[-1]}: is to hold two outputs; give each a file of its own")


def refuse_given(names: Sequence[str], where: str) -> None:
    """Raise ConfigError where one of these options of the current command was given: it would have no effect."""
    context = click.get_current_context()
    for name in names:
        if context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            raise ConfigError(f"--{name.replace('_', '-')}: has no effect {where}; leave it out")


def tell(tally: Tally, *, outputs: Sequence[Path], report: Path | None, given: Mapping[str, Any]) -> None:
    """Say what was made and what was left out; write it as a report too, where one is asked for."""
    for line in tally.lines():
        say(line)
    if report is not None:
        import json

        with write_text(report) as stream:
            stream.write(json.dumps(tally.to_dict() | {"options": settings_of(given)}, indent=2) + "\n")
    for path in outputs:
        click.echo(path)
