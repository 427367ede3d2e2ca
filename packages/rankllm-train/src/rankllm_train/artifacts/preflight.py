"""Checks before the first training step, so that a misconfigured run fails at once and not after an hour."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rankllm_core.card import CARD_NAME
from rankllm_core.checkpoints.encoders import is_encoder
from rankllm_core.config import did_you_mean
from rankllm_core.errors import ConfigError, MissingPackageError, RankLLMError
from rankllm_core.files.manifest import MANIFEST_NAME
from rankllm_train.artifacts.best import BEST_FOLDER
from rankllm_train.artifacts.checkpoints import ASIDE, CHECKPOINT_NAMES, REPLACED, checkpoints, global_step
from rankllm_train.artifacts.curves import CURVES_NAME
from rankllm_train.artifacts.metrics_log import METRICS_NAME
from rankllm_train.artifacts.model_page import PAGE_NAME
from rankllm_train.artifacts.run_record import RECORD_NAME
from rankllm_train.recipe.recipe import RECIPE_NAME, Recipe

Say = Callable[[str], None]
_FILES = frozenset(
    {METRICS_NAME, CURVES_NAME, f".{CURVES_NAME}", PAGE_NAME, RECIPE_NAME, CARD_NAME, MANIFEST_NAME, RECORD_NAME}
    | {"config.json", "model.safetensors", "adapter_config.json", "adapter_model.safetensors", "tokenizer.json"}
)
"""Files that a run writes into its output folder; weights and tokenizers under their usual names."""


def check_complete(recipe: Recipe) -> None:
    """Raise ConfigError if a recipe lacks a required value or sets one that has no effect."""
    needed = {
        "--model-name-or-path": recipe.model.name_or_path,
        "--train-dataset-path": recipe.data.train,
        "--output-dir": recipe.checkpoint.output_dir,
    }
    missing = [option for option, value in needed.items() if not value]
    if missing:
        raise ConfigError(f"{' and '.join(missing)}: missing; set it in the recipe or on the command line")
    section = recipe.evaluation
    for name in ("metric", "patience"):
        if getattr(section, name) and not recipe.data.eval:
            raise ConfigError(f"evaluation.{name}: has no effect without dev data; add --eval-dataset-path")


def check_precision(recipe: Recipe) -> None:
    """Raise ConfigError for fp16 without a GPU, where accelerate would silently train in float32."""
    import torch

    if recipe.model.precision == "fp16" and not torch.accelerator.is_available():
        raise ConfigError(
            "model.precision: fp16 needs a GPU, but none is available; use --bf16, or --no-bf16 for float32"
        )


def check_trackers(recipe: Recipe, say: Say) -> None:
    """Raise ConfigError for an unknown experiment tracker, MissingPackageError for one that is not installed."""
    wanted = recipe.logging.report_to
    if wanted in ((), ("none",)):
        return
    from transformers.integrations.integration_utils import (
        INTEGRATION_TO_CALLBACK,
        get_available_reporting_integrations,
    )

    installed = get_available_reporting_integrations()
    if wanted == ("all",):
        if not installed:
            say("Warning: --report-to all: no tracker is installed; metrics are still written to metrics.jsonl")
        return
    for name in wanted:
        if name not in INTEGRATION_TO_CALLBACK:
            hint = did_you_mean(name, INTEGRATION_TO_CALLBACK)
            raise ConfigError(f"--report-to {name}: expected one of {', '.join(INTEGRATION_TO_CALLBACK)}{hint}")
        if name not in installed:
            raise MissingPackageError(f"--report-to {name}: {name} is not installed. Install it with: uv add {name}")


def check_metric_is_measurable(recipe: Recipe, datasets: Sequence[Any]) -> None:
    """Raise ConfigError if the metric that selects the best model cannot be measured on these data sets.

    datasets: the training data and, last, the dev data.
    """
    examples = getattr(datasets[-1], "examples", None)
    if not recipe.keeps_best or recipe.best_metric == "loss" or examples is None:
        return
    if not any(len(example.ranks) > 1 for example in examples):
        raise ConfigError(
            f"--eval-dataset-path {recipe.data.eval}: no list with two or more passages, so {recipe.best_metric} "
            "cannot be measured; use --metric-for-best-model loss"
        )
    if not all(dataset.identifier_ids for dataset in datasets):
        raise ConfigError(
            f"evaluation.metric: {recipe.best_metric} is computed from the identifiers' logits, but not every "
            "identifier is a single token here; use --metric-for-best-model loss, or --identifiers alpha"
        )


def check_recomputing(model: Any, *, recipe: Recipe) -> None:
    """Raise ConfigError if gradient checkpointing is on and the model does not support it, such as ALBERT and MPNet."""
    if recipe.batch.gradient_checkpointing and not getattr(model, "supports_gradient_checkpointing", True):
        kind = type(getattr(model, "get_base_model", lambda: model)()).__name__
        raise ConfigError(
            f"batch.gradient_checkpointing: transformers' {kind} does not support it; turn it off, and reduce "
            "batch.per_device if memory is short"
        )


def check_positions(model: Any, dataset: Any, *, recipe: Recipe) -> None:
    """Raise ConfigError if a record is longer than the model's positions."""
    positions = getattr(model.config, "max_position_embeddings", None)
    if not positions:
        return
    pair = (recipe.prompt.query_tokens or 0) + (recipe.prompt.passage_tokens or 0)
    # Pairs of an encoder are truncated to its positions, see `recipe.settled`.
    if recipe.method == "pointwise" and not is_encoder(model.config.to_dict()) and pair > positions:
        raise ConfigError(
            f"prompt.query_tokens + prompt.passage_tokens: {pair} tokens per pair, but the model has {positions} "
            "positions; use a smaller --p-max-len"
        )
    longest = max(getattr(dataset, "examples", ()), key=len, default=None)
    if longest is not None and len(longest) > positions:
        raise ConfigError(
            f"{longest.name}: {len(longest)} tokens, but the model has {positions} positions; "
            f"use --context-size {positions} with --overlong truncate or skip"
        )


