"""`rankllm-infer rerank`: rerank the candidates of queries.

Contains the command, the conversion of its options to one checked value (shared with `serve`, `mcp` and others), and
the loading of requests from each kind of input.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rankllm_core.errors import ConfigError, RankLLMError
from rankllm_infer.cli import EXIT_SOME_FAILED, SETTINGS, say
from rankllm_infer.cli.options import GroupedCommand, row_options, select
from rankllm_infer.cli.rerank.options import (
    DATASET_DEPTH,
    OWNERS,
    DtypeSwitches,
    RerankCommand,
    RerankInput,
    RerankOutput,
)
from rankllm_infer.console import SCREEN, show_report
from rankllm_infer.option_table import rows_of
from rankllm_infer.option_values import from_given
from rankllm_infer.options import RerankOptions

if TYPE_CHECKING:
    from rankllm_core.types import Request
    from rankllm_infer.jobs.fingerprint import StoredRequests
    from rankllm_infer.jobs.outputs import OutputFiles

_SOURCES = ("requests", "rerank_input", "run", "dataset", "query")
_COMPANIONS = {"run": ("queries", "corpus"), "dataset": ("retrieval_method",), "query": ("passages",)}
_FOR_MANY_QUERIES = ("max_queries", "strict", "qrels", "resume", "max_total_tokens")
_STANDARD_INPUT = "-"
_ORIGINALS_FOLDER = "src/rank_llm/rerank/prompt_templates/"


@click.command("rerank", cls=GroupedCommand, context_settings=SETTINGS)
@row_options(*(row for owner in OWNERS for row in select(owner)))
def command(**given: Any) -> int:
    """Rerank candidates with a language model.

    Candidates come from --requests, --rerank-input, --run with --queries and --corpus, --dataset with
    --retrieval-method, or --query with --passages. Repeating the same command resumes an interrupted run.

    Exit status: 0 done, 1 error, 2 wrong usage, 3 done but some queries failed, 130 or 143 stopped by a signal.
    """
    asked = read_command(given)
    if asked.outputs.dry_run or asked.kind == "query":
        from rankllm_infer.cli.rerank.without_a_run import count_costs, one_query

        if asked.outputs.dry_run:
            return count_costs(asked, load_requests(asked))
        files, loading = _output_files(asked.outputs), _loading(asked)
        return one_query(asked, files, load_requests(asked), sources=input_files(asked), loading=loading)
    if not _names_a_result(asked.outputs):
        from rankllm_infer.cli.rerank.unnamed_outputs import with_named_outputs

        asked = with_named_outputs(asked)
    files = _output_files(asked.outputs)
    _check_outputs(asked.outputs, files)
    from rankllm_infer.jobs.fingerprint import load_qrels
    from rankllm_infer.jobs.rerank import open_run
    from rankllm_infer.plan import plan_reranking

    outputs, sources = asked.outputs, input_files(asked)
    with open_run(files, overwrite=outputs.overwrite, resume=outputs.resume, sources=sources, watcher=SCREEN) as run:
        run.read(load_requests(asked), strict=asked.inputs.strict)
        qrels = load_qrels(outputs.qrels, run.qids) if outputs.qrels else None
        if asked.kind == "dataset" and qrels is None:
            from rankllm_infer.jobs.dataset_inputs import dataset_qrels

            name, folder = asked.inputs.dataset or "", asked.inputs.retrieval_results_dir
            qrels = dataset_qrels(name, run.qids, folder=folder, watcher=SCREEN)
        say(_loading(asked))
        plan = plan_reranking(asked.model, asked.options)
        report = run.rerank(plan, qrels=qrels, max_total_tokens=outputs.max_total_tokens)
        show_report(report)
    return EXIT_SOME_FAILED if report.summary.failures else 0


def _names_a_result(outputs: RerankOutput) -> bool:
    """Return whether an option specifies the results: a file, or only measures."""
    return any((outputs.output, outputs.encoded_save_path, outputs.output_jsonl, outputs.trace, outputs.qrels))


def _check_outputs(outputs: RerankOutput, files: OutputFiles) -> None:
    """Raise UsageError if output options contradict each other."""
    if outputs.resume and outputs.overwrite:
        raise click.UsageError("--resume resumes a run, --overwrite starts over; give one of them")
    if outputs.resume and not files.paths():
        raise click.UsageError("--resume has no effect without an output")


def _loading(asked: RerankCommand) -> str:
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


def read_command(given: Mapping[str, Any]) -> RerankCommand:
    """Parse the command line into one value. Raises UsageError for options that contradict each other."""
    inputs, outputs = from_given(RerankInput, given), from_given(RerankOutput, given)
    kind = input_kind(inputs, outputs)
    _check_dry_run(outputs)
    return RerankCommand(
        kind=kind,
        model=given["model_path"],
        inputs=inputs,
        outputs=outputs,
        options=given_options(given),
        prior_file=None if given["identifier_prior"] == "none" else given["identifier_prior"],
    )


def _check_dry_run(outputs: RerankOutput) -> None:
    """Raise UsageError if an option requires --dry-run and it is missing, or is incompatible with it."""
    if outputs.dry_run and outputs.max_total_tokens is not None:
        raise click.UsageError("--max-total-tokens has no effect with --dry-run, which uses no tokens")
    for name in ("all_strategies", "price_in", "price_out"):
        if getattr(outputs, name) and not outputs.dry_run:
            raise click.UsageError(f"{_spelled(name)} has no effect without --dry-run")


def input_kind(inputs: RerankInput, outputs: RerankOutput) -> str:
    """Return which of the five inputs is given. Raises UsageError unless there is exactly one, with its companions."""
    kinds = [name for name in _SOURCES if getattr(inputs, name) is not None]
    if len(kinds) != 1:
        raise click.UsageError("give one of --requests, --rerank-input, --run, --dataset and --query")
    (kind,) = kinds
    needs = _COMPANIONS.get(kind, ())
    for name in ("queries", "corpus", "retrieval_method", "passages"):
        if (name in needs) != (getattr(inputs, name) is not None):
            verb = "needs" if name in needs else "cannot be combined with"
            raise click.UsageError(f"{_spelled(kind)} {verb} {_spelled(name)}")
    if inputs.run_format != "auto" and kind != "run":
        raise click.UsageError(f"{_spelled(kind)} cannot be combined with --run-format")
    if inputs.retrieval_results_dir is not None and kind != "dataset":
        raise click.UsageError(f"{_spelled(kind)} cannot be combined with --retrieval-results-dir")
    if kind == "query":
        for name in _FOR_MANY_QUERIES:
            if getattr(inputs, name, None) or getattr(outputs, name, None):
                raise click.UsageError(f"{_spelled(name)} cannot be combined with --query")
    elif outputs.as_json:
        raise click.UsageError("--json has no effect without --query; to write results to a file, use --output-jsonl")
    return kind


def _spelled(name: str) -> str:
    return {**rows_of(RerankInput), **rows_of(RerankOutput)}[name].spelled


def given_options(given: Mapping[str, Any]) -> RerankOptions:
    """Build RerankOptions from the command line. Raises UsageError for options that contradict each other."""
    switches = from_given(DtypeSwitches, given)
    dtypes = {given["dtype"], "bfloat16" if switches.bf16 else None, "float16" if switches.fp16 else None} - {None}
    if len(dtypes) > 1:
        raise click.UsageError("--dtype, --bf16 and --fp16 contradict each other")
    # Outside the try block: an unreadable file is not a usage error.
    prior = _prior(given.get("identifier_prior"), model=given["model_path"])
    try:
        return from_given(
            RerankOptions,
            given,
            template=_template(given["template"]),
            identifier_prior=prior,
            dtype=next(iter(dtypes), "auto"),
            api_key=os.environ.get("OPENAI_API_KEY") if given["engine"] == "openai" else None,
            with_trace=given.get("trace") is not None,
        )
    except ConfigError as error:
        raise click.UsageError(str(error)) from None


def _prior(asked: str | None, *, model: str) -> tuple[float, ...] | None:
    """Read a prior measured by `calibrate`; `none` is an empty prior, which subtracts nothing."""
    if asked is None:
        return None
    from rankllm_infer.ranking.identifier_prior import read_prior

    if asked == "none":
        return ()
    stored = read_prior(Path(asked))
    if stored.model and Path(stored.model).name != Path(model).name:
        say(f"Warning: {asked} was measured with {stored.model}, not {model}; priors are specific to a model")
    return stored.numbers


def _template(asked: str | None) -> str | None:
    """Return the given template; a path of a template in rank_llm's repository becomes the name of the bundled one."""
    if asked is None or Path(asked).exists():
        return asked
    return asked.removeprefix(_ORIGINALS_FOLDER)


