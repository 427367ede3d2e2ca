"""Fine-tune LLM rerankers: RankZephyr, FIRST and RankLLaMA.

The names below are loaded when they are first used: `import rankllm_train` imports nothing else, and torch is imported
where a run begins.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rankllm_train.api import TrainingResult, train
    from rankllm_train.artifacts.best import Best
    from rankllm_train.recipe.recipe import Recipe, load_recipe, recipe_names

__version__ = "0.1.0"
__all__ = ["Best", "Recipe", "TrainingResult", "load_recipe", "recipe_names", "train"]

_HOMES = {
    "Best": "rankllm_train.artifacts.best",
    "Recipe": "rankllm_train.recipe.recipe",
    "TrainingResult": "rankllm_train.api",
    "load_recipe": "rankllm_train.recipe.recipe",
    "recipe_names": "rankllm_train.recipe.recipe",
    "train": "rankllm_train.api",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
