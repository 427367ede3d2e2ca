"""`train label`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import click

from rankllm_core.errors import ConfigError
from rankllm_core.identifiers import IdentifierKind
from rankllm_train.cli import SETTINGS
from rankllm_train.cli.data_options import check_outputs, refuse_given, run_file, shared, tell
from rankllm_train.cli.path_types import NAME, PATH
from rankllm_train.cli.progress import counted
from rankllm_train.preparation.judgements import JudgedSources
from rankllm_train.preparation.label import RecordRule, label_judged, label_results
from rankllm_train.preparation.labelled import JudgedRule
from rankllm_train.preparation.prompts import record_writer
from rankllm_train.preparation.tally import Tally
from rankllm_train.preparation.windows import WindowRule, WindowSample

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
    _check_sources(given)
    rule = _record_rule(given)
    output: Path = given["output_path"]
    inputs = [given[name] for name in ("qrels", "results", "run", "queries", "corpus", "teacher_run")]
    check_outputs([output, given["report"]], inputs, overwrite=given["overwrite"])
    tally = _by_qrels(given, rule) if given["qrels"] is not None else _by_results(given, rule)
    tell(tally, outputs=[output], report=given["report"], given=given)


def _check_sources(given: dict[str, Any]) -> None:
    """Raise ConfigError where files are missing, or options have no effect."""
    if (given["qrels"] is None) == (given["results"] is None):
        raise ConfigError("give --qrels or --results, which says how good the passages are; not both")
    if given["qrels"] is not None:
        if missing := [f"--{name}" for name in ("run", "queries", "corpus") if given[name] is None]:
            raise ConfigError(f"--qrels: needs {', '.join(missing)} as well")
        refuse_given(_FOR_RESULTS, "with --qrels")
        return
    refuse_given(_FOR_QRELS, "with --results")
    if given["run"] is None:
        refuse_given(("run_format",), "without --run")
    if given["shuffle"] and given["run"] is not None:
        raise ConfigError("--run: has no effect on shuffled windows of --results; add --no-shuffle, or leave it out")
    if not given["shuffle"] and given["run"] is None:
        raise ConfigError("--no-shuffle: needs --run with --results, which do not say the first-stage order")


def _record_rule(given: dict[str, Any]) -> RecordRule:
    is_judged = given["qrels"] is not None
    writer = record_writer(
        given["prompt_template_path"],
        given["identifiers"],
        max_passage_words=given["max_passage_words"],
        max_size=given["max_window"],
    )
    windows = WindowRule(
        per_query=given["windows_per_query"],
        min_size=given["min_window"],
        max_size=given["max_window"],
        shuffle=given["shuffle"],
        sample=given["sample"] if is_judged else "uniform",
        require_relevant=given["require_relevant"] and is_judged,
        seed=given["seed"],
    )
    return RecordRule(
        writer=writer, windows=windows, skip_queries=given["skip_queries"], max_queries=given["max_queries"]
    )


def _by_qrels(given: dict[str, Any], rule: RecordRule) -> Tally:
    sources = JudgedSources(
        run=run_file(given, "run"),
        qrels=given["qrels"],
        queries=given["queries"],
        corpus=given["corpus"],
        teacher_run=run_file(given, "teacher_run"),
    )
    lists = JudgedRule(
        depth=given["depth"],
        add_relevant=given["add_relevant"],
        random_negatives=given["random_negatives"],
        require_relevant=given["require_relevant"],
        seed=given["seed"],
    )
    return label_judged(
        sources,
        lists,
        rule,
        min_relevance=given["min_relevance"],
        output=given["output_path"],
        strict=given["strict"],
        track=counted,
    )


def _by_results(given: dict[str, Any], rule: RecordRule) -> Tally:
    return label_results(
        given["results"],
        rule,
        output=given["output_path"],
        depth=given["depth"],
        worst_status=given["worst_status"],
        run=run_file(given, "run"),
        track=counted,
    )
