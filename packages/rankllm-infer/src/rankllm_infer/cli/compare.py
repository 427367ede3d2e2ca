"""`rankllm-infer compare`: are some runs better than another, and is it more than chance?"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from rankllm_core.command_line import PATH
from rankllm_infer.cli import say
from rankllm_infer.cli.options import JudgedCommand, judgement_options, run_format_option

_SHOWN_QUERIES = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class CompareCommand(JudgedCommand):
    """What `compare` is asked for. Raises UsageError for fewer than two runs, or one that is given twice."""

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
            raise click.UsageError("give at least two runs, or one and a --baseline")

    @property
    def paths(self) -> tuple[Path, ...]:
        """The runs, the baseline first where it is not among them."""
        if self.baseline is None or self.baseline in self.runs:
            return self.runs
        return (self.baseline, *self.runs)


@click.command("compare")
@click.argument("runs", type=PATH, nargs=-1, required=True, metavar="RUN RUN [RUN ...]")
@judgement_options()
@run_format_option
@click.option("--baseline", type=PATH, help="The run that the others are compared with.  [default: the first]")
@click.option("--per-query/--no-per-query", "-q", default=False, help="Show the queries that gained and lost most.")
@click.option("--json/--no-json", "as_json", default=False, help="Print one JSON object, in full precision.")
@click.option(
    "--run-queries-only/--no-run-queries-only",
    default=False,
    help="Over the judged queries that every run holds. By default one that a run lacks counts 0 for it.",
)
@click.option(
    "--resamples",
    type=click.IntRange(100),
    default=10_000,
    help="Of the bootstrap, and of the test where not all sign patterns can be counted.",
)
@click.option(
    "--level",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    default=0.95,
    help="Confidence level of the intervals.",
)
@click.option("--seed", type=click.IntRange(0), default=0, help="Of both.")
def command(**given: Any) -> None:
    """Compare runs with a baseline, query by query.

    For each measure a table: mean with its bootstrap interval, change, p of the two-sided paired randomisation test
    (Holm-corrected over the runs of the table), and how many queries are better, the same and worse. With --json,
    --per-query adds the values of all queries. Measures, runs and -c are those of `evaluate`.
    """
    from rankllm_core.files import dumps
    from rankllm_infer.evaluation.compare import compare_files
    from rankllm_infer.evaluation.comparison_text import comparison_lines, comparison_to_dict

    asked = CompareCommand(**given)
    found = compare_files(
        asked.qrels,
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
