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
from rankllm_train.preparation.judgements import JudgedSources
from rankllm_train.preparation.mine import MineRule, Sample, mine
from rankllm_train.preparation.negatives import Margin, PoolRule
from rankllm_train.preparation.ranked_queries import RunFile


@dataclass(frozen=True, slots=True, kw_only=True)
class MineOptions:
    """What a command line of `train mine` says."""

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
        """The files of the collection."""
        return JudgedSources(
            run=RunFile(self.run, self.run_format),
            qrels=self.qrels,
            queries=self.queries,
            corpus=self.corpus,
            teacher_run=run_file(self.teacher_run, self.run_format),
        )

    @property
    def rule(self) -> MineRule:
        """Which passages become positives and negatives. Raises ConfigError where options contradict each other."""
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
        """Raise ConfigError for a margin of a teacher that is not there."""
        for name in ("teacher_margin", "teacher_relative_margin"):
            if self.teacher_run is None and getattr(self, name) is not None:
                raise ConfigError(f"--{name.replace('_', '-')}: has no effect without --teacher-run")


@click.command("mine", context_settings=SETTINGS)
@click.option("--run", type=PATH, required=True, help="A first-stage run, where negatives come from (gz).")
@click.option("--qrels", type=PATH, required=True, help="Judgements: TREC or BEIR layout.")
@click.option("--queries", type=PATH, required=True, help="TSV (qid, text) or JSON Lines (gz).")
@click.option("--corpus", type=PATH, required=True, help="JSON Lines or TSV (gz).")
@shared("run_format", "output_path")
@click.option("--min-relevance", type=int, default=1, show_default=True, help="The least grade of a positive.")
@click.option("--negatives-per-query", type=click.IntRange(0), default=15, show_default=True, help="Of the run.")
@shared("random_negatives")
@click.option("--min-negatives", type=int, default=1, show_default=True, help="Leave out queries with fewer.")
@click.option("--min-rank", type=int, default=1, show_default=True, help="Negatives stand at this rank or below it.")
@click.option("--max-rank", type=int, default=100, show_default=True, help="And at this rank or above it.")
@click.option(
    "--sample", type=click.Choice(get_args(Sample)), default="top", show_default=True, help="The first of them, or any."
)
@click.option("--margin", type=float, help="Negatives score so much less than the best positive in the run.")
@click.option("--relative-margin", type=float, help="The same as a share of the positive's score.")
@click.option("--teacher-run", type=PATH, help="A better model's run of the same queries: drop what it finds relevant.")
@click.option("--teacher-margin", type=float, help="As --margin, by the teacher's scores [default: 0].")
@click.option("--teacher-relative-margin", type=float, help="As --relative-margin, by the teacher's scores.")
@click.option("--with-teacher-scores/--no-with-teacher-scores", default=False, help="Keep them, for distillation.")
@shared("skip_queries")
@click.option("--max-queries", type=click.IntRange(1), help="Make at most so many records.")
@shared("seed", "strict", "report", "overwrite")
def command(**given: Any) -> None:
    """Mine hard negatives from a first-stage run, and write records for `train pointwise` (Tevatron's layout).

    A candidate of the run is a negative unless it is judged relevant, or unjudged and too near the best positive. The
    positives are those of the judgements, also where the run lacks them.
    """
    options = MineOptions(**given)
    options.check_teacher()
    rule, output = options.rule, options.output_path
    inputs = [options.run, options.qrels, options.queries, options.corpus, options.teacher_run]
    check_outputs([output, options.report], inputs, overwrite=options.overwrite)
    tally = mine(options.sources, rule, output=output, strict=options.strict, track=counted)
    tell(tally, outputs=[output], report=options.report, given=given)


def _margin(prefix: str, absolute: float | None, relative: float | None) -> Margin | None:
    """None where neither is given. prefix: of the options' names."""
    if absolute is None and relative is None:
        return None
    try:
        return Margin(absolute=absolute or 0.0, relative=relative or 0.0)
    except ConfigError as error:
        raise ConfigError(f"{prefix}{error}") from None
