"""What must hold before the first step, so that nobody finds out after an hour."""

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
"""What a run writes into its output folder; names of weights and tokenizers are the usual ones."""


def check_complete(recipe: Recipe) -> None:
    """Raise ConfigError where a recipe leaves open what cannot be, or says what would have no effect."""
    needed = {
        "--model-name-or-path": recipe.model.name_or_path,
        "--train-dataset-path": recipe.data.train,
        "--output-dir": recipe.checkpoint.output_dir,
    }
    missing = [option for option, value in needed.items() if not value]
    if missing:
        raise ConfigError(f"{' and '.join(missing)}: missing; neither the recipe nor the command line gives it")
    section = recipe.evaluation
    for name in ("metric", "patience"):
        if getattr(section, name) and not recipe.data.eval:
            raise ConfigError(f"evaluation.{name}: has no effect without dev data; give --eval-dataset-path")


def check_precision(recipe: Recipe) -> None:
    """Raise ConfigError for fp16 where there is no GPU: accelerate would train in float32 and say nothing."""
    import torch

    if recipe.model.precision == "fp16" and not torch.accelerator.is_available():
        raise ConfigError("model.precision: fp16 needs a GPU, and none is here; use --bf16, or --no-bf16 for float32")


def check_trackers(recipe: Recipe, say: Say) -> None:
    """Raise ConfigError for a tracker that nobody knows, MissingPackageError for one that is not installed."""
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
            say("Warning: --report-to all: no tracker is installed; metrics.jsonl is written in any case")
        return
    for name in wanted:
        if name not in INTEGRATION_TO_CALLBACK:
            hint = did_you_mean(name, INTEGRATION_TO_CALLBACK)
            raise ConfigError(f"--report-to {name}: expected one of {', '.join(INTEGRATION_TO_CALLBACK)}{hint}")
        if name not in installed:
            raise MissingPackageError(f"--report-to {name}: {name} is not installed. Install it with: uv add {name}")


def check_yardstick(recipe: Recipe, datasets: Sequence[Any]) -> None:
    """Raise ConfigError where the best model is to be chosen by an order, and none can be measured.

    datasets: the training data and, last, the dev data.
    """
    examples = getattr(datasets[-1], "examples", None)
    if not recipe.keeps_best or recipe.best_metric == "loss" or examples is None:
        return
    if not any(len(example.ranks) > 1 for example in examples):
        raise ConfigError(
            f"--eval-dataset-path {recipe.data.eval}: no list of two passages or more, so {recipe.best_metric} cannot "
            "be measured; use --metric-for-best-model loss"
        )
    if not all(dataset.identifier_ids for dataset in datasets):
        raise ConfigError(
            f"evaluation.metric: {recipe.best_metric} is read from the identifiers' logits, and here not every "
            "identifier is a token of its own; use --metric-for-best-model loss, or --identifiers alpha"
        )


def check_recomputing(model: Any, *, recipe: Recipe) -> None:
    """Raise ConfigError where activations are to be recomputed and the model cannot: ALBERT and MPNet, for two."""
    if recipe.batch.gradient_checkpointing and not getattr(model, "supports_gradient_checkpointing", True):
        kind = type(getattr(model, "get_base_model", lambda: model)()).__name__
        raise ConfigError(
            f"batch.gradient_checkpointing: transformers' {kind} does not support it; leave it out, and use a smaller "
            "batch.per_device where memory is short"
        )


def check_positions(model: Any, dataset: Any, *, recipe: Recipe) -> None:
    """Raise ConfigError where a record is longer than the model has positions."""
    positions = getattr(model.config, "max_position_embeddings", None)
    if not positions:
        return
    pair = (recipe.prompt.query_tokens or 0) + (recipe.prompt.passage_tokens or 0)
    # An encoder's pairs are cut where its positions end, see `recipe.settled`.
    if recipe.method == "pointwise" and not is_encoder(model.config.to_dict()) and pair > positions:
        raise ConfigError(
            f"prompt.query_tokens + prompt.passage_tokens: {pair} tokens a pair, the model has {positions} positions; "
            "use a smaller --p-max-len"
        )
    longest = max(getattr(dataset, "examples", ()), key=len, default=None)
    if longest is not None and len(longest) > positions:
        raise ConfigError(
            f"{longest.name}: {len(longest)} tokens, the model has {positions} positions; "
            f"use --context-size {positions} with --overlong truncate or skip"
        )


def check_output_names(output_dir: Path) -> None:
    """Raise RankLLMError for a file where a run has a folder, and for a folder where it writes a file."""
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
            f"--output-dir {output_dir}: {path.name} is a {found}, and a run has a {wanted} of that name; move it, or "
            "use another folder"
        )


def earlier_results(output_dir: Path, *, resumed: Path | None, overwrite: bool, is_latest: bool = False) -> list[Path]:
    """The models of an earlier run that have to go before this one begins.

    is_latest: whether `resumed` is the newest intact checkpoint of the folder.
    Raises RankLLMError where there are some and overwriting was not asked for.
    """
    if output_dir.exists() and not output_dir.is_dir():
        raise RankLLMError(f"--output-dir {output_dir}: is a file, expected a folder")
    best, found = output_dir / BEST_FOLDER, checkpoints(output_dir)
    if resumed is not None and resumed.parent.resolve() == output_dir.resolve():
        step = global_step(resumed)
        later = [checkpoint for checkpoint in found if global_step(checkpoint) > step]
        # Later ones than the latest that is intact are damaged, which was told: the run writes them again.
        earlier = [] if is_latest and not overwrite else later
        what, way_out = f"which is later than {resumed.name}", "latest to go on from there"
    else:
        earlier = [*([best] if best.is_dir() else []), *found]
        what, way_out = "of an earlier run", "latest to go on"
    if earlier and not overwrite:
        go_on = f"--resume-from-checkpoint {way_out}, " if found else ""
        raise RankLLMError(
            f"--output-dir {output_dir}: holds {earlier[-1].name}, {what}; use {go_on}--overwrite-output-dir to delete "
            "it, or another folder"
        )
    return earlier


def check_by_length(recipe: Recipe, *, processes: int) -> None:
    """Raise ConfigError where records cannot be put together by length: a step is one forward pass."""
    if recipe.batch.by_length and recipe.batch.accumulation * processes == 1:
        raise ConfigError(
            "batch.by_length: a step is one forward pass of one process, so nothing can be cut by length; "
            "set batch.accumulation to 2 or more"
        )
