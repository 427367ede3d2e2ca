"""Layers to adapt with LoRA: every name in a recipe must match layers that can be adapted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rankllm_core.config import did_you_mean
from rankllm_core.errors import ConfigError
from rankllm_train.models.heads import head_parts, is_in_head
from rankllm_train.recipe.sections import ALL_LINEAR

_WHERE = "lora.target_modules"


def check_targets(model: Any, names: Sequence[str]) -> None:
    """Raise ConfigError for a name that would have no effect, or a different one than intended.

    Names match as in PEFT: a layer's whole path, or its end after a dot. PEFT itself accepts a list if one of the names
    matches, and records the others as if they had been trained.
    """
    if tuple(names) == (ALL_LINEAR,):
        return
    if ALL_LINEAR in names:
        raise ConfigError(f"{_WHERE}: {ALL_LINEAR} means every linear layer; use it alone, or give names")
    modules = {path: module for path, module in model.named_modules() if path}
    parts = head_parts(model)
    for name in names:
        matched = [path for path in modules if path == name or path.endswith(f".{name}")]
        if not matched:
            hint = did_you_mean(name, _linear_names(model))
            raise ConfigError(f"{_WHERE}: {name!r} is not a layer of this model{hint}")
        if inside := next((path for path in matched if is_in_head(path, parts)), None):
            if all(is_in_head(path, parts) for path in matched):
                raise ConfigError(f"{_WHERE}: {name!r} is already trained in full next to the adapters; leave it out")
            raise ConfigError(
                f"{_WHERE}: {name!r} also matches {inside}, which is trained in full next to the adapters; use "
                f"{', '.join(end for end in encoder_layers(model) if f'.{end}'.endswith(f'.{name}'))}"
            )
        if odd := next((path for path in matched if not _is_adaptable(modules[path])), None):
            kind = type(modules[odd]).__name__
            inner = _linear_names(modules[odd])
            hint = f"; use {', '.join(inner)}" if inner else did_you_mean(name, _linear_names(model))
            raise ConfigError(f"{_WHERE}: {name!r} is not a linear layer ({odd} is a {kind}){hint}")
        if (other := _tied_to(model, matched)) is not None:
            raise ConfigError(
                f"{_WHERE}: {name!r} shares its weights with {other!r} in this model (tie_word_embeddings), so merging "
                "an adapter on one of them would change both; leave it out"
            )


def encoder_layers(model: Any) -> tuple[str, ...]:
    """Return every linear layer of an encoder outside its head, as the end of its path after the block number."""
    from torch import nn

    parts, ends = head_parts(model), []
    for path, module in model.named_modules():
        if isinstance(module, nn.Linear) and not is_in_head(path, parts):
            names = path.split(".")
            numbers = [place for place, name in enumerate(names) if name.isdecimal()]
            ends.append(".".join(names[numbers[-1] + 1 :] if numbers else names))
    return tuple(dict.fromkeys(ends))


def _is_adaptable(module: Any) -> bool:
    from torch import nn
    from transformers.pytorch_utils import Conv1D

    return isinstance(module, nn.Linear | Conv1D | nn.Embedding)


def _linear_names(model: Any) -> list[str]:
    """Return the last parts of the paths of linear layers, in model order, without duplicates."""
    from torch import nn
    from transformers.pytorch_utils import Conv1D

    linear = [path for path, module in model.named_modules() if isinstance(module, nn.Linear | Conv1D)]
    return list(dict.fromkeys(path.rpartition(".")[2] for path in linear))


def _tied_to(model: Any, paths: Sequence[str]) -> str | None:
    """Return the head or embeddings whose shared weights would be adapted through the other path, if any."""
    embeddings, head = model.get_input_embeddings(), model.get_output_embeddings()
    if embeddings is None or head is None or embeddings.weight is not head.weight:
        return None
    path_of = {module: path for path, module in model.named_modules()}
    tied = (path_of[embeddings], path_of[head])
    touched = [path for path in tied if path in paths]
    return next((path for path in tied if path not in touched), tied[0]) if touched else None
