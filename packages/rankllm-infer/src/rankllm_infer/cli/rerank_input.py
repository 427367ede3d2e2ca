"""What the command line of `rerank` asks to rank."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rankllm_core.errors import ConfigError, DataError, RankLLMError
from rankllm_infer.cli import say
from rankllm_infer.cli.rerank_options import DtypeSwitches, RerankCommand, RerankInput, RerankOutput
from rankllm_infer.console import counter
from rankllm_infer.evaluation.judgements import check_judged
from rankllm_infer.jobs.fingerprint import StoredRequests
from rankllm_infer.option_table import rows_of
from rankllm_infer.option_values import from_given
from rankllm_infer.options import RerankOptions

if TYPE_CHECKING:
    from rankllm_core.trec import Qrels
    from rankllm_core.types import Request

_SOURCES = ("requests", "rerank_input", "run", "dataset", "query")
_NEEDS = {"run": ("queries", "corpus"), "dataset": ("retrieval_method",), "query": ("passages",)}
_FOR_MANY = ("max_queries", "strict", "qrels", "resume")
_STANDARD_INPUT = "-"
DATASET_DEPTH = 100
"""Candidates of each query of a data set, as in the original."""


def input_kind(inputs: RerankInput, outputs: RerankOutput) -> str:
    """Which of the five inputs is given. Raises UsageError where it is not one, or what goes with it is missing."""
    kinds = [name for name in _SOURCES if getattr(inputs, name) is not None]
    if len(kinds) != 1:
        raise click.UsageError("give one of --requests, --rerank-input, --run, --dataset and --query")
    (kind,) = kinds
    needs = _NEEDS.get(kind, ())
    for name in ("queries", "corpus", "retrieval_method", "passages"):
        if (name in needs) != (getattr(inputs, name) is not None):
            verb = "needs" if name in needs else "does not go with"
            raise click.UsageError(f"{_spelled(kind)} {verb} {_spelled(name)}")
    if inputs.run_format != "auto" and kind != "run":
        raise click.UsageError(f"{_spelled(kind)} does not go with --run-format")
    if inputs.retrieval_results_dir is not None and kind != "dataset":
        raise click.UsageError(f"{_spelled(kind)} does not go with --retrieval-results-dir")
    if kind == "query":
        for name in _FOR_MANY:
            if getattr(inputs, name, None) or getattr(outputs, name, None):
                raise click.UsageError(f"{_spelled(name)} does not go with --query")
    elif outputs.as_json:
        raise click.UsageError("--json goes with --query; for a file of results give --output-jsonl")
    return kind


def input_files(command: RerankCommand) -> tuple[str | Path, ...]:
    """The files that are read, which must not be written."""
    inputs = command.inputs
    sources = (inputs.requests, inputs.rerank_input, inputs.run, inputs.queries, inputs.corpus, inputs.passages)
    beside = (command.outputs.qrels, command.options.few_shot_file, command.prior_file)
    return tuple(file for file in (*sources, *beside) if file not in (None, _STANDARD_INPUT))


def load_requests(command: RerankCommand) -> Iterable[Request]:
    """The requests, as often as they are asked for. Texts of a run are joined here."""
    kind, inputs, depth = command.kind, command.inputs, command.options.top_k_candidates
    if kind == "query":
        return [_request_of_query(inputs.query or "", inputs.passages or "")]
    if kind == "run":
        return _joined(inputs, depth=depth or sys.maxsize)
    if kind == "dataset":
        return _of_dataset(inputs, depth=depth or DATASET_DEPTH)
    path: Path = getattr(inputs, kind)
    if not path.exists():
        raise RankLLMError(f"{path}: no such file")
    stored = StoredRequests(path, is_pairs=kind == "rerank_input", max_queries=inputs.max_queries)
    # A pipe can be read once only.
    return stored if path.is_file() else list(stored)


def _spelled(name: str) -> str:
    return {**rows_of(RerankInput), **rows_of(RerankOutput)}[name].spelled


def _joined(inputs: RerankInput, *, depth: int) -> list[Request]:
    from rankllm_infer.formats.prepare import build_requests

    with counter("corpus", unit=" passages", delay_s=2.0) as show:
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
    from rankllm_infer.cli.retrieve import start_pyserini
    from rankllm_infer.retrieval.dataset_retrieval import dataset_requests_file, default_folder
    from rankllm_infer.retrieval.retrieval_data import find_dataset, find_method

    with counter("retrieve", unit=" queries", delay_s=2.0) as show:
        path = dataset_requests_file(
            find_dataset(inputs.dataset or ""),
            find_method(inputs.retrieval_method or ""),
            depth=depth,
            folder=inputs.retrieval_results_dir or default_folder(),
            library=start_pyserini,
            tell=say,
            progress=show,
        )
    return StoredRequests(path, is_pairs=False, max_queries=inputs.max_queries, depth=depth)


def dataset_qrels(inputs: RerankInput, qids: Iterable[str]) -> Qrels | None:
    """The judgements of --dataset: those stored beside its results, else Pyserini's; a line where there are none."""
    from rankllm_infer.cli.retrieve import start_pyserini
    from rankllm_infer.retrieval.dataset_retrieval import default_folder, stored_qrels
    from rankllm_infer.retrieval.retrieval_data import find_dataset

    dataset = find_dataset(inputs.dataset or "")
    try:
        qrels = stored_qrels(dataset, inputs.retrieval_results_dir or default_folder())
        if qrels is None:
            qrels = start_pyserini().qrels(dataset.qrels)
        check_judged(qrels, qids, source=dataset.qrels)
    except RankLLMError as error:
        say(f"No figures: {error}; or give --qrels")
        return None
    return qrels


