"""`rankllm-infer rerank`: candidates in, a better order out."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rankllm_core.errors import ConfigError
from rankllm_infer.cli import EXIT_SOME_FAILED, SETTINGS, say
from rankllm_infer.cli.options import check_output, refuse_same_file
from rankllm_infer.cli.progress import counter
from rankllm_infer.cli.rerank_input import check_requests, input_files, input_kind, load_qrels, load_requests
from rankllm_infer.cli.rerank_options import input_options, model_options, output_options, ranking_options
from rankllm_infer.settings import RerankOptions

if TYPE_CHECKING:
    from rankllm_core.trec import Qrels
    from rankllm_core.types import Request, Result
    from rankllm_infer.api import Reranker
    from rankllm_infer.outputs import OutputFiles


@click.command("rerank", context_settings=SETTINGS)
@model_options
@input_options
@ranking_options
@output_options
def command(**given: Any) -> int:
    """Rerank candidates with a language model.

    Candidates come from --requests, --rerank-input, --run with --queries and --corpus, or --query with --passages.
    Exit status: 0 done, 1 an error, 2 wrong usage, 3 done but some queries failed.
    """
    kind = input_kind(given)
    options = _options(given)
    files = _output_files(given)
    if kind != "query" and not files.paths() and not given["qrels"]:
        raise click.UsageError("nothing to write: give --output, --output-jsonl, --trace or --qrels")
    for path in files.paths():
        check_output(path, overwrite=given["overwrite"])
        for source in input_files(given):
            refuse_same_file(source, path)
    requests = load_requests(kind, given)
    qids = check_requests(requests, files, strict=given["strict"])
    qrels = load_qrels(given["qrels"], qids) if given["qrels"] else None
    from rankllm_infer.api import load_reranker

    say(f"Loading {given['model_path']} ...")
    with load_reranker(given["model_path"], options) as reranker:
        for warning in reranker.warnings:
            say(f"Warning: {warning}")
        say(f"Reranking: {reranker.description}")
        if kind == "query":
            return _one_query(reranker, next(iter(requests)), files, as_json=given["as_json"])
        return _many_queries(reranker, requests, files, n_queries=len(qids), qrels=qrels)


def _options(given: Mapping[str, Any]) -> RerankOptions:
    dtypes = {given["dtype"], "bfloat16" if given["bf16"] else None, "float16" if given["fp16"] else None} - {None}
    if len(dtypes) > 1:
        raise click.UsageError("--dtype, --bf16 and --fp16 contradict each other")
    names = [name for name in RerankOptions.__dataclass_fields__ if name in given and name not in ("dtype", "template")]
    try:
        return RerankOptions(
            **{name: given[name] for name in names},
            template=_template(given["template"]),
            dtype=next(iter(dtypes), "auto"),
            api_key=os.environ.get("OPENAI_API_KEY") if given["engine"] == "openai" else None,
            with_trace=given["trace"] is not None,
        )
    except ConfigError as error:
        raise click.UsageError(str(error)) from None


_ORIGINALS_FOLDER = "src/rank_llm/rerank/prompt_templates/"


def _template(asked: str | None) -> str | None:
    """The template asked for; of the originals' own files, which are in their repository, the one that ships."""
    if asked is None or Path(asked).exists():
        return asked
    return asked.removeprefix(_ORIGINALS_FOLDER)


def _output_files(given: Mapping[str, Any]) -> OutputFiles:
    from rankllm_infer.outputs import OutputFiles, run_format_of

    asked, output = given["output_format"], given["output"]
    if given["encoded_save_path"] is not None:
        if output is not None:
            raise click.UsageError("--output and --encoded-save-path are the same; give one of them")
        output, asked = given["encoded_save_path"], asked or "tsv"
    run_format = run_format_of(output, asked) if output else "trec"
    if output is None and asked:
        raise click.UsageError("--output-format has no effect without --output")
    if given["tag"] and (output is None or run_format != "trec"):
        raise click.UsageError("--tag has no effect without an --output in the TREC format")
    try:
        return OutputFiles(
            run=output,
            run_format=run_format,
            tag=given["tag"] or "rankllm",
            results=given["output_jsonl"],
            trace=given["trace"],
        )
    except ConfigError as error:
        raise click.UsageError(str(error)) from None


def _one_query(reranker: Reranker, request: Request, files: OutputFiles, *, as_json: bool) -> int:
    from rankllm_infer.outputs import open_outputs
    from rankllm_infer.report import result_json, result_table

    (result,) = reranker.rerank([request])
    if result.status == "failed":
        say(f"Error: {result.error}")
        return EXIT_SOME_FAILED
    if files.paths():
        with open_outputs(files) as writer:
            writer.write(result)
    click.echo(result_json(result) if as_json else result_table(result, request))
    return 0


def _many_queries(
    reranker: Reranker, requests: Iterable[Request], files: OutputFiles, *, n_queries: int, qrels: Qrels | None
) -> int:
    from rankllm_infer.outputs import NothingWrittenError, Summary, open_outputs
    from rankllm_infer.report import summary_lines

    summary = Summary()
    began = time.monotonic()
    rankings: dict[str, list[tuple[str, float]]] = {}
    written = files.paths()
    try:
        with open_outputs(files) as writer, counter("rerank", unit="query", total=n_queries) as show:
            finished = 0

            def count(result: Result) -> None:
                nonlocal finished
                finished += 1
                show(finished)

            for result in reranker.stream(requests, on_finished=count):
                summary.add(result)
                writer.write(result)
                if qrels is not None and result.status != "failed":
                    rankings[result.query.qid] = [(c.docid, c.score) for c in result.candidates]
    except NothingWrittenError:
        written = ()
    for line in summary_lines(summary, seconds=time.monotonic() - began, files=written):
        say(line)
    if len(summary.failures) == summary.n_queries:
        say("Error: no query could be ranked; nothing was written")
    elif qrels is not None:
        _evaluate(qrels, rankings)
    return EXIT_SOME_FAILED if summary.failures else 0


def _evaluate(qrels: Qrels, rankings: Mapping[str, list[tuple[str, float]]]) -> None:
    from rankllm_infer.evaluate import evaluate, evaluation_lines

    judged = [qid for qid, ranking in rankings.items() if ranking and qrels.get(qid)]
    if not judged:
        say("No figures: none of the queries that were ranked is judged")
        return
    say(
        f"Scores of the {len(judged)} judged queries among the {len(rankings)} ranked by this run "
        "(for all judged queries: rankllm-infer evaluate):"
    )
    scores = evaluate(qrels, rankings, ["nDCG@10", "MRR@10", "Recall@100"], run_queries_only=True)
    for line in evaluation_lines("reranked", scores):
        click.echo(line)
