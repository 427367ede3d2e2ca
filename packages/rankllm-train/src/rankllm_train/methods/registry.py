"""Training data by method name."""

from __future__ import annotations

import importlib
from typing import Any

from rankllm_core.errors import ConfigError
from rankllm_train.methods.training_data import Track, TrainingData
from rankllm_train.recipe.recipe import Recipe


def prepare(recipe: Recipe, tokenizer: Any, *, track: Track = iter) -> TrainingData:
    """Read, check and encode the data of a recipe. Raises RankLLMError naming file, line and record."""
    # A method is a module of that name with a function training_data, and an entry in recipe.sections.OBJECTIVES. It
    # imports torch, and is therefore imported only when it is trained.
    method = importlib.import_module(f"rankllm_train.methods.{recipe.method}")
    data: TrainingData = method.training_data(recipe, tokenizer, track=track)
    return data


def prepare_dev(recipe: Recipe, tokenizer: Any, data: TrainingData, *, track: Track = iter) -> TrainingData:
    """Prepare the dev data like the training data. Raises ConfigError if its identifiers differ."""
    dev = prepare(recipe.changed({"data.train": recipe.data.eval, "data.max_records": 0}), tokenizer, track=track)
    found, wanted = getattr(dev.card, "identifiers", None), getattr(data.card, "identifiers", None)
    if found != wanted:
        raise ConfigError(
            f"--eval-dataset-path: has {found} identifiers, but the training data has {wanted} ones; "
            f"use --identifiers {wanted}"
        )
    return dev
