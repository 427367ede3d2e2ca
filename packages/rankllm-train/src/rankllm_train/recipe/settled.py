"""Recipe values that depend on the base model: prompt format, length limits and the layers that LoRA adapts.

Encoders are trained as cross-encoders, on pairs in the tokenizer's own format, as at inference.
"""

from __future__ import annotations

from collections.abc import Mapping

from rankllm_core.checkpoints.encoders import (
    architecture,
    encoder_positions,
    has_classification_head,
    is_encoder,
    n_labels,
    pair_limits,
)
from rankllm_core.errors import ConfigError, ContractError
from rankllm_core.prompts.pairs import PairLimits
from rankllm_core.prompts.template import pointwise_template
from rankllm_train.recipe.recipe import Recipe
from rankllm_train.recipe.sections import ALL_LINEAR, LoraSection, PromptSection


def settle(recipe: Recipe, config: Mapping[str, object]) -> Recipe:
    """Return the recipe with every value filled in that depends on the base model. config: the model's `config.json`.

    Raises ConfigError if the recipe requires an encoder to do what only a decoder can, ContractError if an encoder's
    head has several labels.
    """
    limits = PairLimits()
    if not is_encoder(config):
        return _with_limits(recipe, limits.query_tokens, limits.passage_tokens)
    what = f"{recipe.model.name_or_path} is an encoder ({architecture(config)})"
    _check_method(recipe, what)
    if has_classification_head(config) and (labels := n_labels(config)) != 1:
        raise ContractError(
            f"{recipe.model.name_or_path}: its head has {labels} labels, expected 1 score per pair; start from the "
            "model that it was fine-tuned from"
        )
    positions = encoder_positions(config)
    settled = _with_limits(recipe, *pair_limits(positions))
    _check_limits(settled.prompt, positions, name=recipe.model.name_or_path)
    # The default names are those of decoder layers.
    targets = recipe.lora.target_modules
    return settled.changed(
        {
            "prompt.template": recipe.prompt.template or "pair",
            "lora.target_modules": (ALL_LINEAR,) if targets == LoraSection().target_modules else targets,
        }
    )


def _with_limits(recipe: Recipe, query_tokens: int, passage_tokens: int) -> Recipe:
    prompt = recipe.prompt
    return recipe.changed(
        {
            "prompt.query_tokens": query_tokens if prompt.query_tokens is None else prompt.query_tokens,
            "prompt.passage_tokens": passage_tokens if prompt.passage_tokens is None else prompt.passage_tokens,
        }
    )


def _check_method(recipe: Recipe, what: str) -> None:
    """Raise ConfigError for settings that an encoder does not support. what: the encoder, for messages."""
    prompt = recipe.prompt
    if recipe.method != "pointwise":
        raise ConfigError(f"train {recipe.method}: {what}, which scores one passage at a time; use train pointwise")
    if prompt.head != "sequence-classification":
        raise ConfigError(f"prompt.head {prompt.head}: {what}, which has no next token to read; leave out --head")
    if prompt.template:
        template = pointwise_template(prompt.template, where="prompt.template: ")
        if template.layout != "pair":
            raise ConfigError(
                f"prompt.template {template.name}: {what}, which reads pairs in its tokenizer's own format; use "
                "--prompt-template-path pair"
            )
    if prompt.bos != "single":
        raise ConfigError(f"prompt.bos {prompt.bos}: {what}, whose tokenizer adds the special tokens; leave out --bos")
    if prompt.append_eos:
        raise ConfigError(f"prompt.append_eos: {what}, whose tokenizer adds the special tokens; leave out --append-eos")


def _check_limits(prompt: PromptSection, positions: int, *, name: str) -> None:
    """Raise ConfigError if a pair may exceed the encoder's positions. The passage is truncated in favour of the
    query."""
    query_tokens, passage_tokens = prompt.query_tokens or 0, prompt.passage_tokens or 0
    if max(query_tokens + 1, passage_tokens) > positions:
        raise ConfigError(
            f"pairs of {query_tokens} + {passage_tokens} tokens: {name} has {positions} positions; use a smaller "
            "--q-max-len or --p-max-len"
        )
