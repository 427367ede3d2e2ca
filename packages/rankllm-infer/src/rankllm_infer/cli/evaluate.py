"""`rankllm-infer evaluate`: evaluate runs with trec_eval's measures."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rankllm_core.command_line import PATH
from rankllm_infer.cli import say
from rankllm_infer.cli.options import JudgedCommand, judgement_options, judgements_file, run_format_option

if TYPE_CHECKING:
    from rankllm_infer.evaluation.evaluate import Evaluation


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluateCommand(JudgedCommand):
    """Parsed command line of `evaluate`."""

    files: tuple[Path, ...]
    """The runs, preceded by the judgements unless --qrels is given."""
    per_query: bool
    as_json: bool


@click.command("evaluate")
@click.argument("files", type=PATH, nargs=-1, required=True, metavar="[QRELS] RUN [RUN ...]")
@judgement_options(is_required=False)
@run_format_option
@click.option(
    "--per-query/--no-per-query", "-q", default=False, help="Print the value for each query, then the mean as `all`."
)
@click.option("--json/--no-json", "as_json", default=False, help="Print one JSON object per run with full precision.")
@click.option(
    "--run-queries-only/--no-run-queries-only",
    default=False,
    help="Average over judged queries that occur in the run. By default, a missing query scores 0.",
)
def command(**given: Any) -> None:
    """Evaluate runs against relevance judgements, averaging over all judged queries like `trec_eval -c`.

    Judgements come from --qrels or, as in trec_eval, precede the runs: a file, or the name of a test collection
    (dl19-passage, beir-scifact, ...) whose qrels file is on this machine.

    Prints `RUN TAB measure TAB value` or, with --per-query, `RUN TAB measure TAB qid TAB value`. Runs may be TREC, TSV
    or MS MARCO files, optionally gzipped. -c, -m, -l and -q have the same meaning as in trec_eval; -c is the default.
    """
    asked = EvaluateCommand(**given)
    measures = asked.measures()
    from rankllm_infer.evaluation.evaluate import evaluate_files

    judged, *runs = asked.files if asked.qrels is None else (asked.qrels, *asked.files)
    if not runs:
        raise click.UsageError(
            f"expected a run after the judgements: evaluate {judged} RUN, or evaluate --qrels QRELS RUN"
        )
    for path, found in evaluate_files(
        judgements_file(judged),
        runs,
        measures,
        run_format=asked.run_format,
        run_queries_only=asked.run_queries_only,
        relevance_level=asked.relevance_level,
    ):
        _print(str(path), found, asked)


def _print(name: str, found: Evaluation, asked: EvaluateCommand) -> None:
    from rankllm_core.files import dumps
    from rankllm_infer.evaluation.evaluate import evaluation_lines, evaluation_to_dict

    if asked.as_json:
        click.echo(dumps(evaluation_to_dict(name, found, per_query=asked.per_query)))
    else:
        click.echo("\n".join(evaluation_lines(name, found, per_query=asked.per_query)))
    for line in found.missing_lines(name):
        say(line)
