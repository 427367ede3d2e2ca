"""What `train listwise` and `train pointwise` do once their recipe is known."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import click
from click.decorators import FC

from rankllm_train.api import train
from rankllm_train.artifacts.preflight import check_complete
from rankllm_train.cli import say
from rankllm_train.cli.options import resolve_recipe
from rankllm_train.cli.path_types import NAME


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


def run(method: str, given: dict[str, Any]) -> None:
    """Train, and say where the model is."""
    recipe = resolve_recipe(method, given)
    check_complete(recipe)
    is_first = os.environ.get("RANK", "0") == "0"
    tell: Callable[[str], None] = say if is_first else lambda line: None
    tell("loading ...")
    from rankllm_train.training.progress import Progress, tracked

    try:
        result = train(
            recipe,
            resume_from=given["resume_from"],
            overwrite=given["overwrite"],
            say=tell,
            track=lambda records: tracked(records, tell, is_shown=is_first),
            callbacks=[Progress(tell)],
        )
    except KeyboardInterrupt:
        tell("The same command with --resume-from-checkpoint latest resumes from the last checkpoint.")
        raise
    if result.loss is None:  # nothing was left to train, which was said
        if is_first:
            click.echo(result.output_dir)
        return
    best = result.best
    kept = f"; kept is the best model, of step {best.step}: {best.metric} {best.value:.4f}" if best else ""
    tell(f"{result.steps} steps, mean loss {result.loss:.4f}{kept}; use it: rankllm-infer rerank --model-path ...")
    if is_first:
        click.echo(result.output_dir)
