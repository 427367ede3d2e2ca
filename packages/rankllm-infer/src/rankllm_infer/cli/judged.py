"""What `evaluate`, `compare` and `report` share: judgements, measures and the runs they are taken of."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from rankllm_core.command_line import PATH
from rankllm_core.errors import RankLLMError
from rankllm_infer.cli import say
from rankllm_infer.wording import count, examples

if TYPE_CHECKING:
    from rankllm_core.trec import Qrels

DEFAULT_MEASURES = ("nDCG@10",)
# trec_eval's own names may hold commas: `recall.100,1000` is two measures of one name.
_COMMA = re.compile(r",\s*(?=[A-Za-z])")


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


def checked_measures(
    names: Sequence[str], *, relevance_level: int, is_complete: bool, run_queries_only: bool
) -> list[str]:
    """The measures, one name each. Raises UsageError where -c is contradicted, ConfigError for an unknown measure."""
    from rankllm_infer.evaluation.measures import parse_measures

    if is_complete and run_queries_only:
        raise click.UsageError("-c and --run-queries-only contradict each other")
    measures = [measure for name in names for measure in _COMMA.split(name)]
    parse_measures(measures, relevance_level=relevance_level)
    return measures


def read_judgements(qrels: Path, runs: Sequence[Path]) -> Qrels:
    """The judgements. Raises RankLLMError where there are none, or one of the runs is not there."""
    from rankllm_core.trec import read_qrels

    for path in runs:
        if not path.exists():
            raise RankLLMError(f"{path}: no such file")
    grades = read_qrels(qrels)
    if not grades:
        raise RankLLMError(f"{qrels}: holds no judgements")
    return grades


def say_missing(name: str, missing: Sequence[str], *, n_judged: int, run_queries_only: bool) -> None:
    """Tell which judged queries a run lacks, and what that means for its figures."""
    if missing:
        say(missing_line(name, missing, n_judged=n_judged, run_queries_only=run_queries_only))


def missing_line(name: str, missing: Sequence[str], *, n_judged: int, run_queries_only: bool) -> str:
    """Which judged queries a run lacks, what that means for its figures, and, where they count as 0, the other way."""
    effect, way_out = ("left out of the means", "") if run_queries_only else ("counted as 0", _PILOT)
    n_missing = f"{len(missing)} of {count(n_judged, 'judged query')} not in the run"
    return f"{name}: {n_missing}, {effect} ({examples(missing)}){way_out}"


_PILOT = "; for a pilot, --run-queries-only averages over the queries of the run"
