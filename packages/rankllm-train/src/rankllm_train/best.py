"""The best model of a run by its dev data: OUTPUT_DIR/best, whole or not there, with best.json beside the weights.

It is apart from the checkpoints, so rotation cannot take it, and it is its own record: a run that goes on from a
checkpoint finds there what it has to beat.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from rankllm_core.card import CARD_NAME
from rankllm_core.files import write_text
from rankllm_train.checkpoints import BEST_NAME, aside, link_model, remove, reveal
from rankllm_train.recipe import RECIPE_NAME, Recipe, load_recipe, recipe_differences

BEST_FOLDER = "best"


@dataclass(frozen=True, slots=True, kw_only=True)
class Best:
    """Which model of a run was the best."""

    step: int
    """Optimizer steps behind it."""
    metric: str
    """loss, ndcg@10 or mrr@10, on the dev data."""
    value: float

    def is_beaten_by(self, value: float) -> bool:
        """Whether a later value is better; of equals the earlier stays."""
        return value < self.value if self.metric == "loss" else value > self.value


def load_best(output_dir: Path) -> Best | None:
    """The record of a whole best model; None where there is none."""
    folder = output_dir / BEST_FOLDER
    if not (folder / CARD_NAME).exists():
        return None
    try:
        return Best(**json.loads((folder / BEST_NAME).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def save_best(best: Best, output_dir: Path, *, written: Path) -> None:
    """Give a model written aside its record and its name; the best one before it goes away."""
    with write_text(written / BEST_NAME) as stream:
        json.dump(asdict(best), stream)
    reveal(written, output_dir / BEST_FOLDER)


def evaluations_since(best: Best, log_history: Iterable[Mapping[str, object]]) -> int:
    """How many evaluations a Trainer's log has behind the best one."""
    steps = {entry["step"] for entry in log_history if "eval_loss" in entry}
    return sum(step > best.step for step in steps)  # type: ignore[operator]


def settle_best(recipe: Recipe, *, resumed: Path, step: int, say: Callable[[str], None]) -> None:
    """Before a run goes on from step `step`: let only a best model stand that the run can be compared with.

    That is one judged on the same data by the same metric, and either from before that step or, where the killed run
    had come further, from a run of the same choices. It is taken along into another output folder.
    """
    output_dir = Path(recipe.checkpoint.output_dir)
    home = output_dir if resumed.parent.resolve() == output_dir.resolve() else resumed.parent
    best = load_best(home)
    if best is None:
        return
    made_by = load_recipe(home / BEST_FOLDER / RECIPE_NAME)
    is_comparable = (made_by.data.eval, best.metric) == (recipe.data.eval, recipe.best_metric)
    free = replace(made_by, checkpoint=recipe.checkpoint, logging=recipe.logging, evaluation=recipe.evaluation)
    is_of_this_run = best.step <= step or (home == output_dir and not recipe_differences(free, recipe))
    if is_comparable and is_of_this_run:
        if home != output_dir:
            link_model(home / BEST_FOLDER, aside(output_dir, BEST_FOLDER))
            save_best(best, output_dir, written=aside(output_dir, BEST_FOLDER))
    elif home == output_dir:
        say(f"Warning: {output_dir / BEST_FOLDER}, of step {best.step} by {best.metric}, is of another run: deleted")
        remove(output_dir / BEST_FOLDER)
