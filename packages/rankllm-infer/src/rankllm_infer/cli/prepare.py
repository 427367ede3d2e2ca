"""`rankllm-infer prepare`: join a first-stage run with its query and passage texts."""

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
from rankllm_infer.cli.options import run_format_option
from rankllm_infer.console import counter
from rankllm_infer.formats.prepare import PreparedFormat, build_requests, write_prepared

_DEPTH = 200
"""Default number of candidates per query, as reranked by RankLLaMA (arXiv:2310.08319)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PrepareCommand:
    """Parsed command line of `prepare`."""

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
        """Queries, by file or dataset. Raises RankLLMError for a configuration that does not apply to the name."""
        return _with_config(self.query_data_name, self.query_data_config, option="--query-data-config")

    @property
    def corpus(self) -> str:
        """Passages, by file or dataset. Raises RankLLMError for a configuration that does not apply to the name."""
        return _with_config(self.corpus_data_name, self.corpus_data_config, option="--corpus-data-config")


@click.command("prepare")
@click.option(
    "--retrieval-results",
    type=PATH,
    required=True,
    help="First-stage run: TREC, TSV or MS MARCO format, optionally gzipped.",
)
@run_format_option
@click.option(
    "--query-data-name",
    type=NAME,
    required=True,
    help="Queries: TSV or JSONL, optionally gzipped, or a Hugging Face dataset.",
)
@click.option("--query-data-split", default="dev", help="Query dataset split.")
@click.option("--query-data-config", help="Query dataset configuration; same as NAME:CONFIG.")
@click.option(
    "--corpus-data-name",
    type=NAME,
    required=True,
    help="Passages: JSONL or TSV, optionally gzipped, or a Hugging Face dataset (split train).",
)
@click.option("--corpus-data-config", help="Corpus dataset configuration; same as NAME:CONFIG.")
@click.option("--depth", type=click.IntRange(1), default=_DEPTH, help="Number of top candidates to keep per query.")
@click.option("--max-queries", type=click.IntRange(1), help="Maximum number of queries, from the start of the run.")
@click.option("--remove-query/--no-remove-query", default=False, help="Drop candidates whose docid equals the qid.")
@click.option(
    "--strict/--no-strict", default=False, help="Treat missing query or passage texts as errors instead of warnings."
)
@click.option("--output-path", type=PATH, required=True, help="File to write; compressed if its name ends in .gz.")
@click.option(
    "--format",
    "output_format",
    type=click.Choice(get_args(PreparedFormat)),
    default="rerank-input",
    help="Output format: one line per query-passage pair, or one line per query (requests).",
)
@click.option("--overwrite/--no-overwrite", default=False, help="Replace an existing output.")
def command(**given: Any) -> None:
    """Join a first-stage run with its query and passage texts.

    Pass the output to `rerank --rerank-input` or, if written with --format requests, to `rerank --requests`.
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
        has = (
            "a local path, which has no configurations"
            if Path(name).exists()
            else "a name that already includes a configuration"
        )
        raise RankLLMError(f"{option} {config}: {name} is {has}; leave the option out")
    return f"{name}:{config}"
