"""`rankllm-infer report`: one HTML page that explains a ranking."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rankllm_core.command_line import PATH
from rankllm_core.errors import ConfigError
from rankllm_core.files import check_output, refuse_same_file
from rankllm_infer.cli import say
from rankllm_infer.cli.options import JudgedCommand, judgement_options, run_format_option
from rankllm_infer.watching import count

if TYPE_CHECKING:
    from rankllm_infer.report.build import ReportFiles, ReportSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportCommand(JudgedCommand):
    """What `report` is asked for."""

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
        """The file that is written."""
        return self.output or self.run.with_name(self.run.name + ".html")

    def files(self) -> ReportFiles:
        """The files that are read. Raises UsageError for those that do not go together."""
        from rankllm_infer.report.build import ReportFiles

        try:
            return ReportFiles(
                run=self.run,
                qrels=self.qrels,
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
        """What the page shows."""
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
@click.option("--also", type=PATH, multiple=True, help="Further run, in the figures alone; may be repeated.")
@click.option("--requests", type=PATH, help="Texts: what was reranked.  [default: RUN, where it holds texts]")
@click.option("--queries", type=PATH, help="Texts of the queries, with --corpus in place of --requests.")
@click.option("--corpus", type=PATH, help="Texts of the passages, with --queries.")
@click.option("--trace", type=PATH, help="Model calls of RUN, as rerank --trace writes them.")
@click.option("--output", type=PATH, help="The page.  [default: RUN.html]")
@click.option("--title", help="Of the page.  [default: the names of both runs]")
@click.option("--depth", type=click.IntRange(1), default=20, help="Passages of each query.")
@click.option("--max-queries", type=click.IntRange(1), help="Show the queries that changed most.  [default: all]")
@click.option("--prompt-characters", type=click.IntRange(0), default=1_000, help="Of each prompt of the trace.")
@click.option(
    "--run-queries-only/--no-run-queries-only",
    default=False,
    help="Over the judged queries that every run holds. By default one that a run lacks counts 0 for it.",
)
@click.option("--overwrite/--no-overwrite", default=False, help="Replace the output if it exists.")
def command(**given: Any) -> None:
    """Explain a ranking: write one HTML page that needs no network.

    What changed against the baseline, query by query: figures with significance, cost, passages with ranks before and
    after, grades, model scores, and with --trace what the model was asked and what it answered.
    RUN is a run, or better the JSON Lines of `rerank --output-jsonl`, which also tell model scores, cost and how
    answers were read. Measures, runs and -c are those of `evaluate`; the first measure orders the page.
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
