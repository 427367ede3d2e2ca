"""Rules for resuming with a changed recipe: each value is either applied from the next step on, or refused.

There is nothing in between, so every recorded value was in effect. Values held in the optimizer or scheduler state are
updated there (`optimizer_settings`); values that decide the order of the data or the meaning of the weights cannot
change.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from rankllm_core.card import Card, load_card
from rankllm_core.errors import ConfigError, RankLLMError
from rankllm_train.artifacts.run_record import RunRecord, load_record
from rankllm_train.recipe.recipe import RECIPE_NAME, Recipe, load_recipe, recipe_differences

_ORDER = "it would change which records are used or their order"
_PROMPT = "the model would be trained on two kinds of prompts, but its card records one"
_SHAPE = "it would change the meaning of the trained weights"
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
    "batch.deepspeed": "its optimizer state can only be loaded with the same configuration",
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
    "lora.start_from": "it applies only at the start of a run",
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
"""Applied from the first resumed step on; the change is reported and recorded in training_run.json. The records of a
step may be split differently into forward passes, but their number may not change, see `check_batch`."""
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
"""Applied as well; they change no training step."""
BY_CONTENT = ("data.train", "model.name_or_path", "prompt.template")
"""Names that may change as long as the content they refer to does not, see `check_sources` and `check_card`."""

_OPTIONS = {"data.train": "--train-dataset-path", "data.eval": "--eval-dataset-path"}


def check_changes(recipe: Recipe, *, resumed: Path, say: Callable[[str], None]) -> RunRecord:
    """Compare a recipe with a checkpoint's, and report what changes from the next step on.

    Returns the checkpoint's record with these changes added. Raises ConfigError if a changed value cannot be applied.
    """
    record = load_record(resumed)
    differences = recipe_differences(load_recipe(resumed / RECIPE_NAME), recipe)
    refused = {key: REFUSED.get(key, _SHAPE) for key in differences if key not in (*APPLIED, *HARMLESS, *BY_CONTENT)}
    if refused:
        told = "; ".join(
            f"{key} was {differences[key][0]!r} and is now {differences[key][1]!r}: {why}"
            for key, why in refused.items()
        )
        raise ConfigError(
            f"--resume-from-checkpoint {resumed.name}: {told}. Restore the checkpoint's value, or start a new run "
            "in another --output-dir"
        )
    changes = []
    for key, (old, new) in differences.items():
        if key in APPLIED:
            say(
                f"Warning: {key} was {old!r} in {resumed.name} and is now {new!r}; "
                f"the new value applies from step {record.step + 1} on"
            )
            changes.append({"after_step": record.step, "key": key, "old": old, "new": new})
    return replace(record, changes=(*record.changes, *changes))


def check_sources(record: RunRecord, recipe: Recipe, *, resumed: Path, now: Mapping[str, str]) -> None:
    """Raise RankLLMError if the data or the base model differ from those the checkpoint was trained on.

    now: identities as returned by `source_identities`. Dev data under another name counts as other dev data and is
    allowed.
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
            way_out = "restore it, or evaluate on the new data under another name"
        else:
            way_out = "restore it, or start a new run in another --output-dir"
        old = _named(before, key)
        differs = f"does not match {old}, which {resumed.name} was trained on" if old != name else ""
        raise RankLLMError(
            f"{_OPTIONS.get(key, '--model-name-or-path')} {name}: "
            f"{differs or f'has changed since {resumed.name} was written'} "
            f"({_short(known)} then, {_short(identity)} now); {way_out}"
        )


def check_card(card: Card, *, resumed: Path) -> None:
    """Raise ConfigError if prompts or answers differ from the checkpoint's, for instance after a template was
    edited."""
    before = load_card(resumed)
    if before is None:
        return
    old, new = _without_names(before), _without_names(card)
    for key in (*old, *(key for key in new if key not in old)):
        if old.get(key) != new.get(key):
            raise ConfigError(
                f"--resume-from-checkpoint {resumed.name}: the card's {key} differs from the checkpoint's "
                f"(was {str(old.get(key))[:80]}, is now {str(new.get(key))[:80]}): {_PROMPT}. Restore the prompt "
                "template, or start a new run in another --output-dir"
            )


def check_batch(record: RunRecord, recipe: Recipe, *, resumed: Path, processes: int) -> None:
    """Raise ConfigError if the number of records per step differs from the checkpoint's.

    The position in the data follows from the number of steps taken: with another step size, records would be skipped or
    repeated.
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
        f"--resume-from-checkpoint {resumed.name}: expected {record.records_per_step} records per step, found {found} "
        f"= {each * processes}; {hint}"
    )


def _without_names(card: Card) -> dict[str, object]:
    """Return a card's values without template name, base model and probe.

    The card holds the template's text, the base is compared by content, and the probe belongs to the weights.
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
