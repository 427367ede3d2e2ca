"""`rankllm-infer evaluate`: how good runs are, by trec_eval's measures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from rankllm_core.command_line import PATH
from rankllm_core.errors import RankLLMError
from rankllm_infer.cli.judged import checked_measures, judgement_options, read_judgements, say_missing
from rankllm_infer.cli.options import run_format_option

if TYPE_CHECKING:
    from rankllm_core.trec import Run, RunFormat
    from rankllm_infer.evaluation.evaluate import Evaluation


@click.command("evaluate")
@click.argument("runs", type=PATH, nargs=-1, required=True, metavar="RUN [RUN ...]")
@judgement_options()
@run_format_option
@click.option("--per-query/--no-per-query", "-q", default=False, help="Print each query, then the mean as `all`.")
@click.option("--json/--no-json", "as_json", default=False, help="Print one JSON object a run, in full precision.")
@click.option(
    "--run-queries-only/--no-run-queries-only",
    default=False,
    help="Average over the judged queries that the run holds. By default one that it lacks counts 0.",
)
def command(
    *,
    runs: Sequence[Path],
    qrels: Path,
    names: Sequence[str],
    run_format: RunFormat,
    per_query: bool,
    as_json: bool,
    run_queries_only: bool,
    relevance_level: int,
    is_complete: bool,
) -> None:
    """Score runs against judgements, as `trec_eval -c` does: means over all judged queries.

    Prints `RUN TAB measure TAB value`; with --per-query `RUN TAB measure TAB qid TAB value`. Runs may be TREC, TSV or
    MS MARCO files (gz). -c, -m, -l and -q mean what they mean to trec_eval; -c is the default.
    """
    measures = checked_measures(
        names, relevance_level=relevance_level, is_complete=is_complete, run_queries_only=run_queries_only
    )
    from rankllm_core.trec import format_beside_others, read_run

    grades = read_judgements(qrels, runs)
    for path in runs:
        run = read_run(path, format=format_beside_others(path, run_format))
        found = _evaluate(
            path, run, grades, measures, run_queries_only=run_queries_only, relevance_level=relevance_level
        )
        _print(str(path), found, per_query=per_query, as_json=as_json)


def _evaluate(
    path: Path,
    run: Run,
    qrels: Mapping[str, Mapping[str, int]],
    measures: Sequence[str],
    *,
    run_queries_only: bool,
    relevance_level: int,
) -> Evaluation:
    from rankllm_infer.evaluation.evaluate import evaluate

    try:
        return evaluate(qrels, run, measures, run_queries_only=run_queries_only, relevance_level=relevance_level)
    except RankLLMError as error:
        raise RankLLMError(f"{path}: {error}") from None


def _print(name: str, found: Evaluation, *, per_query: bool, as_json: bool) -> None:
    from rankllm_core.files import dumps
    from rankllm_infer.evaluation.evaluate import evaluation_lines, evaluation_to_dict

    if as_json:
        click.echo(dumps(evaluation_to_dict(name, found, per_query=per_query)))
    else:
        click.echo("\n".join(evaluation_lines(name, found, per_query=per_query)))
    n_judged = found.n_queries + (len(found.missing_qids) if found.run_queries_only else 0)
    say_missing(name, found.missing_qids, n_judged=n_judged, run_queries_only=found.run_queries_only)
