"""`rankllm-infer retrieve`: the first stage, from queries to a run or to requests for `rerank`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rankllm_core.command_line import NAME, PATH
from rankllm_core.errors import RankLLMError
from rankllm_core.files import check_output, refuse_same_file
from rankllm_infer.cli import say
from rankllm_infer.cli.retrieve_sources import Retrieved, search, source_kind
from rankllm_infer.retrieval.bm25 import K1, B
from rankllm_infer.wording import count, examples

if TYPE_CHECKING:
    from rankllm_core.trec import Qrels, Run

_DEPTH = 100
_MEASURES = ("nDCG@10", "MRR@10", "Recall@100")


@click.command("retrieve")
@click.option("--corpus", type=PATH, help="Passages of your own, JSONL or TSV (gz, xz), for the embedded BM25.")
@click.option("--index", type=NAME, help="A Lucene index: a folder, or the name of one of Pyserini's.")
@click.option("--dataset", type=NAME, help="A data set of Pyserini's: dl19 to dl23, beir-NAME, mrtydi-LANGUAGE.")
@click.option(
    "--queries", "--topics", type=NAME, help="Queries TSV or JSONL (gz, xz); with --index also a name of Pyserini's."
)
@click.option(
    "--retrieval-method", help="With --index and --dataset: bm25, bm25_rm3, SPLADE++_EnsembleDistil_ONNX or splade_v3."
)
@click.option("--output", type=PATH, help="The run.")
@click.option("--output-requests", type=PATH, help="The candidates with their texts, for `rerank --requests`.")
@click.option("--depth", type=click.IntRange(1), default=_DEPTH, help="Candidates of each query, at the most.")
@click.option(
    "--k1", type=click.FloatRange(min=0), help=f"BM25: how late repeating a term stops paying.  [default: {K1}]"
)
@click.option("--b", type=click.FloatRange(0, 1), help=f"BM25: how much length is marked down.  [default: {B}]")
@click.option("--index-dir", type=PATH, help="Where to keep --corpus's index.  [default: a folder in the user's cache]")
@click.option("--max-queries", type=click.IntRange(1), help="Stop after so many queries.")
@click.option("--remove-query/--no-remove-query", default=False, help="Leave out candidates whose docid is the qid.")
@click.option(
    "--output-format",
    type=click.Choice(["trec", "tsv", "msmarco"]),
    help="By default TREC, or TSV for a name that ends in .tsv.",
)
@click.option("--tag", help="The run's name in the TREC format.  [default: the retrieval method's]")
@click.option("--qrels", type=PATH, help="Score the run when done; of --dataset they are known.")
@click.option("--overwrite/--no-overwrite", default=False, help="Replace outputs that exist.")
def command(**given: Any) -> None:
    """Find candidates for queries: the first stage.

    --corpus with --queries needs nothing else: BM25, whose index is made once, and again when the corpus has changed.
    --dataset with --retrieval-method and --index with --queries need Pyserini.
    --output is what `rerank --run` and `evaluate` read, --output-requests what `rerank --requests` reads.
    """
    kind = source_kind(given)
    _check_outputs(kind, given)
    qrels = _read_qrels(given["qrels"]) if given["qrels"] else None
    found = search(kind, given, qrels=qrels)
    if not any(found.run.values()):
        raise RankLLMError(f"{given[kind]}: none of the {count(len(found.run), 'query')} finds a passage")
    _write(given, found)
    if (qrels := qrels or found.qrels) is not None:
        _print_figures(found.run, qrels)


def _check_outputs(kind: str, given: Mapping[str, Any]) -> None:
    from rankllm_infer.jobs.outputs import run_format_of

    outputs = [given[name] for name in ("output", "output_requests") if given[name]]
    if not outputs and not given["qrels"] and kind != "dataset":
        raise click.UsageError("nothing to write: give --output, --output-requests or --qrels")
    if given["output"] is None and given["output_format"]:
        raise click.UsageError("--output-format has no effect without --output")
    if given["tag"] and (given["output"] is None or run_format_of(given["output"], given["output_format"]) != "trec"):
        raise click.UsageError("--tag has no effect without an --output in the TREC format")
    if len({path.resolve() for path in outputs}) < len(outputs):
        raise click.UsageError(f"{outputs[0]}: is to hold two outputs; give each a file of its own")
    for path in outputs:
        check_output(path, overwrite=given["overwrite"])
        for name in ("corpus", "queries", "qrels"):
            if given[name]:
                refuse_same_file(given[name], path)


def _read_qrels(path: Path) -> Qrels:
    from rankllm_core.trec import read_qrels

    return read_qrels(path)


def _write(given: Mapping[str, Any], found: Retrieved) -> None:
    from rankllm_core.data.records import write_requests
    from rankllm_core.trec import write_results
    from rankllm_infer.jobs.outputs import run_format_of

    run = found.run
    n_candidates, n_queries = sum(map(len, run.values())), sum(map(bool, run.values()))
    say(f"retrieved {count(n_candidates, 'candidate')} for {count(n_queries, 'query')}")
    if without := [qid for qid, ranking in run.items() if not ranking]:
        say(f"found nothing for {count(len(without), 'query')} ({examples(without)})")
    # What may still fail comes first, so that no half of the outputs is left behind.
    requests = found.requests() if given["output_requests"] else []
    if path := given["output"]:
        run_format = run_format_of(path, given["output_format"])
        write_results(path, run.items(), format=run_format, tag=given["tag"] or found.tag)
        say(f"Wrote {path}")
    if path := given["output_requests"]:
        write_requests(path, requests)
        say(f"Wrote {path} (requests)")


def _print_figures(run: Run, qrels: Qrels) -> None:
    """The figures over the judged queries that were asked; one that found nothing counts 0."""
    from rankllm_infer.evaluation.evaluate import evaluate, evaluation_lines

    asked = {qid: grades for qid, grades in qrels.items() if qid in run and grades}
    if not any(run[qid] for qid in asked):
        say("No figures: none of the judged queries found anything")
        return
    found = evaluate(asked, run, _MEASURES)
    say(f"Scores of the {found.n_queries} judged queries among the {len(run)} asked:")
    for line in evaluation_lines("retrieved", found):
        click.echo(line)
