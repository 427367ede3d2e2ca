"""`rankllm-infer demo`: retrieve, rerank and evaluate on embedded data, without a model hub."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from rankllm_core.command_line import NonEmptyPath
from rankllm_core.files import check_output
from rankllm_infer.cli import EXIT_SOME_FAILED, SETTINGS, say
from rankllm_infer.cli.options import row_options, select
from rankllm_infer.cli.rerank.options import ModelArguments
from rankllm_infer.console import prompt_counter
from rankllm_infer.option_table import ENGINES, changed, rows_of
from rankllm_infer.option_values import from_given
from rankllm_infer.options import RerankOptions
from rankllm_infer.watching import ShownProgress

if TYPE_CHECKING:
    from rankllm_infer.demo.run import DemoFiles, DemoReport


@click.command("demo", context_settings=SETTINGS)
@row_options(
    changed(
        rows_of(RerankOptions)["method"],
        choices=("listwise", "pointwise"),
        default_text="pointwise; with --model-path, from the card, else listwise",
        text="Ranking method. Without --model-path, it selects the bundled reranker.",
    ),
    changed(
        rows_of(ModelArguments)["model_path"],
        default=None,
        metavar="FOLDER|NAME",
        text="Model folder or Hugging Face model name, instead of a bundled reranker.",
    ),
    changed(rows_of(RerankOptions)["revision"], engines=ENGINES),
    *(changed(row, engines=ENGINES) for row in select(RerankOptions, "dtype", "device")),
)
@click.option(
    "--output-dir",
    type=NonEmptyPath(path_type=Path, file_okay=False),
    default=Path("rankllm-demo"),
    help="Folder for the runs and results; files from an earlier demo with the same model are replaced.",
)
def command(model_path: str | None, output_dir: Path, **given: str | None) -> int:
    """Rerank an embedded collection with a bundled reranker.

    Retrieves with BM25, reranks with one of two small rerankers (or --model-path), prints the measured quality and
    writes the runs. smollm2-pointwise scores each passage, smollm2-first reranks windows of passages. Both are adapters
    for SmolLM2-135M; models with billions of parameters improve the ranking more.
    """
    from rankllm_infer.api import start_reranker
    from rankllm_infer.checkpoints.hub import SHIPPED
    from rankllm_infer.demo.collection import load_demo_collection
    from rankllm_infer.demo.run import DemoFiles, demo_requests, run_demo
    from rankllm_infer.plan import plan_reranking
    from rankllm_infer.watching import PromptProgress

    if given["revision"] is not None and model_path is None:
        raise click.UsageError("--revision has no effect without --model-path")
    shown_name = model_path or SHIPPED[given["method"] or "pointwise"]
    files = DemoFiles(folder=output_dir, model=Path(shown_name).name)
    check_output(files.reranked, overwrite=True)
    if model_path is None:
        given["method"] = given["method"] or "pointwise"
        model_path = _bundled(given["method"])
    options = _options(model_path, given)
    with start_reranker(plan_reranking(model_path, options)) as reranker:
        for warning in reranker.warnings:
            say(f"Warning: {warning}")
        say(f"Reranking: {reranker.description}")
        requests = demo_requests(load_demo_collection())
        progress = PromptProgress(reranker.n_prompts, {r.query.qid: len(r.candidates) for r in requests})
        with prompt_counter("rerank", progress) as show:
            shown = ShownProgress(progress, show)
            report = run_demo(
                reranker, files, on_finished=lambda r: shown.finish(r.query.qid), on_answered=shown.answer
            )
    _print(report, files)
    return EXIT_SOME_FAILED if report.summary.failures else 0


def _bundled(method: str) -> str:
    """Prepare the base model and return the bundled reranker of a method, in the form of `--model-path`."""
    from rankllm_infer.checkpoints.demo_model import MODEL_NAME, demo_model_path
    from rankllm_infer.checkpoints.hub import SHIPPED, shipped_folder

    say(f"Preparing {MODEL_NAME} (unpacked on first use, about half a minute) ...")
    demo_model_path()
    name = SHIPPED[method]
    # A user's folder of that name is not the bundled reranker.
    return str(shipped_folder(name)) if Path(name).exists() else name


def _options(model_path: str, given: Mapping[str, str | None]) -> RerankOptions:
    """Build options according to the model's card; a listwise model without a card is read as FIRST."""
    from rankllm_core.card import load_card, published_card
    from rankllm_infer.checkpoints.model_files import locate_model

    folder = locate_model(model_path, revision=given["revision"], weights=False)
    card = load_card(folder) or published_card(model_path)
    method = given["method"] or (card.kind if card else "listwise")
    first = True if method == "listwise" and card is None else None
    return from_given(RerankOptions, given, method=method, use_logits=first, use_alpha=first)


def _print(report: DemoReport, files: DemoFiles) -> None:
    from rankllm_infer.console import summary_lines
    from rankllm_infer.diagnosis import program

    for line in summary_lines(report.summary, seconds=report.rerank_s, files=()):
        click.echo(line)
    click.echo("")
    click.echo(f"{'list':<10} {'nDCG@10':>8}   file")
    click.echo(f"{'BM25':<10} {report.first_stage:>8.4f}   {files.first_stage}")
    click.echo(f"{'reranked':<10} {report.reranked:>8.4f}   {files.reranked}")
    click.echo("")
    click.echo(f"Results with texts: {files.results}")
    click.echo("To explore the results query by query in a browser:")
    click.echo(f"  {program()} report {files.results} --requests {files.requests} --qrels {files.qrels}")
    click.echo("To rerank with a 7-billion-parameter model:")
    click.echo(
        f"  {program()} rerank --model-path castorini/first_mistral --requests {files.requests} "
        f"--output better.trec --qrels {files.qrels}"
    )
