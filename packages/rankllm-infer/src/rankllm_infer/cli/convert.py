"""`rankllm-infer convert`: one layout of runs, results and requests into another."""

from __future__ import annotations

from pathlib import Path
from typing import cast, get_args

import click

from rankllm_core.command_line import NAME, PATH
from rankllm_core.files import check_output, refuse_same_file
from rankllm_core.trec import DEFAULT_TAG
from rankllm_infer.cli import say
from rankllm_infer.formats.convert import ConvertReport, Source, Target
from rankllm_infer.wording import count, examples


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
def command(
    *,
    source: Path,
    target: Path,
    to: str,
    source_format: str,
    queries: str | None,
    corpus: str | None,
    remove_query: bool,
    tag: str | None,
    overwrite: bool,
) -> None:
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
    from rankllm_infer.formats.convert import convert

    if tag is not None and to != "trec":
        raise click.UsageError(f"--tag is a column of TREC runs; it has no effect with --to {to}")
    check_output(target, overwrite=overwrite)
    for read in (source, queries, corpus):
        if read is not None:
            refuse_same_file(read, target)
    report = convert(
        source,
        target,
        to=cast(Target, to),
        source_format=cast(Source, source_format),
        queries=queries,
        corpus=corpus,
        remove_query=remove_query,
        tag=tag or DEFAULT_TAG,
    )
    for line in report_lines(report, to=to):
        say(line)
    say(f"Wrote {target} ({to})")


def report_lines(report: ConvertReport, *, to: str) -> list[str]:
    """What was written and where that is more than a copy, for people."""
    if report.prepared is not None:
        return report.prepared.lines()
    lines = [f"converted {count(report.n_queries, 'query')} with {count(report.n_candidates, 'candidate')}"]
    if report.n_removed:
        lines.append(f"left out {count(report.n_removed, 'candidate')} whose docid is the qid")
    if qids := report.reordered_qids:
        lines.append(
            f"sorted by score {count(len(qids), 'query')} whose lines were in another order ({examples(qids)})"
        )
    if (qids := report.rescored_qids) and to in ("trec", "tsv"):
        why = "as their own scores are all equal or rise down the list"
        lines.append(f"scored {count(len(qids), 'query')} n - rank + 1, {why} ({examples(qids)})")
    if qids := report.emptied_qids:
        where = "" if to == "requests" else ", which the output does not hold"
        lines.append(f"without a candidate: {count(len(qids), 'query')} ({examples(qids)}){where}")
    return lines
