"""`rankllm-infer evaluate`: how good runs are, by trec_eval's measures."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from rankllm_core.errors import RankLLMError
from rankllm_infer.cli import say
from rankllm_infer.wording import count, examples

if TYPE_CHECKING:
    from rankllm_infer.evaluate import Evaluation

_FILE = click.Path(path_type=Path)
_DEFAULT_MEASURES = ("nDCG@10",)
# trec_eval's own names may hold commas: `recall.100,1000` is two measures of one name.
_COMMA = re.compile(r",\s*(?=[A-Za-z])")


@click.command("evaluate")
@click.argument("runs", type=_FILE, nargs=-1, required=True, metavar="RUN [RUN ...]")
@click.option("--qrels", type=_FILE, required=True, help="Judgements, TREC or BEIR (gz).")
@click.option(
    "-m",
    "--measure",
    "names",
    multiple=True,
    default=_DEFAULT_MEASURES,
    help="For example nDCG@10, RR@10, MRR@10, Recall@100, AP, ndcg_cut.10; may be repeated, or hold commas.",
)
@click.option("--per-query/--no-per-query", "-q", default=False, help="Print each query, then the mean as `all`.")
@click.option("--json/--no-json", "as_json", default=False, help="Print one JSON object a run, in full precision.")
@click.option(
    "--run-queries-only/--no-run-queries-only",
    default=False,
    help="Average over the judged queries that the run holds. By default one that it lacks counts 0.",
)
@click.option(
    "-l", "--relevance-level", type=click.IntRange(1), default=1, help="The least grade that counts as relevant."
)
# trec_eval's name of what is the default here.
@click.option("-c", "is_complete", is_flag=True, hidden=True)
def command(
    *,
    runs: Sequence[Path],
    qrels: Path,
    names: Sequence[str],
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
    from rankllm_core.trec import read_qrels
    from rankllm_infer.measures import parse_measures

    if is_complete and run_queries_only:
        raise click.UsageError("-c and --run-queries-only contradict each other")
    measures = [measure for name in names for measure in _COMMA.split(name)]
    parse_measures(measures, relevance_level=relevance_level)
    for path in runs:
        if not path.exists():
            raise RankLLMError(f"{path}: no such file")
    grades = read_qrels(qrels)
    if not grades:
        raise RankLLMError(f"{qrels}: holds no judgements")
    for path in runs:
        found = _evaluate(path, grades, measures, run_queries_only=run_queries_only, relevance_level=relevance_level)
        _print(str(path), found, per_query=per_query, as_json=as_json)


def _evaluate(
    path: Path,
    qrels: Mapping[str, Mapping[str, int]],
    measures: Sequence[str],
    *,
    run_queries_only: bool,
    relevance_level: int,
) -> Evaluation:
    from rankllm_core.trec import read_run
    from rankllm_infer.evaluate import evaluate

    run = read_run(path)
    try:
        return evaluate(qrels, run, measures, run_queries_only=run_queries_only, relevance_level=relevance_level)
    except RankLLMError as error:
        raise RankLLMError(f"{path}: {error}") from None


def _print(name: str, found: Evaluation, *, per_query: bool, as_json: bool) -> None:
    from rankllm_core.files import dumps
    from rankllm_infer.evaluate import evaluation_lines, evaluation_to_dict

    if as_json:
        click.echo(dumps(evaluation_to_dict(name, found, per_query=per_query)))
    else:
        click.echo("\n".join(evaluation_lines(name, found, per_query=per_query)))
    if found.missing_qids:
        n_judged = found.n_queries + (len(found.missing_qids) if found.run_queries_only else 0)
        effect = "left out of the means" if found.run_queries_only else "counted as 0"
        missing = f"{len(found.missing_qids)} of {count(n_judged, 'judged query')} not in the run"
        say(f"{name}: {missing}, {effect} ({examples(found.missing_qids)})")
