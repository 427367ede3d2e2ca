"""Best model of a run on the dev data: the folder OUTPUT_DIR/best, complete or absent, with best.json next to the
weights.

It is separate from the checkpoints, so rotation never deletes it, and keeps its own record: a run resumed from a
checkpoint reads there which value it has to beat.
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
"""Values closer than this are equal: metrics are means of fractions, summed in double precision."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Best:
    """Step and metric value of a run's best model."""

    step: int
    """Number of optimizer steps taken."""
    metric: str
    """`loss`, `ndcg@10` or `mrr@10`, measured on the dev data."""
    value: float
    loss: float | None = field(default=None, compare=False)
    """Dev loss, which breaks ties of the other metrics; None if the metric is the loss itself."""

    def is_beaten_by(self, value: float, *, loss: float | None = None) -> bool:
        """Whether a later model is better. Ties go to the lower dev loss; if that is equal too, the earlier model
        stays.

        The tie-break matters once a metric has reached its maximum while the loss still falls.
        """
        if self.metric == "loss":
            return value < self.value
        if abs(value - self.value) > _TIE:
            return value > self.value
        return loss is not None and self.loss is not None and loss < self.loss


def load_best(output_dir: Path) -> Best | None:
    """Return the record of a complete best model, or None if there is none."""
    folder = output_dir / BEST_FOLDER
    if not (folder / CARD_NAME).exists():
        return None
    try:
        return Best(**json.loads((folder / BEST_NAME).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def save_best(best: Best, output_dir: Path, *, written: Path, source: Path | None = None) -> None:
    """Add the record to a model in a temporary folder and give it its final name, replacing the previous best model.

    written: the temporary folder. source: the sealed folder that the model was linked from, if any.
    """
    with write_text(written / BEST_NAME) as stream:
        json.dump(asdict(best), stream)
    seal(written, step=best.step, source=source)
    reveal(written, output_dir / BEST_FOLDER)


def evaluations_since(best: Best, log_history: Iterable[Mapping[str, object]]) -> int:
    """Return how many evaluations in a Trainer's log follow the best one."""
    steps = {entry["step"] for entry in log_history if "eval_loss" in entry}
    return sum(step > best.step for step in steps)  # type: ignore[operator]


def stopped_early(recipe: Recipe, best: Best | None, log_history: Iterable[Mapping[str, object]]) -> bool:
    """Whether the recipe's patience had run out by the end of a Trainer's log."""
    patience = recipe.evaluation.patience
    return bool(best and patience and evaluations_since(best, log_history) >= patience)


def best_at(recipe: Recipe, *, resumed: Path, step: int, known: Mapping[str, Any] | None = None) -> Best | None:
    """Return the best model that a run resumed at `step` has to beat; changes nothing on disk.

    A stored best model counts if it was chosen on the same data by the same metric, and either precedes that step or,
    where the interrupted run had got further, comes from a run with the same settings.
    known: the best model according to the checkpoint's record. It may be the checkpoint itself, if the run was killed
    before saving it as the best.
    Raises RankLLMError if the folder of the best model is damaged.
    """
    home = _home(recipe, resumed)
    best = load_best(home)
    if (home / BEST_FOLDER).is_dir():
        if damage := find_damage(home / BEST_FOLDER):
            raise RankLLMError(
                f"{home / BEST_FOLDER}: {damage}; restore it, or delete the folder to resume without "
                "the best model so far"
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
    """Before resuming at `step`, keep a stored best model only if the run can be compared with it.

    The model is linked into a new output folder if the run has one. For known and errors see `best_at`.
    """
    output_dir, home = Path(recipe.checkpoint.output_dir), _home(recipe, resumed)
    best, found = best_at(recipe, resumed=resumed, step=step, known=known), load_best(home)
    if best is None:
        if found is not None and home == output_dir:
            what = f"{output_dir / BEST_FOLDER} (step {found.step}, chosen by {found.metric})"
            say(f"Warning: {what} belongs to another run; deleted")
            remove(output_dir / BEST_FOLDER)
        if found is None and known:
            say(
                f"Warning: the best model so far, from step {known['step']}, is missing; "
                "the best is now chosen among later models"
            )
        return
    source = home / BEST_FOLDER if best == found else resumed
    if source != output_dir / BEST_FOLDER:
        link_model(source, aside(output_dir, BEST_FOLDER))
        save_best(best, output_dir, written=aside(output_dir, BEST_FOLDER), source=source)


def _home(recipe: Recipe, resumed: Path) -> Path:
    """Return the output folder of the run that wrote a checkpoint."""
    output_dir = Path(recipe.checkpoint.output_dir)
    return output_dir if resumed.parent.resolve() == output_dir.resolve() else resumed.parent


def _is_comparable(recipe: Recipe, best: Best, *, home: Path, step: int) -> bool:
    if best.metric != recipe.best_metric or not _is_same_dev(recipe, home / BEST_FOLDER):
        return False
    made_by = load_recipe(home / BEST_FOLDER / RECIPE_NAME)
    # Data sets are compared by content, not by name.
    made_by = replace(made_by, data=replace(made_by.data, train=recipe.data.train, eval=recipe.data.eval))
    free = replace(made_by, checkpoint=recipe.checkpoint, logging=recipe.logging, evaluation=recipe.evaluation)
    is_own_folder = home == Path(recipe.checkpoint.output_dir)
    return best.step <= step or (is_own_folder and not recipe_differences(free, recipe))


def _is_same_dev(recipe: Recipe, folder: Path) -> bool:
    """Whether the model in a folder was evaluated on the recipe's dev data, by its name or, after a move, its
    content."""
    if load_recipe(folder / RECIPE_NAME).data.eval == recipe.data.eval:
        return True
    try:
        known = load_record(folder).sources.get("data.eval")
    except DataError:
        return False
    return known is not None and known == data_identity(recipe.data.eval)
