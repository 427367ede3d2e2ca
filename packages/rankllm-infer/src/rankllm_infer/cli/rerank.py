"""`rankllm-infer rerank`: candidates in, a better order out."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rankllm_core.errors import ConfigError
from rankllm_core.files import check_output, refuse_same_file
from rankllm_infer.cli import EXIT_SOME_FAILED, SETTINGS, say
from rankllm_infer.cli.rerank_input import (
    check_requests,
    dataset_qrels,
    input_files,
    input_kind,
    load_qrels,
    load_requests,
)
from rankllm_infer.cli.rerank_many import load_model, open_run, rerank_many
from rankllm_infer.cli.rerank_options import input_options, model_options, output_options, ranking_options
from rankllm_infer.options import RerankOptions

if TYPE_CHECKING:
    from rankllm_infer.jobs.outputs import OutputFiles


@click.command("rerank", context_settings=SETTINGS)
@model_options
@input_options
@ranking_options
@output_options
def command(**given: Any) -> int:
    """Rerank candidates with a language model.

    Candidates come from --requests, --rerank-input, --run with --queries and --corpus, --dataset with
    --retrieval-method, or --query with --passages.
    A run that was broken off goes on where it was with the same command.
    Exit status: 0 done, 1 an error, 2 wrong usage, 3 done but some queries failed, 130 or 143 stopped by a signal.
    """
    kind = input_kind(given)
    options = given_options(given)
    files = _output_files(given)
    if kind == "query":
        return _one_query(given, options, files)
    if not files.paths() and not given["qrels"]:
        raise click.UsageError("nothing to write: give --output, --output-jsonl, --trace or --qrels")
    if given["resume"] and given["overwrite"]:
        raise click.UsageError("--resume goes on with a run, --overwrite begins anew; give one of them")
    if given["resume"] and not files.paths():
        raise click.UsageError("--resume has no effect without an output")
    with open_run(files, overwrite=given["overwrite"], resume=given["resume"], sources=input_files(given)) as run:
        requests = load_requests(kind, given)
        run.qids = check_requests(requests, files, strict=given["strict"], digest=run.digest, sizes=run.sizes)
        if given["qrels"]:
            run.qrels = load_qrels(given["qrels"], run.qids)
        elif kind == "dataset":
            run.qrels = dataset_qrels(given, run.qids)
        say(_loading(given))
        return rerank_many(run, requests, given["model_path"], options)


def _loading(given: Mapping[str, Any]) -> str:
    """What is about to be done, with a word on what takes longer than one expects."""
    more = " and compiling it, which may take a minute" if given["compile"] else ""
    return f"Loading {given['model_path']}{more} ..."


def given_options(given: Mapping[str, Any]) -> RerankOptions:
    """What the command line asks of a reranker. Raises UsageError where that does not go together."""
    dtypes = {given["dtype"], "bfloat16" if given["bf16"] else None, "float16" if given["fp16"] else None} - {None}
    if len(dtypes) > 1:
        raise click.UsageError("--dtype, --bf16 and --fp16 contradict each other")
    # Outside of what follows: a file that cannot be read is no wrong usage.
    prior = _prior(given.get("identifier_prior"), model=given["model_path"])
    read_here = ("dtype", "template", "identifier_prior")
    names = [name for name in RerankOptions.__dataclass_fields__ if name in given and name not in read_here]
    try:
        return RerankOptions(
            **{name: given[name] for name in names},
            template=_template(given["template"]),
            identifier_prior=prior,
            dtype=next(iter(dtypes), "auto"),
            api_key=os.environ.get("OPENAI_API_KEY") if given["engine"] == "openai" else None,
            with_trace=given.get("trace") is not None,
        )
    except ConfigError as error:
        raise click.UsageError(str(error)) from None


def _prior(asked: str | None, *, model: str) -> tuple[float, ...] | None:
    """What a file of `calibrate` says; nothing to take off for `none`."""
    if asked is None:
        return None
    from rankllm_infer.ranking.identifier_prior import read_prior

    if asked == "none":
        return ()
    stored = read_prior(Path(asked))
    if stored.model and Path(stored.model).name != Path(model).name:
        say(f"Warning: {asked} was measured with {stored.model}, not with {model}; each model has a prior of its own")
    return stored.numbers


_ORIGINALS_FOLDER = "src/rank_llm/rerank/prompt_templates/"


def _template(asked: str | None) -> str | None:
    """The template asked for; of the originals' own files, which are in their repository, the one that ships."""
    if asked is None or Path(asked).exists():
        return asked
    return asked.removeprefix(_ORIGINALS_FOLDER)


def _output_files(given: Mapping[str, Any]) -> OutputFiles:
    from rankllm_infer.jobs.outputs import OutputFiles, run_format_of

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


def _one_query(given: Mapping[str, Any], options: RerankOptions, files: OutputFiles) -> int:
    from rankllm_infer.jobs.outputs import open_outputs
    from rankllm_infer.plan import plan_reranking
    from rankllm_infer.screen import result_json, result_table

    for path in files.paths():
        check_output(path, overwrite=given["overwrite"])
        for source in input_files(given):
            refuse_same_file(source, path)
    (request,) = load_requests("query", given)
    check_requests([request], files, strict=False)
    say(_loading(given))
    with load_model(plan_reranking(given["model_path"], options)) as reranker:
        (result,) = reranker.rerank([request])
    if result.status == "failed":
        say(f"Error: {result.error}")
        return EXIT_SOME_FAILED
    if files.paths():
        with open_outputs(files) as writer:
            writer.write(result)
    click.echo(result_json(result) if given["as_json"] else result_table(result, request))
    return 0
