"""Preparation of a resumed run: which checkpoint, whether anything is left to train, and what the output still
lacks."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rankllm_core.errors import DataError
from rankllm_train.artifacts.best import BEST_FOLDER, Best, best_at, settle_best, stopped_early
from rankllm_train.artifacts.checkpoints import (
    STATE_NAME,
    aside,
    copy_model,
    final_step,
    find_resumable,
    reveal_files,
    seal,
)
from rankllm_train.artifacts.run_record import RunRecord
from rankllm_train.artifacts.source_identity import source_identities
from rankllm_train.recipe.recipe import Recipe
from rankllm_train.recipe.resume_rules import check_batch, check_changes, check_sources
from rankllm_train.training.distributed import check_resumable_here, first_decides

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Resumed:
    """Checkpoint to resume from, verified and compared with the run."""

    folder: Path
    record: RunRecord
    """Record of the checkpoint, with the changes of this resume."""
    finished: str = ""
    """Why nothing is left to train; empty if something is."""
    best: Best | None = None
    """Best model so far, if the recipe keeps it."""


def resume(recipe: Recipe, resume_from: str, *, processes: int, say: Say) -> Resumed:
    """Choose a checkpoint, verify every byte of it, and compare the run with the one that wrote it.

    Process 0 does this and broadcasts the result. resume_from: a folder, or `latest`.
    Raises RankLLMError if the run cannot be resumed; nothing has been loaded or changed then.
    """
    notes: list[str] = []

    def decide() -> tuple[Resumed, list[str]]:
        folder = find_resumable(resume_from, Path(recipe.checkpoint.output_dir), say=notes.append)
        is_deepspeed = bool(recipe.batch.deepspeed)
        notes.extend(check_resumable_here(folder, deepspeed=is_deepspeed, processes=processes))
        changes: list[str] = []
        found = compare(recipe, folder, processes=processes, say=changes.append)
        return found, [
            *notes,
            *(() if found.finished else changes),
        ]  # changes have no effect if nothing is left to train

    resumed, told = first_decides(decide)
    for note in told:
        say(note)
    return resumed


def compare(recipe: Recipe, folder: Path, *, processes: int, say: Say) -> Resumed:
    """Compare a run with the checkpoint to resume from. Raises RankLLMError if it cannot be resumed."""
    record = check_changes(recipe, resumed=folder, say=say)
    check_batch(record, recipe, resumed=folder, processes=processes)
    sources = source_identities(recipe)
    check_sources(record, recipe, resumed=folder, now=sources)
    best = best_at(recipe, resumed=folder, step=record.step, known=record.best) if recipe.keeps_best else None
    _warn_of_lost_sums(record, folder, say=say)
    finished = _finished(recipe, folder, record=record, best=best)
    return Resumed(folder=folder, record=replace(record, sources=sources), finished=finished, best=best)


def finish(recipe: Recipe, resumed: Resumed, *, say: Say) -> bool:
    """Add the missing final model to the output folder of a finished run that was killed before writing it.

    Returns whether it did; nothing is written if the folder contains a complete model.
    """
    output_dir, step = Path(recipe.checkpoint.output_dir), resumed.record.step
    wanted = resumed.best.step if resumed.best else step
    found = final_step(output_dir)
    say(f"Nothing left to train: {resumed.finished}.")
    if found is not None:
        if found != wanted:
            say(f"{output_dir} keeps the model of step {found}; it is not replaced by that of step {wanted}")
        return False
    output_dir.mkdir(parents=True, exist_ok=True)
    if recipe.keeps_best:
        settle_best(recipe, resumed=resumed.folder, step=step, known=resumed.record.best, say=say)
    source = output_dir / BEST_FOLDER if resumed.best else resumed.folder
    written = aside(output_dir, "final")
    copy_model(source, written)
    seal(written, step=wanted, source=source)
    reveal_files(written, output_dir)
    say(f"{output_dir} lacked the trained model, which was copied from {source.name}")
    return True


def read_state(folder: Path) -> dict[str, Any]:
    """Return the Trainer's state in a checkpoint. Raises DataError if it is missing or invalid."""
    path = folder / STATE_NAME
    try:
        state = json.loads(path.read_bytes())
        if isinstance(state["global_step"], int) and isinstance(state["log_history"], list):
            return dict(state)
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        pass
    raise DataError("is not the state of a training run", path=path)


def _warn_of_lost_sums(record: RunRecord, folder: Path, *, say: Say) -> None:
    """Warn if a checkpoint without log sums lies between two entries: the next entry cannot cover all its steps."""
    if record.unlogged is None and not any(
        "loss" in entry and entry["step"] == record.step for entry in read_state(folder)["log_history"]
    ):
        say(
            f"Warning: {folder.name} was written by a rankllm version that saved no log sums: the next log entry "
            f"averages only the steps after step {record.step}; training is not affected"
        )


def _finished(recipe: Recipe, folder: Path, *, record: RunRecord, best: Best | None) -> str:
    schedule, step = recipe.schedule, record.step
    total = _total_steps(schedule.max_steps, schedule.num_epochs, record=record)
    if step >= total:
        asked = f"{total} steps" if schedule.max_steps else f"{schedule.num_epochs:g} epochs, {total} steps"
        return (
            f"{folder.name} has completed {step} steps, and the recipe asks for {asked}; to train longer, raise "
            "--max-train-steps or --num-train-epochs"
        )
    before = {change["key"]: change["old"] for change in record.changes if change["after_step"] == step}
    total_before = _total_steps(
        before.get("schedule.max_steps", schedule.max_steps),
        before.get("schedule.num_epochs", schedule.num_epochs),
        record=record,
    )
    # A changed patience is checked on its own; a changed metric or other dev data leave no best model to compare with.
    is_extended = total > total_before
    if best is not None and not is_extended and stopped_early(recipe, best, read_state(folder)["log_history"]):
        return (
            f"the run stopped early at step {step}, with no better model since step {best.step} (patience "
            f"{recipe.evaluation.patience}); to continue, raise --patience, or set it to 0"
        )
    return ""


def _total_steps(max_steps: int, num_epochs: float, *, record: RunRecord) -> int:
    return max_steps or math.ceil(num_epochs * record.steps_per_epoch)
