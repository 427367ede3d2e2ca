"""`rankllm-infer retrieve`: the first stage, from queries to a run or to requests for `rerank`."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rankllm_core.errors import RankLLMError
from rankllm_infer.bm25 import K1, B
from rankllm_infer.cli import say
from rankllm_infer.cli.options import check_output, refuse_same_file
from rankllm_infer.cli.progress import counter
from rankllm_infer.wording import count, examples

if TYPE_CHECKING:
    from rankllm_core.trec import Qrels, Run
    from rankllm_core.types import Request

_FILE = click.Path(path_type=Path)
_DEPTH = 100
_MEASURES = ("nDCG@10", "MRR@10", "Recall@100")


@click.command("retrieve")
@click.option("--corpus", type=_FILE, required=True, help="Passages JSONL or TSV (gz, xz).")
@click.option("--queries", "--topics", type=_FILE, required=True, help="Queries TSV or JSONL (gz, xz).")
@click.option("--output", type=_FILE, help="The run.")
@click.option("--output-requests", type=_FILE, help="The candidates with their texts, for `rerank --requests`.")
@click.option("--depth", type=click.IntRange(1), default=_DEPTH, help="Candidates of each query, at the most.")
@click.option("--k1", type=click.FloatRange(min=0), default=K1, help="How late repeating a term stops paying.")
@click.option("--b", type=click.FloatRange(0, 1), default=B, help="How much a long passage is marked down.")
@click.option(
    "--index-dir", type=_FILE, help="Where to keep the index.  [default: a folder for it in the user's cache]"
)
@click.option("--max-queries", type=click.IntRange(1), help="Stop after so many queries.")
@click.option("--remove-query/--no-remove-query", default=False, help="Leave out candidates whose docid is the qid.")
@click.option(
    "--output-format",
    type=click.Choice(["trec", "tsv", "msmarco"]),
    help="By default TREC, or TSV for a name that ends in .tsv.",
)
@click.option("--tag", help="The run's name in the TREC format.  [default: bm25]")
@click.option("--qrels", type=_FILE, help="Score the run when done.")
@click.option("--overwrite/--no-overwrite", default=False, help="Replace outputs that exist.")
def command(**given: Any) -> None:
    """Find candidates for queries with BM25, over a corpus of your own.

    The index is made once, and again when the corpus has changed. --output is what `rerank --run` and `evaluate` read,
    --output-requests what `rerank --requests` reads.
    """
    _check(given)
    queries = _queries(given)
    qrels = _qrels(given["qrels"], queries) if given["qrels"] else None
    run = _search(given, queries)
    if not any(run.values()):
        raise RankLLMError(f"{given['corpus']}: none of the {count(len(run), 'query')} finds a passage")
    requests = _requests(given, queries, run) if given["output_requests"] else []
    _write(given, run, requests)
    if qrels is not None:
        _print_figures(run, qrels)


def _check(given: Mapping[str, Any]) -> None:
    from rankllm_infer.outputs import run_format_of

    outputs = [given[name] for name in ("output", "output_requests") if given[name]]
    if not outputs and not given["qrels"]:
        raise click.UsageError("nothing to write: give --output, --output-requests or --qrels")
    if given["output"] is None and given["output_format"]:
        raise click.UsageError("--output-format has no effect without --output")
    if given["tag"] and (given["output"] is None or run_format_of(given["output"], given["output_format"]) != "trec"):
        raise click.UsageError("--tag has no effect without an --output in the TREC format")
    if len({path.absolute() for path in outputs}) < len(outputs):
        raise click.UsageError(f"{outputs[0]}: is to hold two outputs; give each a file of its own")
    for path in outputs:
        check_output(path, overwrite=given["overwrite"])
        for name in ("corpus", "queries", "qrels"):
            if given[name]:
                refuse_same_file(given[name], path)


def _queries(given: Mapping[str, Any]) -> dict[str, str]:
    from rankllm_core.collections_io import read_queries

    queries = dict(islice(read_queries(given["queries"]).items(), given["max_queries"]))
    if not queries:
        raise RankLLMError(f"{given['queries']}: holds no query")
    return queries


def _qrels(path: Path, queries: Mapping[str, str]) -> Qrels:
    """The judgements of the queries that are asked."""
    from rankllm_infer.cli.rerank_input import load_qrels

    return {qid: grades for qid, grades in load_qrels(path, queries).items() if qid in queries}


def _search(given: Mapping[str, Any], queries: Mapping[str, str]) -> Run:
    from rankllm_infer.bm25_cache import open_index
    from rankllm_infer.first_stage import retrieve

    with counter("index", unit=" passages", delay_s=2.0) as show:
        index = open_index(
            given["corpus"], folder=given["index_dir"], k1=given["k1"], b=given["b"], tell=say, progress=show
        )
    with counter("retrieve", unit=" queries", total=len(queries), delay_s=2.0) as show:
        return retrieve(index, queries, depth=given["depth"], remove_query=given["remove_query"], progress=show)


def _requests(given: Mapping[str, Any], queries: Mapping[str, str], run: Run) -> list[Request]:
    from rankllm_infer.prepare import requests_of_run

    with counter("corpus", unit=" passages", delay_s=2.0) as show:
        return requests_of_run(run, queries=queries, corpus=given["corpus"], progress=show)


def _write(given: Mapping[str, Any], run: Run, requests: list[Request]) -> None:
    from rankllm_core.records import write_requests
    from rankllm_core.trec import write_results
    from rankllm_infer.outputs import run_format_of

    n_hits = sum(map(len, run.values()))
    say(f"retrieved {count(n_hits, 'candidate')} for {count(sum(map(bool, run.values())), 'query')}")
    if without := [qid for qid, ranking in run.items() if not ranking]:
        say(f"found nothing for {count(len(without), 'query')} ({examples(without)})")
    if path := given["output"]:
        run_format = run_format_of(path, given["output_format"])
        write_results(path, run.items(), format=run_format, tag=given["tag"] or "bm25")
        say(f"Wrote {path}")
    if path := given["output_requests"]:
        write_requests(path, requests)
        say(f"Wrote {path} (requests)")


def _print_figures(run: Run, qrels: Qrels) -> None:
    from rankllm_infer.evaluate import evaluate, evaluation_lines

    found = evaluate(qrels, run, _MEASURES)
    say(f"Scores of the {found.n_queries} judged queries among the {len(run)} asked:")
    for line in evaluation_lines("retrieved", found):
        click.echo(line)
