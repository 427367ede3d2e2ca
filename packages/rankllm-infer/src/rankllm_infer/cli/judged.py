"""Options that `evaluate`, `compare` and `report` share: judgements, measures and the queries that count."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from rankllm_core.command_line import PATH

if TYPE_CHECKING:
    from rankllm_core.trec import RunFormat

DEFAULT_MEASURES = ("nDCG@10",)


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgedCommand:
    """What a command is asked for that measures runs by judgements."""

    qrels: Path
    names: tuple[str, ...]
    """Measures, as they were given."""
    relevance_level: int
    is_complete: bool
    """Whether -c was given, which is the default here."""
    run_format: RunFormat
    run_queries_only: bool

    def measures(self) -> list[str]:
        """The measures, one name each. Raises UsageError where -c is contradicted, ConfigError for an unknown one."""
        from rankllm_infer.evaluation.measures import split_measures

        if self.is_complete and self.run_queries_only:
            raise click.UsageError("-c and --run-queries-only contradict each other")
        return split_measures(self.names, relevance_level=self.relevance_level)


def judgement_options(
    measures: Sequence[str] = DEFAULT_MEASURES,
) -> Callable[[click.decorators.FC], click.decorators.FC]:
    """--qrels, -m, -l and -c. measures: the default of -m."""
    options = [
        click.option("--qrels", type=PATH, required=True, help="Judgements, TREC or BEIR (gz)."),
        click.option(
            "-m",
            "--measure",
            "names",
            multiple=True,
            default=measures,
            help="For example nDCG@10, RR@10, MRR@10, Recall@100, AP, ndcg_cut.10; may be repeated, or hold commas.",
        ),
        click.option(
            "-l",
            "--relevance-level",
            type=click.IntRange(1),
            default=1,
            help="The least grade that counts as relevant.",
        ),
        # trec_eval's name of what is the default here.
        click.option("-c", "is_complete", is_flag=True, hidden=True),
    ]

    def decorate(command: click.decorators.FC) -> click.decorators.FC:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate
