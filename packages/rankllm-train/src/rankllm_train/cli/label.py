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


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelOptions:
    """What a command line of `train label` says."""

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
        """The files that are read."""
        return [self.qrels, self.results, self.run, self.queries, self.corpus, self.teacher_run]

    @property
    def record_rule(self) -> RecordRule:
        """Which windows become records, and how they are written. Raises ConfigError."""
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
        """The files of a judged collection. Raises ConfigError where one is missing."""
        run, queries, corpus = self.run, self.queries, self.corpus
        if self.qrels is None or run is None or queries is None or corpus is None:
            files = {"run": run, "queries": queries, "corpus": corpus}
            missing = [f"--{name}" for name, path in files.items() if path is None]
            raise ConfigError(f"--qrels: needs {', '.join(missing)} as well")
        return JudgedSources(
            run=RunFile(run, self.run_format),
            qrels=self.qrels,
            queries=queries,
            corpus=corpus,
            teacher_run=run_file(self.teacher_run, self.run_format),
        )


@click.command("label", context_settings=SETTINGS)
@click.option("--qrels", type=PATH, help="Order by judgements; needs --run, --queries and --corpus.")
@click.option(
    "--results", type=PATH, help="In place of --qrels: order by a reranker's results (rerank --output-jsonl)."
)
@click.option("--run", type=PATH, help="The first stage: candidates, and the order of windows not shuffled (gz).")
@click.option("--queries", type=PATH, help="With --qrels: TSV (qid, text) or JSON Lines (gz).")
@click.option("--corpus", type=PATH, help="With --qrels: JSON Lines or TSV (gz).")
@click.option("--teacher-run", type=PATH, help="With --qrels: a better model's run, which orders those of one grade.")
@shared("run_format", "output_path")
@click.option("--identifiers", type=click.Choice(get_args(IdentifierKind)), help="[default: the template's].")
@click.option(
    "--prompt-template-path", type=NAME, help="A template's name or YAML file [default: rank_zephyr(_alpha)]."
)
@click.option("--max-passage-words", type=click.IntRange(1), default=300, show_default=True, help="As at inference.")
@click.option("--depth", type=click.IntRange(1), default=100, show_default=True, help="Candidates of a query.")
@click.option("--min-relevance", type=int, default=1, show_default=True, help="The least grade of a relevant one.")
@click.option(
    "--add-relevant/--no-add-relevant", default=True, show_default=True, help="Candidates are also those the run lacks."
)
@shared("random_negatives")
@click.option("--windows-per-query", type=click.IntRange(1), default=1, show_default=True, help="Drawn from each list.")
@click.option("--min-window", type=int, default=2, show_default=True, help="Passages of the smallest window.")
@click.option("--max-window", type=int, default=20, show_default=True, help="Passages of the largest window.")
@click.option("--shuffle/--no-shuffle", default=True, show_default=True, help="--no-shuffle: in first-stage order.")
@click.option(
    "--sample",
    type=click.Choice(get_args(WindowSample)),
    default="with-relevant",
    show_default=True,
    help="Any passages, or a relevant one and then any.",
)
@click.option(
    "--require-relevant/--no-require-relevant",
    default=True,
    show_default=True,
    help="Leave out windows without a relevant passage.",
)
@click.option(
    "--worst-status",
    type=click.Choice(["ok", "repaired", "fallback"]),
    default="repaired",
    show_default=True,
    help="With --results: lists read worse are left out.",
)
@shared("skip_queries")
@click.option("--max-queries", type=click.IntRange(1), help="Use so many.")
@shared("seed", "strict", "report", "overwrite")
def command(**given: Any) -> None:
    """Make listwise records for `train listwise` (the layout of RankZephyr and FIRST): windows and their order.

    With --qrels the best grade comes first, candidates of one grade are in the order of the run (or of --teacher-run),
    and unjudged ones come last. With --results the order is that of the results.
    """
    options = LabelOptions(**given)
    _check_sources(options)
    rule, output = options.record_rule, options.output_path
    check_outputs([output, options.report], options.inputs, overwrite=options.overwrite)
    tally = _by_results(options, rule) if options.qrels is None else _by_qrels(options, rule)
    tell(tally, outputs=[output], report=options.report, given=given)


def _check_sources(options: LabelOptions) -> None:
    """Raise ConfigError where files are missing, or options have no effect."""
    if (options.qrels is None) == (options.results is None):
        raise ConfigError("give --qrels or --results, which says how good the passages are; not both")
    if options.qrels is not None:
        _ = options.judged_sources
        refuse_given(_FOR_RESULTS, "with --qrels")
        return
    refuse_given(_FOR_QRELS, "with --results")
    if options.run is None:
        refuse_given(("run_format",), "without --run")
    if options.shuffle and options.run is not None:
        raise ConfigError("--run: has no effect on shuffled windows of --results; add --no-shuffle, or leave it out")
    if not options.shuffle and options.run is None:
        raise ConfigError("--no-shuffle: needs --run with --results, which do not say the first-stage order")


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
        raise ValueError("no results; _check_sources refuses that")
    return label_results(
        options.results,
        rule,
        output=options.output_path,
        depth=options.depth,
        worst_status=options.worst_status,
        run=run_file(options.run, options.run_format),
        track=counted,
    )