def _request_of_query(query: str, passages: str) -> Request:
    """A request from one line a passage, or JSONL with `text` and perhaps `docid`."""
    from rankllm_core.files import read_lines
    from rankllm_infer.api import make_request

    source = sys.stdin.buffer if passages == _STANDARD_INPUT else None
    lines = list(read_lines(passages, source=source))
    if not lines:
        raise RankLLMError(f"{passages}: no passages, expected one a line")
    if not all(line.lstrip().startswith("{") for _, line in lines):
        return make_request(query, [line for _, line in lines])
    return make_request(query, [_passage(passages, number, line) for number, line in lines])


def _passage(source: str, number: int, line: str) -> Mapping[str, object]:
    import json

    from rankllm_core.files.json_text import as_id, check_value, json_problem, located

    try:
        doc: dict[str, object] = json.loads(line)
        check_value(doc, line)
    except (ValueError, RecursionError) as error:
        problem = error.msg if isinstance(error, json.JSONDecodeError) else json_problem(error)
        raise DataError(f"not JSON: {problem}", path=source, line=number) from None
    with located(source, number):
        return doc | ({"docid": as_id(doc["docid"], what="docid")} if "docid" in doc else {})


def given_options(given: Mapping[str, Any]) -> RerankOptions:
    """What the command line asks of a reranker. Raises UsageError where that does not go together."""
    switches = from_given(DtypeSwitches, given)
    dtypes = {given["dtype"], "bfloat16" if switches.bf16 else None, "float16" if switches.fp16 else None} - {None}
    if len(dtypes) > 1:
        raise click.UsageError("--dtype, --bf16 and --fp16 contradict each other")
    # Outside of what follows: a file that cannot be read is no wrong usage.
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


def read_command(given: Mapping[str, Any]) -> RerankCommand:
    """The command line as one value. Raises UsageError where it does not go together."""
    inputs, outputs = from_given(RerankInput, given), from_given(RerankOutput, given)
    kind = input_kind(inputs, outputs)
    return RerankCommand(
        kind=kind,
        model=given["model_path"],
        inputs=inputs,
        outputs=outputs,
        options=given_options(given),
        prior_file=None if given["identifier_prior"] == "none" else given["identifier_prior"],
    )
