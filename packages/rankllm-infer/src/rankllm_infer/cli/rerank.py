"""`rankllm-infer rerank`: candidates in, a better order out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from rankllm_core.errors import ConfigError
from rankllm_core.files import check_output, refuse_same_file
from rankllm_infer.cli import EXIT_SOME_FAILED, SETTINGS, say
from rankllm_infer.cli.options import GroupedCommand, row_options, select
from rankllm_infer.cli.rerank_input import (
    dataset_qrels,
    input_files,
    load_requests,
    read_command,
)
from rankllm_infer.cli.rerank_options import OWNERS, RerankCommand, RerankOutput, ignored_options
from rankllm_infer.console import SCREEN

if TYPE_CHECKING:
    from rankllm_infer.evaluation.evaluate import RunningEvaluation
    from rankllm_infer.jobs.outputs import OutputFiles
    from rankllm_infer.jobs.rerank import RunReport


@click.command("rerank", cls=GroupedCommand, context_settings=SETTINGS)
@row_options(*(row for owner in OWNERS for row in select(owner)))
@ignored_options
def command(**given: Any) -> int:
    """Rerank candidates with a language model.

    Candidates come from --requests, --rerank-input, --run with --queries and --corpus, --dataset with
    --retrieval-method, or --query with --passages. Repeating the same command resumes an interrupted run.

    Exit status: 0 done, 1 error, 2 wrong usage, 3 done but some queries failed, 130 or 143 stopped by a signal.
    """
    asked = read_command(given)
    files = _output_files(asked.outputs)
    if asked.kind == "query":
        return _one_query(asked, files)
    _check_outputs(asked.outputs, files)
    from rankllm_infer.jobs.fingerprint import load_qrels
    from rankllm_infer.jobs.rerank import open_run
    from rankllm_infer.plan import plan_reranking

    outputs, sources = asked.outputs, input_files(asked)
    with open_run(files, overwrite=outputs.overwrite, resume=outputs.resume, sources=sources, watcher=SCREEN) as run:
        run.read(load_requests(asked), strict=asked.inputs.strict)
        if outputs.qrels:
            run.qrels = load_qrels(outputs.qrels, run.qids)
        elif asked.kind == "dataset":
            run.qrels = dataset_qrels(asked.inputs, run.qids)
        say(_loading(asked))
        report = run.rerank(plan_reranking(asked.model, asked.options))
        show(report)
    return EXIT_SOME_FAILED if report.summary.failures else 0


def _check_outputs(outputs: RerankOutput, files: OutputFiles) -> None:
    """Raise UsageError where a run of many queries would leave nothing, or is asked for two things at once."""
    if not files.paths() and not outputs.qrels:
        raise click.UsageError("nothing to write: give --output, --output-jsonl, --trace or --qrels")
    if outputs.resume and outputs.overwrite:
        raise click.UsageError("--resume resumes a run, --overwrite starts over; give one of them")
    if outputs.resume and not files.paths():
        raise click.UsageError("--resume has no effect without an output")


def show(report: RunReport) -> None:
    """Say what a run came to; its figures go to standard output."""
    from rankllm_infer.console import summary_lines

    for line in summary_lines(report.summary, seconds=report.seconds, files=report.written):
        say(line)
    if not report.n_ranked:
        say("Error: no query could be ranked; nothing was written")
        return
    if report.can_retry:
        say("To try the failed ones again, and compute nothing else: the same command with --resume")
    if report.figures is not None:
        _show_figures(report.figures, n_ranked=report.n_ranked)


def _show_figures(figures: RunningEvaluation, *, n_ranked: int) -> None:
    from rankllm_infer.evaluation.evaluate import evaluation_lines

    if (evaluation := figures.result()) is None:
        say("No figures: none of the queries that were ranked is judged")
        return
    if not figures.has_judged_candidates:
        say("No figures: none of the candidates is judged for its query; are the judgements of the same collection?")
        return
    say(
        f"Scores of the {evaluation.n_queries} judged queries among the {n_ranked} ranked by this run "
        "(for all judged queries: rankllm-infer evaluate):"
    )
    for line in evaluation_lines("reranked", evaluation):
        click.echo(line)


def _loading(asked: RerankCommand) -> str:
    """What is about to be done, with a word on what takes longer than one expects."""
    more = " and compiling it, which may take a minute" if asked.options.compile else ""
    return f"Loading {asked.model}{more} ..."


def _output_files(outputs: RerankOutput) -> OutputFiles:
    from rankllm_infer.jobs.outputs import OutputFiles, run_format_of

    asked, output = outputs.output_format, outputs.output
    if outputs.encoded_save_path is not None:
        if output is not None:
            raise click.UsageError("--output and --encoded-save-path are the same; give one of them")
        output, asked = outputs.encoded_save_path, asked or "tsv"
    run_format = run_format_of(output, asked) if output else "trec"
    if output is None and asked:
        raise click.UsageError("--output-format has no effect without --output")
    if outputs.tag and (output is None or run_format != "trec"):
        raise click.UsageError("--tag has no effect without an --output in the TREC format")
    try:
        return OutputFiles(
            run=output,
            run_format=run_format,
            tag=outputs.tag or "rankllm",
            results=outputs.output_jsonl,
            trace=outputs.trace,
        )
    except ConfigError as error:
        raise click.UsageError(str(error)) from None


def _one_query(asked: RerankCommand, files: OutputFiles) -> int:
    from rankllm_infer.console import result_json, result_table
    from rankllm_infer.jobs.fingerprint import check_requests
    from rankllm_infer.jobs.outputs import open_outputs
    from rankllm_infer.jobs.rerank import load_model
    from rankllm_infer.plan import plan_reranking

    for path in files.paths():
        check_output(path, overwrite=asked.outputs.overwrite)
        for source in input_files(asked):
            refuse_same_file(source, path)
    (request,) = load_requests(asked)
    check_requests([request], files, strict=False)
    say(_loading(asked))
    with load_model(plan_reranking(asked.model, asked.options), SCREEN) as reranker:
        (result,) = reranker.rerank([request])
    if result.status == "failed":
        say(f"Error: {result.error}")
        return EXIT_SOME_FAILED
    if files.paths():
        with open_outputs(files) as writer:
            writer.write(result)
    click.echo(result_json(result) if asked.outputs.as_json else result_table(result, request))
    return 0
