"""Fine-tune LLM rerankers: RankZephyr, FIRST and RankLLaMA."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rankllm_core.errors import RankLLMError
    from rankllm_train.api import TrainingResult, train
    from rankllm_train.artifacts.best import Best
    from rankllm_train.recipe.recipe import Recipe, load_recipe, recipe_names

__all__ = ["Best", "RankLLMError", "Recipe", "TrainingResult", "load_recipe", "recipe_names", "train"]

__version__ = "0.1.0"

_MODULE_OF = {
    "RankLLMError": "rankllm_core.errors",
    "Best": "rankllm_train.artifacts.best",
    **dict.fromkeys(("Recipe", "load_recipe", "recipe_names"), "rankllm_train.recipe.recipe"),
    **dict.fromkeys(("TrainingResult", "train"), "rankllm_train.api"),
}


def __getattr__(name: str) -> object:
    """Import a public name when it is first used, so that `--help` and other programs wait for nothing."""
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_MODULE_OF[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
