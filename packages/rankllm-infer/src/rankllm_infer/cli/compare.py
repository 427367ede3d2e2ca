"""`rankllm-infer compare`: compare runs with a baseline and test the differences for significance."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from rankllm_core.command_line import PATH
from rankllm_infer.cli import say
from rankllm_infer.cli.options import JudgedCommand, judgement_options, judgements_file, run_format_option

_SHOWN_QUERIES = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class CompareCommand(JudgedCommand):
    """Parsed command line of `compare`. Raises UsageError for fewer than two runs or duplicate runs."""

    runs: tuple[Path, ...]
    baseline: Path | None
    per_query: bool
    as_json: bool
    resamples: int
    level: float
    seed: int

    def __post_init__(self) -> None:
        paths = self.paths
        if twice := [path for path in paths if paths.count(path) > 1]:
            raise click.UsageError(f"{twice[0]} is given twice")
        if len(paths) < 2:
            raise click.UsageError("give at least two runs, or one run and --baseline")

    @property
    def paths(self) -> tuple[Path, ...]:
        """Runs to compare; a baseline that is not among the runs comes first."""
        if self.baseline is None or self.baseline in self.runs:
            return self.runs
        return (self.baseline, *self.runs)


@click.command("compare")
@click.argument("runs", type=PATH, nargs=-1, required=True, metavar="RUN RUN [RUN ...]")
@judgement_options()
@run_format_option
@click.option("--baseline", type=PATH, help="Run that the others are compared with.  [default: the first run]")
@click.option(
    "--per-query/--no-per-query", "-q", default=False, help="Also show the queries with the largest gains and losses."
)
@click.option("--json/--no-json", "as_json", default=False, help="Print one JSON object with full precision.")
@click.option(
    "--run-queries-only/--no-run-queries-only",
    default=False,
    help="Average over judged queries that occur in every run. By default, a query missing from a run scores 0.",
)
@click.option(
    "--resamples",
    type=click.IntRange(100),
    default=10_000,
    help="Number of bootstrap resamples, and of random sign flips if there are too many to enumerate.",
)
@click.option(
    "--level",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    default=0.95,
    help="Confidence level of the intervals.",
)
@click.option(
    "--seed", type=click.IntRange(0), default=0, help="Random seed for the bootstrap and the permutation test."
)
def command(**given: Any) -> None:
    """Compare runs with a baseline, query by query.

    Prints a table for each measure: mean with bootstrap confidence interval, difference from the baseline, p-value of
    the two-sided paired randomization test (Holm-corrected across the runs in the table), and the numbers of queries
    that improved, tied and declined. With --json, --per-query adds the values for all queries. Measures, run formats
    and -c are the same as for `evaluate`.
    """
    from rankllm_core.files import dumps
    from rankllm_infer.evaluation.compare import compare_files
    from rankllm_infer.evaluation.comparison_text import comparison_lines, comparison_to_dict

    asked = CompareCommand(**given)
    found = compare_files(
        judgements_file(asked.qrels),
        asked.paths,
        asked.measures(),
        baseline=asked.baseline,
        run_format=asked.run_format,
        run_queries_only=asked.run_queries_only,
        relevance_level=asked.relevance_level,
        n_resamples=asked.resamples,
        level=asked.level,
        seed=asked.seed,
    )
    for line in found.missing_lines():
        say(line)
    if asked.as_json:
        settings = {"resamples": asked.resamples, "seed": asked.seed}
        click.echo(dumps(comparison_to_dict(found, per_query=asked.per_query) | settings))
    else:
        click.echo("\n".join(comparison_lines(found, per_query=_SHOWN_QUERIES if asked.per_query else 0)))
