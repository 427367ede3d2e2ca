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
from rankllm_infer.cli.options import check_output, ignored, refuse_same_file
from rankllm_infer.cli.progress import counter
from rankllm_infer.cli.rerank_input import check_requests, input_files, input_kind, load_qrels, load_requests
from rankllm_infer.settings import DTYPES, ENGINES, METHODS, RerankOptions

if TYPE_CHECKING:
    from rankllm_core.trec import Qrels
    from rankllm_core.types import Request, Result
    from rankllm_infer.api import Reranker
    from rankllm_infer.outputs import OutputFiles

_FILE = click.Path(path_type=Path)


def _inputs(command: click.decorators.FC) -> click.decorators.FC:
    for decorate in reversed(
        [
            click.option(
                "--requests",
                "--requests-file",
                "requests",
                type=_FILE,
                help="Requests JSONL, or results of an earlier run.",
            ),
            click.option(
                "--rerank-input", "--encode-in-path", "rerank_input", type=_FILE, help="Pairs as `prepare` writes them."
            ),
            click.option(
                "--run", type=_FILE, help="A first-stage run (TREC, TSV, MS MARCO); needs --queries and --corpus."
            ),
            click.option("--queries", help="Queries TSV or JSONL (gz), or a Hugging Face data set."),
            click.option("--corpus", help="Passages JSONL or TSV (gz), or a Hugging Face data set."),
            click.option("--query", help="One query; needs --passages."),
            click.option(
                "--passages", help="Its passages: a file with one a line or JSONL, or `-` for standard input."
            ),
            click.option(
                "--top-k-candidates",
                type=click.IntRange(1),
                help="Candidates of each query to rerank; the others follow (of --run: are left out).",
            ),
            click.option("--max-queries", type=click.IntRange(1), help="Stop after so many queries."),
            click.option(
                "--strict/--no-strict", default=False, help="Missing texts and queries without candidates are errors."
            ),
        ]
    ):
        command = decorate(command)
    return command


def _model_options(command: click.decorators.FC) -> click.decorators.FC:
    for decorate in reversed(
        [
            click.option(
                "--model-path",
                "--model-name-or-path",
                "model_path",
                required=True,
                help="A checkpoint's folder, a hub name, or a server's model name.",
            ),
            click.option("--base-model", help="For an adapter: its base, in place of the one it names."),
            click.option("--method", type=click.Choice(METHODS), default="auto"),
            click.option("--engine", type=click.Choice(ENGINES), default="transformers"),
            click.option(
                "--base-url", help="Server of --engine openai, ending in /v1. The key is read from OPENAI_API_KEY."
            ),
            click.option(
                "--timeout",
                "timeout_s",
                type=click.FloatRange(min=0, min_open=True),
                default=300.0,
                help="Seconds to wait for an answer of a server.",
            ),
            click.option(
                "--concurrency", type=click.IntRange(1), default=16, help="Prompts under way at a server at once."
            ),
            click.option(
                "--dtype",
                type=click.Choice(DTYPES),
                default=None,
                help="auto: bfloat16 where the hardware is fast at it.  [default: auto]",
            ),
            click.option("--bf16/--no-bf16", default=None, help="The same as --dtype bfloat16."),
            click.option("--fp16/--no-fp16", default=None, help="The same as --dtype float16."),
            click.option("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps."),
            click.option("--num-gpus", type=click.IntRange(1), default=1, help="Spread the layers over so many."),
            click.option(
                "--batch-size",
                "--per-device-eval-batch-size",
                "batch_size",
                type=click.IntRange(1),
                default=32,
                help="Prompts at once, at the most.",
            ),
            click.option(
                "--batch-tokens",
                type=click.IntRange(0),
                default=0,
                help="Padded tokens at once, at the most; 0: what suits the device.",
            ),
        ]
    ):
        command = decorate(command)
    return command


def _ranking_options(command: click.decorators.FC) -> click.decorators.FC:
    said = " By default what the model's card says."
    for decorate in reversed(
        [
            click.option(
                "--prompt-template-path", "template", help="A template's name (see `prompts list`) or YAML file." + said
            ),
            click.option("--context-size", type=click.IntRange(1), help="Tokens of prompt and answer." + said),
            click.option("--window-size", type=click.IntRange(1), help="Passages in a prompt." + said),
            click.option("--stride", type=click.IntRange(1), help="Ranks the window moves." + said),
            click.option(
                "--num-passes", type=click.IntRange(1), default=1, help="How often the windows go over the list."
            ),
            click.option(
                "--use-logits/--no-use-logits",
                default=None,
                help="FIRST: read the order off the first token's logits." + said,
            ),
            click.option("--use-alpha/--no-use-alpha", default=None, help="Call the passages A, B, C." + said),
            click.option(
                "--shuffle-candidates/--no-shuffle-candidates",
                default=False,
                help="Shuffle each query's candidates first.",
            ),
            click.option("--seed", type=int, default=0, help="Of the shuffling."),
            click.option("--num-few-shot-examples", type=click.IntRange(0), default=0),
            click.option("--few-shot-file", help='JSON array of {"conversations": [{"role", "value"}]}.'),
            click.option("--system-message", help="In place of the template's own."),
            click.option("--max-passage-words", type=click.IntRange(1), help="Words of a passage shown." + said),
            click.option(
                "--variable-passages/--no-variable-passages",
                default=True,
                help="Whether a window may hold fewer passages than its size.",
            ),
            click.option("--q-max-len", type=click.IntRange(1), help="Pointwise: tokens of the query." + said),
            click.option("--p-max-len", type=click.IntRange(1), help="Pointwise: tokens of the passage." + said),
            # The only way so far. Once decoding can be limited to permutations, this asks for what there is today.
            click.option("--free-decoding", is_flag=True, expose_value=False, help="Generate without constraints."),
            ignored("--dataset-name", takes_value=True),
            ignored("--dataset-proc-num", takes_value=True),
            ignored("--tokenizer-name", takes_value=True),
            ignored("--cache-dir", takes_value=True),
            ignored("--output-dir", takes_value=True),
            ignored("--overwrite-cache", takes_value=False),
            ignored("--print-prompts-responses", takes_value=False),
            ignored("--populate-invocations-history", takes_value=False),
        ]
    ):
        command = decorate(command)
    return command


def _outputs(command: click.decorators.FC) -> click.decorators.FC:
    for decorate in reversed(
        [
            click.option("--output", "--output-trec-file", "output", type=_FILE, help="The run."),
            click.option("--encoded-save-path", type=_FILE, help="The same as --output, in TSV by default."),
            click.option(
                "--output-format",
                type=click.Choice(["trec", "tsv", "msmarco"]),
                help="By default TREC, or TSV for a name that ends in .tsv.",
            ),
            click.option("--tag", help="The run's name in the TREC format.  [default: rankllm]"),
            click.option(
                "--output-jsonl",
                "--output-jsonl-file",
                "output_jsonl",
                type=_FILE,
                help="Results with texts, scores and statuses; reads back as --requests.",
            ),
            click.option("--trace", "--invocations-history-file", "trace", type=_FILE, help="Every prompt and answer."),
            click.option(
                "--qrels", "--qrels-file", "qrels", type=_FILE, help="Score the queries of this run when done."
            ),
            click.option("--overwrite/--no-overwrite", default=False, help="Replace outputs that exist."),
            click.option(
                "--json/--no-json", "as_json", default=False, help="With --query: print JSON instead of a table."
            ),
        ]
    ):
        command = decorate(command)
    return command


@click.command("rerank", context_settings=SETTINGS)
@_model_options
@_inputs
@_ranking_options
@_outputs
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
