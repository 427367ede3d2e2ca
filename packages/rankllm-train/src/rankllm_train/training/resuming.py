"""Before a resumed run: which checkpoint, whether anything is left to train, and what a finished run still lacks."""

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
    """A checkpoint that a run is resumed from: checked, and compared with the run."""

    folder: Path
    record: RunRecord
    """The checkpoint's, with the changes of this resume."""
    finished: str = ""
    """Why nothing is left to train; empty where something is."""
    best: Best | None = None
    """The best model so far, where the recipe has it kept."""


def resume(recipe: Recipe, resume_from: str, *, processes: int, say: Say) -> Resumed:
    """Choose a checkpoint, verify every byte of it, and compare the run with the one that wrote it.

    The first process does so, and the others take over what it finds. resume_from: a folder, or `latest`.
    Raises RankLLMError where the run cannot be resumed so; nothing has been loaded then, and nothing changed.
    """
    notes: list[str] = []

    def decide() -> tuple[Resumed, list[str]]:
        folder = find_resumable(resume_from, Path(recipe.checkpoint.output_dir), say=notes.append)
        is_deepspeed = bool(recipe.batch.deepspeed)
        notes.extend(check_resumable_here(folder, deepspeed=is_deepspeed, processes=processes))
        changes: list[str] = []
        found = compare(recipe, folder, processes=processes, say=changes.append)
        return found, [*notes, *(() if found.finished else changes)]  # nothing is used where nothing is trained

    resumed, told = first_decides(decide)
    for note in told:
        say(note)
    return resumed


def compare(recipe: Recipe, folder: Path, *, processes: int, say: Say) -> Resumed:
    """Compare a run with the checkpoint it is resumed from. Raises RankLLMError where it cannot be resumed so."""
    record = check_changes(recipe, resumed=folder, say=say)
    check_batch(record, recipe, resumed=folder, processes=processes)
    sources = source_identities(recipe)
    check_sources(record, recipe, resumed=folder, now=sources)
    best = best_at(recipe, resumed=folder, step=record.step, known=record.best) if recipe.keeps_best else None
    _warn_of_lost_sums(record, folder, say=say)
    finished = _finished(recipe, folder, record=record, best=best)
    return Resumed(folder=folder, record=replace(record, sources=sources), finished=finished, best=best)


def finish(recipe: Recipe, resumed: Resumed, *, say: Say) -> bool:
    """Give the output folder of a finished run the model that it lacks, if it was killed before it was there.

    Returns whether it did; nothing is written where the folder holds a complete model.
    """
    output_dir, step = Path(recipe.checkpoint.output_dir), resumed.record.step
    wanted = resumed.best.step if resumed.best else step
    found = final_step(output_dir)
    say(f"Nothing left to train: {resumed.finished}.")
    if found is not None:
        if found != wanted:
            say(f"{output_dir} keeps the model of step {found}; that of step {wanted} is not put in its place")
        return False
    output_dir.mkdir(parents=True, exist_ok=True)
    if recipe.keeps_best:
        settle_best(recipe, resumed=resumed.folder, step=step, known=resumed.record.best, say=say)
    source = output_dir / BEST_FOLDER if resumed.best else resumed.folder
    written = aside(output_dir, "final")
    copy_model(source, written)
    seal(written, step=wanted, source=source)
    reveal_files(written, output_dir)
    say(f"{output_dir} lacked the trained model: completed from {source.name}")
    return True


def read_state(folder: Path) -> dict[str, Any]:
    """The Trainer's state in a checkpoint. Raises DataError where it is none."""
    path = folder / STATE_NAME
    try:
        state = json.loads(path.read_bytes())
        if isinstance(state["global_step"], int) and isinstance(state["log_history"], list):
            return dict(state)
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        pass
    raise DataError("is not the state of a training run", path=path)


def _warn_of_lost_sums(record: RunRecord, folder: Path, *, say: Say) -> None:
    """Say where a checkpoint without the log's sums lies between two entries: the next cannot cover all its steps."""
    if record.unlogged is None and not any(
        "loss" in entry and entry["step"] == record.step for entry in read_state(folder)["log_history"]
    ):
        say(
            f"Warning: {folder.name} is of a version of rankllm that kept no sums of the log: its next entry averages "
            f"the steps after step {record.step} alone; training is not affected"
        )


def _finished(recipe: Recipe, folder: Path, *, record: RunRecord, best: Best | None) -> str:
    schedule, step = recipe.schedule, record.step
    total = _total_steps(schedule.max_steps, schedule.num_epochs, record=record)
    if step >= total:
        asked = f"{total} steps" if schedule.max_steps else f"{schedule.num_epochs:g} epochs, {total} steps"
        return (
            f"{folder.name} has {step} steps behind it, and the recipe asks for {asked}; to train longer, raise "
            "--max-train-steps or --num-train-epochs"
        )
    before = {change["key"]: change["old"] for change in record.changes if change["after_step"] == step}
    total_before = _total_steps(
        before.get("schedule.max_steps", schedule.max_steps),
        before.get("schedule.num_epochs", schedule.num_epochs),
        record=record,
    )
    # Another patience is asked about by itself; another metric or other dev data leave no best model to compare with.
    is_extended = total > total_before
    if best is not None and not is_extended and stopped_early(recipe, best, read_state(folder)["log_history"]):
        return (
            f"the run stopped early at step {step}, with no better model since step {best.step} (patience "
            f"{recipe.evaluation.patience}); to continue, raise --patience, or set it to 0"
        )
    return ""


def _total_steps(max_steps: int, num_epochs: float, *, record: RunRecord) -> int:
    return max_steps or math.ceil(num_epochs * record.steps_per_epoch)
