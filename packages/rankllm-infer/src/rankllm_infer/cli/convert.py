"""`rankllm-infer convert`: one layout of runs, results and requests into another."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import click

from rankllm_core.command_line import NAME, PATH
from rankllm_core.files import check_output, refuse_same_file
from rankllm_core.trec import DEFAULT_TAG
from rankllm_infer.cli import say
from rankllm_infer.formats.convert import Source, Target, convert


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvertCommand:
    """What `convert` is asked for. Raises UsageError for a tag that the output does not hold."""

    source: Path
    target: Path
    to: Target
    source_format: Source
    queries: str | None
    corpus: str | None
    remove_query: bool
    tag: str | None
    overwrite: bool

    def __post_init__(self) -> None:
        if self.tag is not None and self.to != "trec":
            raise click.UsageError(f"--tag is a column of TREC runs; it has no effect with --to {self.to}")


@click.command("convert")
@click.option("--input", "source", type=PATH, required=True, help="The file to read (gz, xz).")
@click.option("--output", "target", type=PATH, required=True, help="The file to write; a .gz name is compressed.")
@click.option("--to", type=click.Choice(get_args(Target)), required=True, help="The layout to write.")
@click.option(
    "--from", "source_format", type=click.Choice(get_args(Source)), default="auto", help="The layout of the input."
)
@click.option("--queries", type=NAME, help="From a run to requests or rerank-input: the queries' texts.")
@click.option("--corpus", type=NAME, help="From a run to requests or rerank-input: the passages' texts.")
@click.option("--remove-query/--no-remove-query", default=False, help="Leave out candidates whose docid is the qid.")
@click.option("--tag", help=f"The run's name in the TREC layout.  [default: {DEFAULT_TAG}]")
@click.option("--overwrite/--no-overwrite", default=False, help="Replace an output that exists.")
def command(**given: Any) -> None:
    """Turn runs, results and request files into one another.

    \b
    requests      one JSON line a query with its candidates; results of `rerank` are read as well
    rerank-input  one JSON line a (query, passage) pair
    tsv           qid TAB docid TAB score
    trec          qid Q0 docid rank score tag
    msmarco       qid TAB docid TAB rank

    A run is sorted by score; in the other layouts the order of the list is the ranking. Runs hold no texts: from a
    run to requests or rerank-input, give --queries and --corpus.
    """
    asked = ConvertCommand(**given)
    check_output(asked.target, overwrite=asked.overwrite)
    for read in (asked.source, asked.queries, asked.corpus):
        if read is not None:
            refuse_same_file(read, asked.target)
    report = convert(
        asked.source,
        asked.target,
        to=asked.to,
        source_format=asked.source_format,
        queries=asked.queries,
        corpus=asked.corpus,
        remove_query=asked.remove_query,
        tag=asked.tag or DEFAULT_TAG,
    )
    for line in report.lines(to=asked.to):
        say(line)
    say(f"Wrote {asked.target} ({asked.to})")
