"""Fine-tune LLM rerankers: RankZephyr, FIRST and RankLLaMA."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rankllm_core.public_names import lazy_names

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

__getattr__, __dir__ = lazy_names(__name__, _MODULE_OF)