def check_output_names(output_dir: Path) -> None:
    """Raise RankLLMError if a file is in the way of a folder that a run writes, or a folder in the way of a file."""
    for path in sorted(output_dir.iterdir()) if output_dir.is_dir() else ():
        is_folders = (
            path.name == BEST_FOLDER
            or path.name.startswith((ASIDE, REPLACED))
            or CHECKPOINT_NAMES.fullmatch(path.name) is not None
        )
        if is_folders and path.is_file():
            found, wanted = "file", "folder"
        elif path.name in _FILES and path.is_dir():
            found, wanted = "folder", "file"
        else:
            continue
        raise RankLLMError(
            f"--output-dir {output_dir}: {path.name} is a {found}, but a run writes a {wanted} of that name; move it, "
            "or use another folder"
        )


def earlier_results(output_dir: Path, *, resumed: Path | None, overwrite: bool, is_latest: bool = False) -> list[Path]:
    """Return the models of an earlier run that must be deleted before this one starts.

    is_latest: whether `resumed` is the newest intact checkpoint of the folder.
    Raises RankLLMError if there are any and overwriting was not requested.
    """
    if output_dir.exists() and not output_dir.is_dir():
        raise RankLLMError(f"--output-dir {output_dir}: expected a folder, found a file")
    best, found = output_dir / BEST_FOLDER, checkpoints(output_dir)
    if resumed is not None and resumed.parent.resolve() == output_dir.resolve():
        step = global_step(resumed)
        later = [checkpoint for checkpoint in found if global_step(checkpoint) > step]
        # Checkpoints later than the latest intact one are damaged, which was reported; the run writes them again.
        earlier = [] if is_latest and not overwrite else later
        what, way_out = f"which is later than {resumed.name}", "latest to resume from it"
    else:
        earlier = [*([best] if best.is_dir() else []), *found]
        what, way_out = "from an earlier run", "latest to resume it"
    if earlier and not overwrite:
        resume = f"--resume-from-checkpoint {way_out}, " if found else ""
        raise RankLLMError(
            f"--output-dir {output_dir}: contains {earlier[-1].name}, {what}; use {resume}--overwrite-output-dir to "
            "delete it, or another folder"
        )
    return earlier


def check_by_length(recipe: Recipe, *, processes: int) -> None:
    """Raise ConfigError if records cannot be batched by length because a step is a single forward pass."""
    if recipe.batch.by_length and recipe.batch.accumulation * processes == 1:
        raise ConfigError(
            "batch.by_length: a step is one forward pass of one process, so there is nothing to batch by length; "
            "set batch.accumulation to 2 or more"
        )
