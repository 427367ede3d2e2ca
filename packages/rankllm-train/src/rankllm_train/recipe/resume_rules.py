"""What each choice of a recipe may become when a run is resumed: used from the next step on, or refused.

Nothing in between: a value that is recorded was used. What lives in the optimizer's or the schedule's state is put in
force there (`optimizer_settings`); what decides which records a step has, or what trained weights mean, cannot change.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from rankllm_core.card import Card, load_card
from rankllm_core.errors import ConfigError, RankLLMError
from rankllm_train.artifacts.run_record import RunRecord, load_record
from rankllm_train.recipe.recipe import RECIPE_NAME, Recipe, load_recipe, recipe_differences

_ORDER = "the data would be read in another order, or other data"
_PROMPT = "the model would be trained on two kinds of prompts, and its card names one"
_SHAPE = "the trained weights would mean something else"
_LOSS = "the card and the encoded records depend on it"

REFUSED = {
    "method": _LOSS,
    "objective.name": _LOSS,
    "data.identifiers": _ORDER,
    "data.max_records": _ORDER,
    "data.overlong": _ORDER,
    "data.bad_records": _ORDER,
    "data.group_size": _ORDER,
    "data.positive_no_shuffle": _ORDER,
    "data.negative_no_shuffle": _ORDER,
    "schedule.seed": _ORDER,
    "batch.by_length": _ORDER,
    "batch.deepspeed": "its optimizer state can be read in the same configuration alone",
    "prompt.bos": _PROMPT,
    "prompt.context_tokens": _PROMPT,
    "prompt.max_passage_words": _PROMPT,
    "prompt.window_size": _PROMPT,
    "prompt.stride": _PROMPT,
    "prompt.head": _PROMPT,
    "prompt.instruction": _PROMPT,
    "prompt.query_tokens": _PROMPT,
    "prompt.passage_tokens": _PROMPT,
    "prompt.append_eos": _PROMPT,
    "lora.enabled": _SHAPE,
    "lora.r": _SHAPE,
    "lora.alpha": _SHAPE,
    "lora.target_modules": _SHAPE,
    "lora.start_from": "it was used when the run began, and has no effect now",
}
"""Key -> why it cannot change."""
APPLIED = (
    "model.precision",
    "model.attn_implementation",
    "objective.ranking_loss",
    "objective.weighted",
    "objective.ranking_weight",
    "objective.teacher_temperature",
    "objective.student_temperature",
    "objective.label_weight",
    "lora.dropout",
    "optim.learning_rate",
    "optim.weight_decay",
    "optim.adam_beta1",
    "optim.adam_beta2",
    "optim.adam_epsilon",
    "optim.max_grad_norm",
    "optim.noisy_embedding_alpha",
    "schedule.num_epochs",
    "schedule.max_steps",
    "schedule.lr_scheduler",
    "schedule.warmup_steps",
    "schedule.warmup_ratio",
    "batch.per_device",
    "batch.accumulation",
    "data.eval",
    "evaluation.every",
    "evaluation.metric",
    "evaluation.patience",
    "evaluation.keep_best",
)
"""Used from the first resumed step on; the change is told, and kept in training_run.json. How a step's records are
split over forward passes may change, their number may not, see `check_batch`."""
HARMLESS = (
    "description",
    "model.trust_remote_code",
    "batch.gradient_checkpointing",
    "checkpoint.output_dir",
    "checkpoint.every",
    "checkpoint.keep",
    "checkpoint.resumable",
    "evaluation.per_device",
    "logging.every_steps",
    "logging.report_to",
    "logging.run_name",
)
"""Used as well, and changes no step."""
BY_CONTENT = ("data.train", "model.name_or_path", "prompt.template")
"""A name that may change as long as what it names is the same, see `check_sources` and `check_card`."""

_OPTIONS = {"data.train": "--train-dataset-path", "data.eval": "--eval-dataset-path"}


def check_changes(recipe: Recipe, *, resumed: Path, say: Callable[[str], None]) -> RunRecord:
    """Compare a recipe with a checkpoint's, and say what is used differently from the next step on.

    Returns the checkpoint's record with these changes in it. Raises ConfigError where a changed value cannot be used.
    """
    record = load_record(resumed)
    differences = recipe_differences(load_recipe(resumed / RECIPE_NAME), recipe)
    refused = {key: REFUSED.get(key, _SHAPE) for key in differences if key not in (*APPLIED, *HARMLESS, *BY_CONTENT)}
    if refused:
        told = "; ".join(
            f"{key} was {differences[key][0]!r} and is {differences[key][1]!r} now: {why}"
            for key, why in refused.items()
        )
        raise ConfigError(
            f"--resume-from-checkpoint {resumed.name}: {told}. Resume with the checkpoint's value, or start a new run "
            "in another --output-dir"
        )
    changes = []
    for key, (old, new) in differences.items():
        if key in APPLIED:
            say(f"Warning: {key} was {old!r} in {resumed.name} and is {new!r} now; used from step {record.step + 1} on")
            changes.append({"after_step": record.step, "key": key, "old": old, "new": new})
    return replace(record, changes=(*record.changes, *changes))


def check_sources(record: RunRecord, recipe: Recipe, *, resumed: Path, now: Mapping[str, str]) -> None:
    """Raise RankLLMError where data or base model are not those that the checkpoint was trained on.

    now: identities, as `source_identities` gives them. Dev data under another name is other dev data, and allowed.
    """
    before = load_recipe(resumed / RECIPE_NAME)
    for key, identity in now.items():
        known = record.sources.get(key)
        if known is None or known == identity:
            continue
        name = recipe.data.eval if key == "data.eval" else _named(recipe, key)
        if key == "data.eval":
            if before.data.eval != name:
                continue
            way_out = "restore it, or measure on the new data under another name"
        else:
            way_out = "restore it, or start a new run in another --output-dir"
        was = "" if _named(before, key) == name else f" {_named(before, key)} was, when"
        raise RankLLMError(
            f"{_OPTIONS.get(key, '--model-name-or-path')} {name}: is not what{was or ' it was when'} {resumed.name} "
            f"was written ({_short(known)} then, {_short(identity)} now); {way_out}"
        )


def check_card(card: Card, *, resumed: Path) -> None:
    """Raise ConfigError where prompts or answers are not the checkpoint's: a template file may have been edited."""
    before = load_card(resumed)
    if before is None:
        return
    old, new = _without_names(before), _without_names(card)
    for key in (*old, *(key for key in new if key not in old)):
        if old.get(key) != new.get(key):
            raise ConfigError(
                f"--resume-from-checkpoint {resumed.name}: the card's {key} is not the checkpoint's "
                f"({str(old.get(key))[:80]} there, {str(new.get(key))[:80]} now): {_PROMPT}. Restore the prompt "
                "template, or start a new run in another --output-dir"
            )


