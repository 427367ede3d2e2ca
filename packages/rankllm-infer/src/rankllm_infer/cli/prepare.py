"""`rankllm-infer prepare`: a first-stage run and the texts it names, joined into one file."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast, get_args

import click

from rankllm_core.command_line import NAME, PATH
from rankllm_core.errors import RankLLMError
from rankllm_core.files import check_output, refuse_same_file
from rankllm_core.trec import RunFormat
from rankllm_infer.cli import say
from rankllm_infer.cli.options import ignored, run_format_option
from rankllm_infer.formats.prepare import PreparedFormat

_DEPTH = 200
"""Candidates that RankLLaMA reranks. Source: arXiv:2310.08319."""


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
def command(
    *,
    retrieval_results: Path,
    run_format: RunFormat,
    query_data_name: str,
    query_data_split: str,
    query_data_config: str | None,
    corpus_data_name: str,
    corpus_data_config: str | None,
    depth: int,
    max_queries: int | None,
    remove_query: bool,
    strict: bool,
    output_path: Path,
    output_format: str,
    overwrite: bool,
) -> None:
    """Join a first-stage run with the texts of its queries and passages.

    The output is what `rerank` reads: with --rerank-input as it is, with --requests for --format requests.
    """
    from rankllm_infer.formats.prepare import build_requests, write_prepared

    check_output(output_path, overwrite=overwrite)
    for source in (retrieval_results, query_data_name, corpus_data_name):
        refuse_same_file(source, output_path)
    queries = _with_config(query_data_name, query_data_config, option="--query-data-config")
    corpus = _with_config(corpus_data_name, corpus_data_config, option="--corpus-data-config")
    with _corpus_progress() as progress:
        requests, report = build_requests(
            retrieval_results,
            queries=queries,
            corpus=corpus,
            query_split=query_data_split,
            depth=depth,
            max_queries=max_queries,
            strict=strict,
            remove_query=remove_query,
            run_format=run_format,
            progress=progress,
        )
    write_prepared(output_path, requests, format=cast(PreparedFormat, output_format))
    for line in report.lines():
        say(line)
    say(f"Wrote {output_path} ({output_format})")


def _with_config(name: str, config: str | None, *, option: str) -> str:
    if config is None:
        return name
    if Path(name).exists() or ":" in name:
        has = "a local file or folder, which has none" if Path(name).exists() else "a name that holds one already"
        raise RankLLMError(f"{option} {config}: {name} is {has}; leave the option out")
    return f"{name}:{config}"


@contextmanager
def _corpus_progress() -> Iterator[Callable[[int], None]]:
    """Tell how many passages were read so far; nothing on the screen for a corpus that is read in two seconds."""
    from tqdm import tqdm

    quiet_s = 0.5 if sys.stderr.isatty() else 30.0
    with tqdm(desc="corpus", unit=" passages", delay=2, mininterval=quiet_s, file=sys.stderr) as bar:

        def show(number: int) -> None:
            bar.update(number - bar.n)

        yield show
