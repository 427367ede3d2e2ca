"""`rankllm-infer convert`: convert runs, results and requests between formats."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import click

from rankllm_core.command_line import NAME, PATH
from rankllm_core.files import check_output, refuse_same_file
from rankllm_core.trec import DEFAULT_TAG
from rankllm_infer.cli import say
from rankllm_infer.formats.convert import ENDINGS, Source, Target, convert, layout_of_name


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvertCommand:
    """Parsed command line of `convert`. Raises UsageError for a tag that the output format cannot hold."""

    source: Path
    target: Path
    to: Target | None
    source_format: Source
    queries: str | None
    corpus: str | None
    remove_query: bool
    tag: str | None
    overwrite: bool

    def __post_init__(self) -> None:
        if self.tag is not None and self.layout != "trec":
            raise click.UsageError(f"--tag is a column of TREC runs; it has no effect with --to {self.layout}")

    @property
    def layout(self) -> Target:
        """The output format: --to, or by the output's name. Raises UsageError if neither determines it."""
        asked = self.to or layout_of_name(self.target)
        if asked is None:
            raise click.UsageError(
                f"{self.target}: the format is not clear from the name (as it is for "
                f"{', '.join(f'.{end}' for end in ENDINGS)}); add --to with one of {', '.join(get_args(Target))}"
            )
        return asked


@click.command("convert")
@click.option("--input", "source", type=PATH, required=True, help="File to read; .gz and .xz are decompressed.")
@click.option("--output", "target", type=PATH, required=True, help="File to write; compressed if its name ends in .gz.")
@click.option(
    "--to",
    type=click.Choice(get_args(Target)),
    help="Output format.  [default: from the output's name: .trec, .tsv or .msmarco]",
)
@click.option("--from", "source_format", type=click.Choice(get_args(Source)), default="auto", help="Input format.")
@click.option("--queries", type=NAME, help="Query texts. Required to convert a run to requests or rerank-input.")
@click.option("--corpus", type=NAME, help="Passage texts. Required to convert a run to requests or rerank-input.")
@click.option("--remove-query/--no-remove-query", default=False, help="Drop candidates whose docid equals the qid.")
@click.option("--tag", help=f"Run name in the last column of a TREC run.  [default: {DEFAULT_TAG}]")
@click.option("--overwrite/--no-overwrite", default=False, help="Replace an existing output.")
def command(**given: Any) -> None:
    """Convert between runs, results and request files.

    \b
    requests      JSONL, one query per line with its candidates; results of `rerank` are accepted as input
    rerank-input  JSONL, one (query, passage) pair per line
    tsv           qid TAB docid TAB score
    trec          qid Q0 docid rank score tag
    msmarco       qid TAB docid TAB rank

    Runs are sorted by score; in the other formats, the order of the list is the ranking. Runs contain no texts: to
    convert one to requests or rerank-input, specify --queries and --corpus.
    """
    asked = ConvertCommand(**given)
    check_output(asked.target, overwrite=asked.overwrite)
    for read in (asked.source, asked.queries, asked.corpus):
        if read is not None:
            refuse_same_file(read, asked.target)
    report = convert(
        asked.source,
        asked.target,
        to=asked.layout,
        source_format=asked.source_format,
        queries=asked.queries,
        corpus=asked.corpus,
        remove_query=asked.remove_query,
        tag=asked.tag or DEFAULT_TAG,
    )
    for line in report.lines(to=asked.layout):
        say(line)
    say(f"Wrote {asked.target} ({asked.layout})")
