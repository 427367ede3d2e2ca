"""The best model of a run by its dev data: OUTPUT_DIR/best, whole or not there, with best.json beside the weights.

It is apart from the checkpoints, so rotation cannot take it, and it is its own record: a run that goes on from a
checkpoint finds there what it has to beat.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from rankllm_core.card import CARD_NAME
from rankllm_core.errors import DataError, RankLLMError
from rankllm_core.files import write_text
from rankllm_core.files.manifest import find_damage
from rankllm_train.artifacts.checkpoints import BEST_NAME, aside, link_model, remove, reveal, seal
from rankllm_train.artifacts.run_record import load_record
from rankllm_train.artifacts.source_identity import data_identity
from rankllm_train.recipe.recipe import RECIPE_NAME, Recipe, load_recipe, recipe_differences

BEST_FOLDER = "best"
_TIE = 1e-9
"""Metrics no further apart are equal: they are means of fractions, summed in doubles."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Best:
    """Which model of a run was the best."""

    step: int
    """Optimizer steps behind it."""
    metric: str
    """loss, ndcg@10 or mrr@10, on the dev data."""
    value: float
    loss: float | None = field(default=None, compare=False)
    """Dev loss, which decides between equal values of the other metrics; None where it is the metric itself."""

    def is_beaten_by(self, value: float, *, loss: float | None = None) -> bool:
        """Whether a later model is better. Of equal ones the lower dev loss wins, and of equal losses the earlier.

        A metric at its maximum tells nothing more, while the loss still falls.
        """
        if self.metric == "loss":
            return value < self.value
        if abs(value - self.value) > _TIE:
            return value > self.value
        return loss is not None and self.loss is not None and loss < self.loss


def load_best(output_dir: Path) -> Best | None:
    """The record of a whole best model; None where there is none."""
    folder = output_dir / BEST_FOLDER
    if not (folder / CARD_NAME).exists():
        return None
    try:
        return Best(**json.loads((folder / BEST_NAME).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def save_best(best: Best, output_dir: Path, *, written: Path, source: Path | None = None) -> None:
    """Complete a model written aside with its record, and give it its name; the best one before it goes away.

    source: the sealed folder that the model was linked from, if any.
    """
    with write_text(written / BEST_NAME) as stream:
        json.dump(asdict(best), stream)
    seal(written, step=best.step, source=source)
    reveal(written, output_dir / BEST_FOLDER)


def evaluations_since(best: Best, log_history: Iterable[Mapping[str, object]]) -> int:
    """How many evaluations a Trainer's log has behind the best one."""
    steps = {entry["step"] for entry in log_history if "eval_loss" in entry}
    return sum(step > best.step for step in steps)  # type: ignore[operator]


def stopped_early(recipe: Recipe, best: Best | None, log_history: Iterable[Mapping[str, object]]) -> bool:
    """Whether the recipe's patience had run out where a Trainer's log ends."""
    patience = recipe.evaluation.patience
    return bool(best and patience and evaluations_since(best, log_history) >= patience)


def best_at(recipe: Recipe, *, resumed: Path, step: int, known: Mapping[str, Any] | None = None) -> Best | None:
    """The best model that a run resumed at `step` has to beat; nothing on the disk is changed.

    That is one judged on the same data by the same metric, and either from before that step or, where the interrupted
    run had come further, from a run of the same choices. known: the best model as the checkpoint's record says it,
    which may be the checkpoint itself, where the run was killed before it could say so.
    Raises RankLLMError where the folder of the best model is damaged.
    """
    home = _home(recipe, resumed)
    best = load_best(home)
    if (home / BEST_FOLDER).is_dir():
        if damage := find_damage(home / BEST_FOLDER):
            raise RankLLMError(
                f"{home / BEST_FOLDER}: {damage}; restore it, or delete the folder to resume without the best model "
                "so far"
            )
        if best is not None and not _is_comparable(recipe, best, home=home, step=step):
            return None
    if known and known["step"] == step and known["metric"] == recipe.best_metric and _is_same_dev(recipe, resumed):
        own = Best(**known)
        return own if best is None or best.step < step else best
    return best


def settle_best(
    recipe: Recipe,
    *,
    resumed: Path,
    step: int,
    say: Callable[[str], None],
    known: Mapping[str, Any] | None = None,
) -> None:
    """Before a run is resumed at `step`: let only a best model stand that the run can be compared with.

    It is taken along into another output folder. known, and errors: see `best_at`.
    """
    output_dir, home = Path(recipe.checkpoint.output_dir), _home(recipe, resumed)
    best, found = best_at(recipe, resumed=resumed, step=step, known=known), load_best(home)
    if best is None:
        if found is not None and home == output_dir:
            what = f"{output_dir / BEST_FOLDER}, of step {found.step} by {found.metric}"
            say(f"Warning: {what}, is of another run: deleted")
            remove(output_dir / BEST_FOLDER)
        if found is None and known:
            say(f"Warning: the best model so far, of step {known['step']}, is missing; it is chosen among later ones")
        return
    source = home / BEST_FOLDER if best == found else resumed
    if source != output_dir / BEST_FOLDER:
        link_model(source, aside(output_dir, BEST_FOLDER))
        save_best(best, output_dir, written=aside(output_dir, BEST_FOLDER), source=source)


def _home(recipe: Recipe, resumed: Path) -> Path:
    """The output folder of the run that wrote a checkpoint."""
    output_dir = Path(recipe.checkpoint.output_dir)
    return output_dir if resumed.parent.resolve() == output_dir.resolve() else resumed.parent


def _is_comparable(recipe: Recipe, best: Best, *, home: Path, step: int) -> bool:
    if best.metric != recipe.best_metric or not _is_same_dev(recipe, home / BEST_FOLDER):
        return False
    made_by = load_recipe(home / BEST_FOLDER / RECIPE_NAME)
    # What these name is compared by content.
    made_by = replace(made_by, data=replace(made_by.data, train=recipe.data.train, eval=recipe.data.eval))
    free = replace(made_by, checkpoint=recipe.checkpoint, logging=recipe.logging, evaluation=recipe.evaluation)
    is_own_folder = home == Path(recipe.checkpoint.output_dir)
    return best.step <= step or (is_own_folder and not recipe_differences(free, recipe))


def _is_same_dev(recipe: Recipe, folder: Path) -> bool:
    """Whether the model in a folder was judged on the recipe's dev data: of that name or, where it moved, content."""
    if load_recipe(folder / RECIPE_NAME).data.eval == recipe.data.eval:
        return True
    try:
        known = load_record(folder).sources.get("data.eval")
    except DataError:
        return False
    return known is not None and known == data_identity(recipe.data.eval)