def check_batch(record: RunRecord, recipe: Recipe, *, resumed: Path, processes: int) -> None:
    """Raise ConfigError where a step has another number of records than the checkpoint's had.

    Where in the data the run is follows from the steps behind it: with other steps, records would be left out or
    trained on twice.
    """
    each = recipe.batch.per_device * recipe.batch.accumulation
    if record.records_per_step in (0, each * processes):
        return
    fits = record.records_per_step % (recipe.batch.per_device * processes) == 0
    value = record.records_per_step // (recipe.batch.per_device * processes)
    hint = f"use --gradient-accumulation-steps {value}" if fits else "change --per-device-train-batch-size"
    found = (
        f"{processes} process{'es' if processes > 1 else ''} x {recipe.batch.per_device} x {recipe.batch.accumulation}"
    )
    raise ConfigError(
        f"--resume-from-checkpoint {resumed.name}: its steps have {record.records_per_step} records, here {found} = "
        f"{each * processes}; {hint}"
    )


def _without_names(card: Card) -> dict[str, object]:
    """A card without the name of its template, whose words it holds, and of its base, whose content is compared.

    Nor is its probe compared, which is of the weights.
    """
    values = replace(card, probe=None).to_dict()
    template = values.pop("template")
    values.pop("base_model", None)
    inner = template if isinstance(template, dict) else {}
    return values | {"template": {key: value for key, value in inner.items() if key != "name"}}


def _named(recipe: Recipe, key: str) -> str:
    section, _, name = key.partition(".")
    return str(getattr(getattr(recipe, section), name))


def _short(identity: str) -> str:
    return identity[:19] if identity.startswith("sha256 ") else f"{identity.removeprefix('name ')}, not a file,"