def input_files(command: RerankCommand) -> tuple[str | Path, ...]:
    """Return the input files, which must not be overwritten."""
    inputs = command.inputs
    sources = (inputs.requests, inputs.rerank_input, inputs.run, inputs.queries, inputs.corpus, inputs.passages)
    beside = (command.outputs.qrels, command.options.few_shot_file, command.prior_file)
    return tuple(file for file in (*sources, *beside) if file not in (None, _STANDARD_INPUT))


def load_requests(command: RerankCommand) -> Iterable[Request]:
    """Return the requests as an iterable that can be read repeatedly. Texts are joined to a run here."""
    kind, inputs, depth = command.kind, command.inputs, command.options.top_k_candidates
    if kind == "query":
        from rankllm_infer.formats.text_sources import read_passages
        from rankllm_infer.ranking.flow import make_request

        source = sys.stdin.buffer if inputs.passages == _STANDARD_INPUT else None
        return [make_request(inputs.query or "", read_passages(inputs.passages or "", source=source))]
    if kind == "run":
        return _joined(inputs, depth=depth or sys.maxsize)
    if kind == "dataset":
        return _of_dataset(inputs, depth=depth or DATASET_DEPTH)
    path: Path = getattr(inputs, kind)
    if not path.exists():
        raise RankLLMError(f"{path}: no such file")
    from rankllm_infer.jobs.fingerprint import StoredRequests

    stored = StoredRequests(path, is_pairs=kind == "rerank_input", max_queries=inputs.max_queries)
    # A pipe can be read only once.
    return stored if path.is_file() else list(stored)


def _joined(inputs: RerankInput, *, depth: int) -> list[Request]:
    from rankllm_infer.formats.prepare import build_requests

    with SCREEN.counter("corpus", unit=" passages") as show:
        requests, report = build_requests(
            inputs.run,
            queries=inputs.queries,
            corpus=inputs.corpus,
            depth=depth,
            max_queries=inputs.max_queries,
            strict=inputs.strict,
            run_format=inputs.run_format,
            progress=show,
        )
    for line in report.lines():
        say(line)
    return requests


def _of_dataset(inputs: RerankInput, *, depth: int) -> StoredRequests:
    from rankllm_infer.jobs.dataset_inputs import dataset_requests

    return dataset_requests(
        inputs.dataset or "",
        inputs.retrieval_method or "",
        depth=depth,
        max_queries=inputs.max_queries,
        folder=inputs.retrieval_results_dir,
        watcher=SCREEN,
    )
