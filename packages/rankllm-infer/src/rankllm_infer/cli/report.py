"""`rankllm-infer report`: write an HTML page that explains a ranking."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rankllm_core.command_line import PATH
from rankllm_core.errors import ConfigError
from rankllm_core.files import check_output, refuse_same_file
from rankllm_infer.cli import say
from rankllm_infer.cli.options import JudgedCommand, judgement_options, judgements_file, run_format_option
from rankllm_infer.watching import count

if TYPE_CHECKING:
    from rankllm_infer.report.build import ReportFiles, ReportSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportCommand(JudgedCommand):
    """Parsed command line of `report`."""

    run: Path
    baseline: Path | None
    also: tuple[Path, ...]
    requests: Path | None
    queries: Path | None
    corpus: Path | None
    trace: Path | None
    output: Path | None
    title: str | None
    depth: int
    max_queries: int | None
    prompt_characters: int
    overwrite: bool

    @property
    def page(self) -> Path:
        """Output file."""
        return self.output or self.run.with_name(self.run.name + ".html")

    def files(self) -> ReportFiles:
        """Input files. Raises UsageError for files that cannot be combined."""
        from rankllm_infer.report.build import ReportFiles

        try:
            return ReportFiles(
                run=self.run,
                qrels=judgements_file(self.qrels),
                baseline=self.baseline,
                also=self.also,
                requests=self.requests,
                queries=self.queries,
                corpus=self.corpus,
                trace=self.trace,
                run_format=self.run_format,
            )
        except ConfigError as error:
            raise click.UsageError(str(error)) from None

    def settings(self) -> ReportSettings:
        """Contents of the page."""
        from rankllm_infer.report.build import ReportSettings

        return ReportSettings(
            depth=self.depth,
            max_queries=self.max_queries,
            prompt_characters=self.prompt_characters,
            run_queries_only=self.run_queries_only,
            relevance_level=self.relevance_level,
        )


@click.command("report")
@click.argument("run", type=PATH, metavar="RUN")
@judgement_options(("nDCG@10", "MRR@10"))
@run_format_option
@click.option("--baseline", type=PATH, help="Run to compare with.  [default: the order of --requests]")
@click.option(
    "--also", type=PATH, multiple=True, help="Additional run for the measures table. Repeat the option to add several."
)
@click.option(
    "--requests", type=PATH, help="Requests that were reranked, for the texts.  [default: RUN, if it contains texts]"
)
@click.option("--queries", type=PATH, help="Query texts; with --corpus, an alternative to --requests.")
@click.option("--corpus", type=PATH, help="Passage texts; with --queries, an alternative to --requests.")
@click.option("--trace", type=PATH, help="Prompts and answers of RUN, as written by rerank --trace.")
@click.option("--output", type=PATH, help="HTML file to write.  [default: RUN.html]")
@click.option("--title", help="Page title.  [default: the names of both runs]")
@click.option("--depth", type=click.IntRange(1), default=20, help="Number of passages to show per query.")
@click.option(
    "--max-queries",
    type=click.IntRange(1),
    help="Maximum number of queries to show, largest change first.  [default: all]",
)
@click.option(
    "--prompt-characters",
    type=click.IntRange(0),
    default=1_000,
    help="Maximum number of characters to show for each prompt from --trace.",
)
@click.option(
    "--run-queries-only/--no-run-queries-only",
    default=False,
    help="Average over judged queries that occur in every run. By default, a query missing from a run scores 0.",
)
@click.option("--overwrite/--no-overwrite", default=False, help="Replace an existing output.")
def command(**given: Any) -> None:
    """Explain a ranking in a self-contained HTML page.

    Shows what changed from the baseline, query by query: measures with significance, cost, passages with their ranks
    before and after, relevance grades, model scores and, with --trace, the prompts and the model's answers.

    RUN is a run or, preferably, the results of `rerank --output-jsonl`, which also contain model scores, cost and how
    the answers were parsed. Measures, run formats and -c are the same as for `evaluate`; queries are ordered by the
    first measure.
    """
    from rankllm_infer.report.build import NoTextsError, build_report

    asked = ReportCommand(**given)
    files = asked.files()
    check_output(asked.page, overwrite=asked.overwrite)
    for source in files.read():
        refuse_same_file(source, asked.page)
    try:
        report = build_report(files, asked.measures(), asked.settings())
    except NoTextsError as error:
        raise click.UsageError(str(error)) from None
    for note in report.notes:
        say(note)
    report.write(asked.page, title=asked.title)
    say(f"Wrote {asked.page} ({count(report.n_queries, 'query')}, {asked.page.stat().st_size / 1e6:.1f} MB)")
