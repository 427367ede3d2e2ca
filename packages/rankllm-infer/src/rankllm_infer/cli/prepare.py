"""`rankllm-infer prepare`: a first-stage run and the texts it names, joined into one file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import click

from rankllm_core.command_line import NAME, PATH
from rankllm_core.errors import RankLLMError
from rankllm_core.files import check_output, refuse_same_file
from rankllm_core.trec import RunFormat
from rankllm_infer.cli import say
from rankllm_infer.cli.options import ignored, run_format_option
from rankllm_infer.console import counter
from rankllm_infer.formats.prepare import PreparedFormat, build_requests, write_prepared

_DEPTH = 200
"""Candidates that RankLLaMA reranks. Source: arXiv:2310.08319."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PrepareCommand:
    """What `prepare` is asked for."""

    retrieval_results: Path
    run_format: RunFormat
    query_data_name: str
    query_data_split: str
    query_data_config: str | None
    corpus_data_name: str
    corpus_data_config: str | None
    depth: int
    max_queries: int | None
    remove_query: bool
    strict: bool
    output_path: Path
    output_format: PreparedFormat
    overwrite: bool

    @property
    def queries(self) -> str:
        """The queries, by file or data set. Raises RankLLMError for a configuration that does not go with the name."""
        return _with_config(self.query_data_name, self.query_data_config, option="--query-data-config")

    @property
    def corpus(self) -> str:
        """The passages, by file or data set. Raises RankLLMError for a configuration that does not go with the name."""
        return _with_config(self.corpus_data_name, self.corpus_data_config, option="--corpus-data-config")


@click.command("prepare")
@click.option("--retrieval-results", type=PATH, required=True, help="A first-stage run: TREC, TSV or MS MARCO (gz).")
@run_format_option
@click.option(
    "--query-data-name", type=NAME, required=True, help="Queries: TSV or JSONL (gz), or a Hugging Face data set."
)
@click.option("--query-data-split", default="dev", help="Split of a query data set.")
@click.option("--query-data-config", help="Configuration of a query data set; the same as NAME:CONFIG.")
@click.option(
    "--corpus-data-name", type=NAME, required=True, help="Passages: JSONL or TSV (gz), or a data set (split train)."
)
@click.option("--corpus-data-config", help="Configuration of a corpus data set; the same as NAME:CONFIG.")
@click.option("--depth", type=click.IntRange(1), default=_DEPTH, help="Candidates a query keeps, by falling score.")
@click.option("--max-queries", type=click.IntRange(1), help="Keep the first queries of the run.")
@click.option("--remove-query/--no-remove-query", default=False, help="Leave out candidates whose docid is the qid.")
@click.option("--strict/--no-strict", default=False, help="A query or passage without a text is an error.")
@click.option("--output-path", type=PATH, required=True, help="The file to write; a .gz name is compressed.")
@click.option(
    "--format",
    "output_format",
    type=click.Choice(get_args(PreparedFormat)),
    default="rerank-input",
    help="One line a pair, or one line a query.",
)
@click.option("--overwrite/--no-overwrite", default=False, help="Replace an output that exists.")
@ignored("--cache-dir", takes_value=True)
def command(**given: Any) -> None:
    """Join a first-stage run with the texts of its queries and passages.

    The output is what `rerank` reads: with --rerank-input as it is, with --requests for --format requests.
    """
    asked = PrepareCommand(**given)
    check_output(asked.output_path, overwrite=asked.overwrite)
    for source in (asked.retrieval_results, asked.query_data_name, asked.corpus_data_name):
        refuse_same_file(source, asked.output_path)
    queries, corpus = asked.queries, asked.corpus
    with counter("corpus", unit=" passages") as show:
        requests, report = build_requests(
            asked.retrieval_results,
            queries=queries,
            corpus=corpus,
            query_split=asked.query_data_split,
            depth=asked.depth,
            max_queries=asked.max_queries,
            strict=asked.strict,
            remove_query=asked.remove_query,
            run_format=asked.run_format,
            progress=show,
        )
    write_prepared(asked.output_path, requests, format=asked.output_format)
    for line in report.lines():
        say(line)
    say(f"Wrote {asked.output_path} ({asked.output_format})")


def _with_config(name: str, config: str | None, *, option: str) -> str:
    if config is None:
        return name
    if Path(name).exists() or ":" in name:
        has = "a local file or folder, which has none" if Path(name).exists() else "a name that holds one already"
        raise RankLLMError(f"{option} {config}: {name} is {has}; leave the option out")
    return f"{name}:{config}"
