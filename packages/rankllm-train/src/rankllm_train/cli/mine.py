"""`train mine`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import click

from rankllm_core.errors import ConfigError
from rankllm_train.cli import SETTINGS
from rankllm_train.cli.data_options import check_outputs, run_file, shared, tell
from rankllm_train.cli.path_types import PATH
from rankllm_train.cli.progress import counted
from rankllm_train.preparation.judgements import JudgedSources
from rankllm_train.preparation.mine import MineRule, Sample, mine
from rankllm_train.preparation.negatives import Margin, PoolRule


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
    sources = JudgedSources(
        run=run_file(given, "run"),
        qrels=given["qrels"],
        queries=given["queries"],
        corpus=given["corpus"],
        teacher_run=run_file(given, "teacher_run"),
    )
    rule = _rule(given)
    output: Path = given["output_path"]
    inputs = [given[name] for name in ("run", "qrels", "queries", "corpus", "teacher_run")]
    check_outputs([output, given["report"]], inputs, overwrite=given["overwrite"])
    tally = mine(sources, rule, output=output, strict=given["strict"], track=counted)
    tell(tally, outputs=[output], report=given["report"], given=given)


def _rule(given: dict[str, Any]) -> MineRule:
    if given["teacher_run"] is None:
        for name in ("teacher_margin", "teacher_relative_margin"):
            if given[name] is not None:
                raise ConfigError(f"--{name.replace('_', '-')}: has no effect without --teacher-run")
    return MineRule(
        pool=PoolRule(
            min_rank=given["min_rank"],
            max_rank=given["max_rank"],
            margin=_margin(given, ""),
        ),
        min_relevance=given["min_relevance"],
        teacher_margin=_margin(given, "teacher_") or Margin(),
        with_teacher_scores=given["with_teacher_scores"],
        negatives_per_query=given["negatives_per_query"],
        random_negatives=given["random_negatives"],
        min_negatives=given["min_negatives"],
        sample=given["sample"],
        skip_queries=given["skip_queries"],
        max_queries=given["max_queries"],
        seed=given["seed"],
    )


def _margin(given: dict[str, Any], prefix: str) -> Margin | None:
    """None where neither is given. prefix: of the options' names."""
    absolute, relative = given[f"{prefix}margin"], given[f"{prefix}relative_margin"]
    if absolute is None and relative is None:
        return None
    try:
        return Margin(absolute=absolute or 0.0, relative=relative or 0.0)
    except ConfigError as error:
        raise ConfigError(f"--{prefix.replace('_', '-')}{error}") from None
