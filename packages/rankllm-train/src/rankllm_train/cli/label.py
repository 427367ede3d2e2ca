"""`train label`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import click

from rankllm_core.command_line import NAME, PATH
from rankllm_core.errors import ConfigError
from rankllm_core.files import check_outputs
from rankllm_core.trec.run_layout import RunFormat
from rankllm_core.types import IdentifierKind, Status
from rankllm_train.cli import SETTINGS
from rankllm_train.cli.data_options import counted, refuse_given, run_file, shared, tell
from rankllm_train.cli.grouped_help import GroupedCommand
from rankllm_train.preparation.judgements import JudgedSources
from rankllm_train.preparation.label import RecordRule, label_judged, label_results
from rankllm_train.preparation.labelled import JudgedRule
from rankllm_train.preparation.ranked_queries import RunFile
from rankllm_train.preparation.tally import Tally
from rankllm_train.preparation.windows import WindowRule, WindowSample, record_writer

_FOR_QRELS = (
    "queries",
    "corpus",
    "teacher_run",
    "min_relevance",
    "add_relevant",
    "random_negatives",
    "sample",
    "require_relevant",
    "strict",
)
_FOR_RESULTS = ("worst_status",)


_GROUPS = {
    "Input": (
        *("qrels", "results", "run", "queries", "corpus", "teacher_run", "run_format"),
        *("skip_queries", "max_queries", "worst_status", "strict"),
    ),
    "Output": ("output_path", "report", "overwrite"),
    "Prompt": ("identifiers", "prompt_template_path", "max_passage_words"),
    "Candidates": ("depth", "min_relevance", "add_relevant", "random_negatives"),
    "Windows": ("windows_per_query", "min_window", "max_window", "shuffle", "sample", "require_relevant", "seed"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelOptions:
    """Parsed options of `train label`."""

    qrels: Path | None
    results: Path | None
    run: Path | None
    queries: Path | None
    corpus: Path | None
    teacher_run: Path | None
    run_format: RunFormat
    output_path: Path
    identifiers: IdentifierKind | None
    prompt_template_path: str | None
    max_passage_words: int
    depth: int
    min_relevance: int
    add_relevant: bool
    random_negatives: int
    windows_per_query: int
    min_window: int
    max_window: int
    shuffle: bool
    sample: WindowSample
    require_relevant: bool
    worst_status: Status
    skip_queries: int
    max_queries: int | None
    seed: int
    strict: bool
    report: Path | None
    overwrite: bool

    @property
    def inputs(self) -> list[Path | None]:
        """All input files; None for those not given."""
        return [self.qrels, self.results, self.run, self.queries, self.corpus, self.teacher_run]

    @property
    def record_rule(self) -> RecordRule:
        """Which windows become records and how they are written. Raises ConfigError on contradictory options."""
        is_judged = self.qrels is not None
        writer = record_writer(
            self.prompt_template_path,
            self.identifiers,
            max_passage_words=self.max_passage_words,
            max_size=self.max_window,
        )
        windows = WindowRule(
            per_query=self.windows_per_query,
            min_size=self.min_window,
            max_size=self.max_window,
            shuffle=self.shuffle,
            sample=self.sample if is_judged else "uniform",
            require_relevant=self.require_relevant and is_judged,
            seed=self.seed,
        )
        return RecordRule(writer=writer, windows=windows, skip_queries=self.skip_queries, max_queries=self.max_queries)

    @property
    def judged_rule(self) -> JudgedRule:
        """Which candidates of a judged query are labelled."""
        return JudgedRule(
            depth=self.depth,
            add_relevant=self.add_relevant,
            random_negatives=self.random_negatives,
            require_relevant=self.require_relevant,
            seed=self.seed,
        )

    @property
    def judged_sources(self) -> JudgedSources:
        """Files of the judged collection. Raises ConfigError if one is missing."""
        run, queries, corpus = self.run, self.queries, self.corpus
        if self.qrels is None or run is None or queries is None or corpus is None:
            files = {"run": run, "queries": queries, "corpus": corpus}
            missing = [f"--{name}" for name, path in files.items() if path is None]
            raise ConfigError(f"--qrels: also needs {', '.join(missing)}")
        return JudgedSources(
            run=RunFile(run, self.run_format),
            qrels=self.qrels,
            queries=queries,
            corpus=corpus,
            teacher_run=run_file(self.teacher_run, self.run_format),
        )


@click.command("label", cls=GroupedCommand, groups=_GROUPS, context_settings=SETTINGS)
@click.option(
    "--qrels", type=PATH, help="Order passages by these relevance judgements. Requires --run, --queries and --corpus."
)
@click.option(
    "--results",
    type=PATH,
    help="Order passages by these reranker results, as written by rerank --output-jsonl. Alternative to --qrels.",
)
@click.option(
    "--run",
    type=PATH,
    help="First-stage run, optionally gzipped: the candidates and, with --no-shuffle, the passage order in windows.",
)
@click.option("--queries", type=PATH, help="Queries for --qrels: TSV (qid, text) or JSON Lines, optionally gzipped.")
@click.option("--corpus", type=PATH, help="Passages for --qrels: JSON Lines or TSV, optionally gzipped.")
@click.option(
    "--teacher-run",
    type=PATH,
    help="Run from a stronger model, used to break ties between passages with the same grade. Requires --qrels.",
)
@shared("run_format", "output_path")
@click.option(
    "--identifiers",
    type=click.Choice(get_args(IdentifierKind)),
    help="Identifiers in the prompts.  [default: the template's]",
)
@click.option(
    "--prompt-template-path",
    type=NAME,
    help="Prompt template, by name or YAML file.  [default: rank_zephyr or rank_zephyr_alpha]",
)
@click.option(
    "--max-passage-words",
    type=click.IntRange(1),
    default=300,
    show_default=True,
    help="Maximum number of words per passage; use the same value at inference.",
)
@click.option(
    "--depth",
    type=click.IntRange(1),
    default=100,
    show_default=True,
    help="Number of top candidates per query from which windows are drawn.",
)
@click.option("--min-relevance", type=int, default=1, show_default=True, help="Lowest grade that counts as relevant.")
@click.option(
    "--add-relevant/--no-add-relevant",
    default=True,
    show_default=True,
    help="Add relevant passages that the run does not retrieve to the candidates.",
)
@shared("random_negatives")
@click.option(
    "--windows-per-query",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Number of windows to draw per query.",
)
@click.option("--min-window", type=int, default=2, show_default=True, help="Minimum number of passages in a window.")
@click.option("--max-window", type=int, default=20, show_default=True, help="Maximum number of passages in a window.")
@click.option(
    "--shuffle/--no-shuffle",
    default=True,
    show_default=True,
    help="Shuffle the passages of each window; --no-shuffle keeps first-stage order.",
)
@click.option(
    "--sample",
    type=click.Choice(get_args(WindowSample)),
    default="with-relevant",
    show_default=True,
    help="How to draw windows: all passages uniformly, or one relevant passage first and the rest uniformly.",
)
@click.option(
    "--require-relevant/--no-require-relevant",
    default=True,
    show_default=True,
    help="Skip windows without a relevant passage.",
)
@click.option(
    "--worst-status",
    type=click.Choice(["ok", "repaired", "fallback"]),
    default="repaired",
    show_default=True,
    help="Worst parsing status to accept in results; results with a worse status are skipped. Requires --results.",
)
@shared("skip_queries")
@click.option("--max-queries", type=click.IntRange(1), help="Maximum number of queries to use.")
@shared("seed", "strict", "report", "overwrite")
def command(**given: Any) -> None:
    """Write listwise training records for `train listwise`, in the format of RankZephyr and FIRST.

    With --qrels, passages are ordered by grade: passages with the same grade keep their order in the run (or in
    --teacher-run), and unjudged passages come last. With --results, passages keep their order in the results.
    """
    options = LabelOptions(**given)
    _check_sources(options)
    rule, output = options.record_rule, options.output_path
    check_outputs([output, options.report], options.inputs, overwrite=options.overwrite)
    tally = _by_results(options, rule) if options.qrels is None else _by_qrels(options, rule)
    tell(tally, outputs=[output], report=options.report, given=given)


def _check_sources(options: LabelOptions) -> None:
    """Raise ConfigError if files are missing or options have no effect."""
    if (options.qrels is None) == (options.results is None):
        raise ConfigError(
            "give either --qrels or --results (one of them, not both) to say how relevant the passages are"
        )
    if options.qrels is not None:
        _ = options.judged_sources
        refuse_given(_FOR_RESULTS, "with --qrels")
        return
    refuse_given(_FOR_QRELS, "with --results")
    if options.run is None:
        refuse_given(("run_format",), "without --run")
    if options.shuffle and options.run is not None:
        raise ConfigError("--run: has no effect on shuffled windows with --results; add --no-shuffle, or leave it out")
    if not options.shuffle and options.run is None:
        raise ConfigError("--no-shuffle: also needs --run with --results, which do not contain the first-stage order")


def _by_qrels(options: LabelOptions, rule: RecordRule) -> Tally:
    return label_judged(
        options.judged_sources,
        options.judged_rule,
        rule,
        min_relevance=options.min_relevance,
        output=options.output_path,
        strict=options.strict,
        track=counted,
    )


def _by_results(options: LabelOptions, rule: RecordRule) -> Tally:
    if options.results is None:
        raise ValueError("options.results is None; _check_sources should have raised")
    return label_results(
        options.results,
        rule,
        output=options.output_path,
        depth=options.depth,
        worst_status=options.worst_status,
        run=run_file(options.run, options.run_format),
        track=counted,
    )
