"""`rankllm-infer compare`: are some runs better than another, and is it more than chance?"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from rankllm_core.command_line import PATH
from rankllm_infer.cli.judged import checked_measures, judgement_options, read_judgements, say_missing
from rankllm_infer.cli.options import run_format_option

if TYPE_CHECKING:
    from rankllm_core.trec import RunFormat

_SHOWN_QUERIES = 5


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
def command(
    *,
    runs: Sequence[Path],
    qrels: Path,
    names: Sequence[str],
    relevance_level: int,
    is_complete: bool,
    run_format: RunFormat,
    baseline: Path | None,
    per_query: bool,
    as_json: bool,
    run_queries_only: bool,
    resamples: int,
    level: float,
    seed: int,
) -> None:
    """Compare runs with a baseline, query by query.

    For each measure a table: mean with its bootstrap interval, change, p of the two-sided paired randomisation test
    (Holm-corrected over the runs of the table), and how many queries are better, the same and worse. With --json,
    --per-query adds the values of all queries. Measures, runs and -c are those of `evaluate`.
    """
    from rankllm_core.files import dumps
    from rankllm_core.trec import format_beside_others, read_run
    from rankllm_infer.evaluation.compare import compare, comparison_lines, comparison_to_dict

    paths = _paths(runs, baseline)
    measures = checked_measures(
        names, relevance_level=relevance_level, is_complete=is_complete, run_queries_only=run_queries_only
    )
    grades = read_judgements(qrels, paths)
    found = compare(
        grades,
        {str(path): read_run(path, format=format_beside_others(path, run_format)) for path in paths},
        measures,
        baseline=str(baseline) if baseline else None,
        run_queries_only=run_queries_only,
        relevance_level=relevance_level,
        n_resamples=resamples,
        level=level,
        seed=seed,
    )
    for name, missing in found.missing_qids.items():
        n_judged = sum(map(bool, grades.values()))
        say_missing(name, missing, n_judged=n_judged, run_queries_only=run_queries_only)
    if as_json:
        settings = {"resamples": resamples, "seed": seed}
        click.echo(dumps(comparison_to_dict(found, per_query=per_query) | settings))
    else:
        click.echo("\n".join(comparison_lines(found, per_query=_SHOWN_QUERIES if per_query else 0)))


def _paths(runs: Sequence[Path], baseline: Path | None) -> list[Path]:
    """The runs, the baseline first where it is not among them."""
    paths = list(runs) if baseline is None or baseline in runs else [baseline, *runs]
    if twice := [path for path in paths if paths.count(path) > 1]:
        raise click.UsageError(f"{twice[0]} is given twice")
    if len(paths) < 2:
        raise click.UsageError("give at least two runs, or one and a --baseline")
    return paths
