"""The commands that make a model: `train listwise`, `train pointwise`, `train merge`."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click
from click.decorators import FC

from rankllm_core.command_line import NAME
from rankllm_train.cli import SETTINGS, say
from rankllm_train.cli.options import (
    COMMON,
    FORMATS,
    LISTWISE,
    POINTWISE,
    RecipeOptions,
    recipe_options,
    resolve_recipe,
    shared_options,
)

if TYPE_CHECKING:
    from rankllm_train.api import TrainingResult


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """What a command line says of a run."""

    recipe: RecipeOptions
    resume_from: str | None
    """A checkpoint's folder, or `latest`."""
    overwrite: bool
    """Whether to delete the checkpoints of an earlier run."""


def run_options(command: FC) -> FC:
    """Options of a run that are no part of its recipe."""
    for decorate in (
        click.option(
            "--overwrite-output-dir/--no-overwrite-output-dir",
            "overwrite",
            default=False,
            help="Delete the checkpoints of an earlier run in --output-dir.",
        ),
        click.option("--resume-from-checkpoint", "resume_from", type=NAME, help="A checkpoint's folder, or `latest`."),
    ):
        command = decorate(command)
    return command


@click.command("listwise", context_settings=SETTINGS)
@shared_options
@recipe_options((*COMMON, *LISTWISE))
@run_options
def listwise(resume_from: str | None, overwrite: bool, **given: Any) -> None:
    """Train a listwise reranker: it reads a window of passages and gives their order.

    Values come from the recipe, then from the options, then from --set.
    """
    run("listwise", RunOptions(recipe=RecipeOptions.of(given), resume_from=resume_from, overwrite=overwrite))


@click.command("pointwise", context_settings=SETTINGS)
@shared_options
@recipe_options((*COMMON, *POINTWISE))
@click.option("--input-format", type=click.Choice(list(FORMATS)), help="v1: as published; v2: tevatron's later one.")
@run_options
def pointwise(resume_from: str | None, overwrite: bool, **given: Any) -> None:
    """Train a pointwise reranker: it reads one passage and gives it a score.

    Values come from the recipe, then from the options, then from --set.
    """
    run("pointwise", RunOptions(recipe=RecipeOptions.of(given), resume_from=resume_from, overwrite=overwrite))


def run(method: str, options: RunOptions) -> None:
    """Train, and say where the model is."""
    from rankllm_train.api import train
    from rankllm_train.artifacts.preflight import check_complete

    recipe = resolve_recipe(method, options.recipe)
    check_complete(recipe)
    is_first = os.environ.get("RANK", "0") == "0"
    tell: Callable[[str], None] = say if is_first else lambda line: None
    tell("loading ...")
    from rankllm_train.training.progress import Progress, tracked

    try:
        result = train(
            recipe,
            resume_from=options.resume_from,
            overwrite=options.overwrite,
            say=tell,
            track=lambda records: tracked(records, tell, is_shown=is_first),
            callbacks=[Progress(tell)],
        )
    except KeyboardInterrupt:
        tell("The same command with --resume-from-checkpoint latest resumes from the last checkpoint.")
        raise
    if result.loss is not None:  # else nothing was left to train, which was said
        tell(_summary(result, loss=result.loss))
    if is_first:
        click.echo(result.output_dir)


def _summary(result: TrainingResult, *, loss: float) -> str:
    best = result.best
    kept = f"; kept is the best model, of step {best.step}: {best.metric} {best.value:.4f}" if best else ""
    return f"{result.steps} steps, mean loss {loss:.4f}{kept}; use it: rankllm-infer rerank --model-path ..."


@click.command("merge", context_settings=SETTINGS)
@click.argument("adapter", type=NAME)
@click.argument("out", type=NAME)
@click.option(
    "--base-model", type=NAME, help="Folder or hub name of the base model, in place of the one that the adapter names."
)
@click.option(
    "--dtype",
    type=click.Choice(["auto", "float32", "bfloat16", "float16"]),
    default="auto",
    show_default=True,
    help="Precision of the merged weights; auto: the base model's. The sum is taken in float32.",
)
def merge(adapter: str, out: str, base_model: str | None, dtype: str) -> None:
    """Merge the LoRA adapter in folder ADAPTER into its base and write the whole model, with its card, to OUT."""
    from rankllm_train.artifacts.merge import merge as merge_adapter

    click.echo(merge_adapter(adapter, out, base_model=base_model, dtype=dtype))
