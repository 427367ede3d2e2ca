"""Train a model from a recipe: data, model, card and training loop."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rankllm_train.artifacts.best import Best, settle_best
from rankllm_train.artifacts.checkpoints import remove, sweep
from rankllm_train.artifacts.metrics_log import start_metrics
from rankllm_train.artifacts.preflight import (
    check_by_length,
    check_complete,
    check_output_names,
    check_precision,
    check_trackers,
    earlier_results,
)
from rankllm_train.methods.training_data import Track
from rankllm_train.recipe.recipe import Recipe
from rankllm_train.recipe.settled import settle
from rankllm_train.training.distributed import first_decides
from rankllm_train.training.resuming import Resumed, finish, resume

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingResult:
    """Outcome of a training run."""

    output_dir: Path
    steps: int
    loss: float | None
    """Mean loss over the steps of this run; None if nothing was left to train."""
    best: Best | None = None
    """The best model, now in the output folder; None if the recipe does not keep it and the folder contains the last
    model."""


def train(
    recipe: Recipe,
    *,
    resume_from: str | None = None,
    overwrite: bool = False,
    say: Say = lambda line: None,
    track: Track = iter,
    callbacks: Sequence[Any] = (),
) -> TrainingResult:
    """Train a model from a recipe. callbacks: transformers TrainerCallbacks. say: called with each line for the user.

    resume_from: a checkpoint folder, or `latest`. overwrite: delete the checkpoints of an earlier run in the output
    folder. track: wraps the iteration over records, to show tokenization progress.
    Raises RankLLMError before the first step if the recipe cannot be trained, and later if the loss becomes NaN.
    """
    from rankllm_train.training.trainer_setup import make_trainer

    output_dir = Path(recipe.checkpoint.output_dir)
    recipe, arguments = _meet(recipe, say=say)
    resumed = resume(recipe, resume_from, processes=arguments.world_size, say=say) if resume_from else None
    if resumed and resumed.finished:
        return _finished(recipe, resumed, is_first=arguments.process_index == 0, say=say)
    stale = earlier_results(
        output_dir,
        resumed=resumed.folder if resumed else None,
        overwrite=overwrite,
        is_latest=resume_from == "latest",
    )
    trainer = make_trainer(recipe, arguments, resumed=resumed, say=say, track=track, callbacks=callbacks)
    if trainer.is_world_process_zero():
        _open_output(recipe, resumed=resumed, stale=stale, say=say)
    trainer.accelerator.wait_for_everyone()
    outcome = trainer.train(str(resumed.folder) if resumed else None)
    trainer.save_final()
    if trainer.is_world_process_zero():
        _draw(output_dir, trainer.best)
    return TrainingResult(
        output_dir=output_dir, steps=outcome.global_step, loss=outcome.training_loss, best=trainer.best
    )


def _meet(recipe: Recipe, *, say: Say) -> tuple[Recipe, Any]:
    """Check what needs neither data nor weights, and start the process group. Returns the settled recipe and arguments.

    The processes must meet before the model is loaded, since ZeRO-3 shards it across them while loading. The returned
    recipe includes the values that depend on the base model.
    """
    from rankllm_train.models.loading import base_config
    from rankllm_train.training.trainer_arguments import training_arguments

    output_dir = Path(recipe.checkpoint.output_dir)
    check_complete(recipe)
    check_precision(recipe)
    check_trackers(recipe, say)
    check_output_names(output_dir)
    arguments = training_arguments(recipe, say=say)
    check_by_length(recipe, processes=arguments.world_size)
    with arguments.main_process_first(local=False):  # the others see the folder after its clean-up
        if arguments.process_index == 0:
            sweep(output_dir)
    return settle(recipe, base_config(recipe.model)), arguments


def _finished(recipe: Recipe, resumed: Resumed, *, is_first: bool, say: Say) -> TrainingResult:
    """Complete the output of a run that has nothing left to train."""
    output_dir = Path(recipe.checkpoint.output_dir)
    is_completed = first_decides(lambda: finish(recipe, resumed, say=say))
    if is_completed and is_first:
        _draw(output_dir, resumed.best)
    return TrainingResult(output_dir=output_dir, steps=resumed.record.step, loss=None, best=resumed.best)


def _draw(output_dir: Path, best: Best | None) -> None:
    from rankllm_train.artifacts.curves import draw_curves

    draw_curves(output_dir, best_step=best.step if best else None)


def _open_output(recipe: Recipe, *, resumed: Resumed | None, stale: Sequence[Path], say: Say) -> None:
    """Remove from the output folder what could be mistaken for this run's output. stale: checkpoints to delete."""
    output_dir = Path(recipe.checkpoint.output_dir)
    output_dir.mkdir(parents=True, exist_ok=True)
    for checkpoint in stale:
        remove(checkpoint)
    step = resumed.record.step if resumed else 0
    logged_step = resumed.record.unlogged["after_step"] if resumed and resumed.record.unlogged else None
    if lost := start_metrics(output_dir, step=step, logged_step=logged_step):
        say(f"Warning: {output_dir}: dropped {lost} unreadable lines from metrics.jsonl")
    if resumed and recipe.keeps_best:
        settle_best(recipe, resumed=resumed.folder, step=step, known=resumed.record.best, say=say)
