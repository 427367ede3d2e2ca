"""`train mine`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import click

from rankllm_core.command_line import PATH
from rankllm_core.errors import ConfigError
from rankllm_core.files import check_outputs
from rankllm_core.trec.run_layout import RunFormat
from rankllm_train.cli import SETTINGS
from rankllm_train.cli.data_options import counted, run_file, shared, tell
from rankllm_train.cli.grouped_help import GroupedCommand
from rankllm_train.preparation.judgements import JudgedSources
from rankllm_train.preparation.mine import MineRule, Sample, mine
from rankllm_train.preparation.negatives import Margin, PoolRule
from rankllm_train.preparation.ranked_queries import RunFile

_GROUPS = {
    "Input": ("run", "qrels", "queries", "corpus", "run_format", "skip_queries", "max_queries", "strict"),
    "Output": ("output_path", "report", "overwrite"),
    "Positives and negatives": (
        *("min_relevance", "negatives_per_query", "random_negatives", "min_negatives"),
        *("min_rank", "max_rank", "sample", "margin", "relative_margin", "seed"),
    ),
    "Teacher": ("*teacher*",),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class MineOptions:
    """Parsed options of `train mine`."""

    run: Path
    qrels: Path
    queries: Path
    corpus: Path
    run_format: RunFormat
    output_path: Path
    min_relevance: int
    negatives_per_query: int
    random_negatives: int
    min_negatives: int
    min_rank: int
    max_rank: int
    sample: Sample
    margin: float | None
    relative_margin: float | None
    teacher_run: Path | None
    teacher_margin: float | None
    teacher_relative_margin: float | None
    with_teacher_scores: bool
    skip_queries: int
    max_queries: int | None
    seed: int
    strict: bool
    report: Path | None
    overwrite: bool

    @property
    def sources(self) -> JudgedSources:
        """Files of the judged collection."""
        return JudgedSources(
            run=RunFile(self.run, self.run_format),
            qrels=self.qrels,
            queries=self.queries,
            corpus=self.corpus,
            teacher_run=run_file(self.teacher_run, self.run_format),
        )

    @property
    def rule(self) -> MineRule:
        """Which passages become positives and negatives. Raises ConfigError on contradictory options."""
        teacher_margin = _margin("--teacher-", self.teacher_margin, self.teacher_relative_margin)
        return MineRule(
            pool=PoolRule(
                min_rank=self.min_rank,
                max_rank=self.max_rank,
                margin=_margin("--", self.margin, self.relative_margin),
            ),
            min_relevance=self.min_relevance,
            teacher_margin=teacher_margin or Margin(),
            with_teacher_scores=self.with_teacher_scores,
            negatives_per_query=self.negatives_per_query,
            random_negatives=self.random_negatives,
            min_negatives=self.min_negatives,
            sample=self.sample,
            skip_queries=self.skip_queries,
            max_queries=self.max_queries,
            seed=self.seed,
        )

    def check_teacher(self) -> None:
        """Raise ConfigError if a teacher margin is given without a teacher run."""
        for name in ("teacher_margin", "teacher_relative_margin"):
            if self.teacher_run is None and getattr(self, name) is not None:
                raise ConfigError(f"--{name.replace('_', '-')}: has no effect without --teacher-run")


@click.command("mine", cls=GroupedCommand, groups=_GROUPS, context_settings=SETTINGS)
@click.option("--run", type=PATH, required=True, help="First-stage run to mine negatives from, optionally gzipped.")
@click.option("--qrels", type=PATH, required=True, help="Relevance judgements in TREC or BEIR format.")
@click.option("--queries", type=PATH, required=True, help="Queries: TSV (qid, text) or JSON Lines, optionally gzipped.")
@click.option("--corpus", type=PATH, required=True, help="Passages: JSON Lines or TSV, optionally gzipped.")
@shared("run_format", "output_path")
@click.option("--min-relevance", type=int, default=1, show_default=True, help="Lowest grade that counts as positive.")
@click.option(
    "--negatives-per-query",
    type=click.IntRange(0),
    default=15,
    show_default=True,
    help="Number of hard negatives per query.",
)
@shared("random_negatives")
@click.option(
    "--min-negatives",
    type=int,
    default=1,
    show_default=True,
    help="Minimum number of negatives; queries with fewer are skipped.",
)
@click.option(
    "--min-rank", type=int, default=1, show_default=True, help="First rank to take negatives from (rank 1 is the top)."
)
@click.option("--max-rank", type=int, default=100, show_default=True, help="Last rank to take negatives from.")
@click.option(
    "--sample",
    type=click.Choice(get_args(Sample)),
    default="top",
    show_default=True,
    help="Take the highest-ranked eligible negatives, or sample them uniformly.",
)
@click.option(
    "--margin", type=float, help="Negatives must score at least this much below the best positive in the run."
)
@click.option("--relative-margin", type=float, help="Same as --margin, but as a fraction of the positive's score.")
@click.option(
    "--teacher-run",
    type=PATH,
    help="Run from a stronger model on the same queries; passages that it finds relevant are not used as negatives.",
)
@click.option("--teacher-margin", type=float, help="Same as --margin, but for the teacher's scores.  [default: 0]")
@click.option("--teacher-relative-margin", type=float, help="Same as --relative-margin, but for the teacher's scores.")
@click.option(
    "--with-teacher-scores/--no-with-teacher-scores",
    default=False,
    help="Store the teacher scores in the records, for distillation.",
)
@shared("skip_queries")
@click.option("--max-queries", type=click.IntRange(1), help="Maximum number of records to write.")
@shared("seed", "strict", "report", "overwrite")
def command(**given: Any) -> None:
    """Mine hard negatives from a first-stage run and write records for `train pointwise` (Tevatron's format).

    A retrieved passage becomes a negative unless it is judged relevant, or is unjudged and scores too close to the best
    positive. Positives come from the judgements, whether or not the run retrieves them.
    """
    options = MineOptions(**given)
    options.check_teacher()
    rule, output = options.rule, options.output_path
    inputs = [options.run, options.qrels, options.queries, options.corpus, options.teacher_run]
    check_outputs([output, options.report], inputs, overwrite=options.overwrite)
    tally = mine(options.sources, rule, output=output, strict=options.strict, track=counted)
    tell(tally, outputs=[output], report=options.report, given=given)


def _margin(prefix: str, absolute: float | None, relative: float | None) -> Margin | None:
    """Return None if neither is given. prefix: how the option names begin, for messages."""
    if absolute is None and relative is None:
        return None
    try:
        return Margin(absolute=absolute or 0.0, relative=relative or 0.0)
    except ConfigError as error:
        raise ConfigError(f"{prefix}{error}") from None
