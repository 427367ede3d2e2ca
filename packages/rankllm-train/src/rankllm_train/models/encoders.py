"""Encoders with a single-score classification head: loading with a new or existing head, and scoring of padded pairs.

Shapes: B pairs, T tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from rankllm_core.checkpoints.encoders import has_classification_head
from rankllm_core.checkpoints.head_modules import module_head
from rankllm_core.errors import ConfigError, ContractError, first_line
from rankllm_core.nn.model_parts import backbone_of
from rankllm_train.models.heads import head_parts, is_in_head, save_by_present_names

_PROBE_TOKENS = 5


def load_encoder(
    name: str, config: Mapping[str, object], options: Mapping[str, Any], *, say: Callable[[str], None]
) -> Any:
    """Load an encoder with a single-score head. Only weights of the head may be missing; they are initialized randomly.

    name: folder or hub name. config: its `config.json`. options: for `from_pretrained`. say: called with a note on new
    weights. Raises ContractError if weights of its layers, or of a head that its configuration declares, are missing.
    """
    from transformers import AutoModelForSequenceClassification

    try:
        model, report = AutoModelForSequenceClassification.from_pretrained(name, num_labels=1, **options)
    except (ValueError, ImportError) as error:
        if "attn_implementation" in options and "attention" in str(error):
            asked = options["attn_implementation"]
            raise ConfigError(
                f"model.attn_implementation: {asked}: {first_line(error, with_kind=False)}; use auto"
            ) from None
        raise
    parts, missing = head_parts(model), sorted(report["missing_keys"])
    lost = [key for key in missing if has_classification_head(config) or not is_in_head(key, parts)]
    if lost:
        raise ContractError(f"{name}: the checkpoint lacks {len(lost)} of the model's weights, such as {lost[0]}")
    save_by_present_names(model)
    if missing:
        new = dict.fromkeys(key.rpartition(".")[0] for key in missing)
        say(f"{name} has no score head; initialized new weights at random: {', '.join(new)}")
    return model


def check_module_head(folder: Path, name: str) -> None:
    """Raise ContractError for an encoder whose score head is stored in separate modules, which would be lost.

    folder: contains its small files. name: the model, for messages.
    """
    if module_head(folder) is not None:
        raise ContractError(
            f"{name}: stores its score head as modules (modules.json), which cannot be trained; start from "
            "the encoder that it was fine-tuned from"
        )


def score_pairs(model: Any) -> None:
    """Bind a forward pass that returns scores, with the last layer in float32 as at inference: in bf16 close scores
    tie.

    It takes `input_ids`, `attention_mask` and, if the tokenizer produces them, `token_type_ids` (B, T), and returns
    `scores` (B,) in float32.
    """
    backbone = backbone_of(model)
    inside = set(backbone.modules())
    scoring = [
        path
        for path, module in model.named_modules()
        if type(module) is nn.Linear and module.out_features == 1 and module not in inside
    ]
    if len(scoring) != 1:
        raise ContractError(f"{type(model).__name__}: its head has {len(scoring)} layers of one output, expected one")
    last = model.get_submodule(scoring[0])
    exact = _Float32Linear(last.in_features, 1, bias=last.bias is not None, device="meta")
    exact.weight, exact.bias = last.weight, last.bias  # the same tensors, which ZeRO-3 may have sharded
    model.set_submodule(scoring[0], exact)
    model.forward = MethodType(_scores, model)


class _Float32Linear(nn.Linear):
    """Linear layer that computes in float32, whatever its input and the autocast dtype."""

    def forward(self, states: Tensor) -> Tensor:
        """Return the affine transformation in float32."""
        with torch.autocast(states.device.type, enabled=False):
            bias = None if self.bias is None else self.bias.float()
            return functional.linear(states.float(), self.weight.float(), bias)


def _scores(
    self: Any,
    input_ids: Tensor,
    attention_mask: Tensor,
    token_type_ids: Tensor | None = None,
    **ignored: object,  # arguments for decoders, and those that PEFT passes along
) -> dict[str, Tensor]:
    inputs = {"input_ids": input_ids, "attention_mask": attention_mask}
    # Tokenizers may return token types for models that do not use them.
    if token_type_ids is not None and (getattr(self.config, "type_vocab_size", 0) or 0) > 1:
        inputs["token_type_ids"] = token_type_ids
    scores_B: Tensor = type(self).forward(self, **inputs).logits[:, 0].float()
    return {"scores": scores_B}


@torch.no_grad()
def check_scores(model: Any, *, name: str) -> None:
    """Raise ContractError if the scores of a few tokens are not finite. name: the model, for messages."""
    ids_1T = torch.arange(1, _PROBE_TOKENS + 1, device=model.device)[None] % model.config.vocab_size
    was_training = model.training
    model.eval()
    scores_B = model(input_ids=ids_1T, attention_mask=torch.ones_like(ids_1T))["scores"]
    model.train(was_training)
    if not bool(scores_B.isfinite().all()):
        raise ContractError(f"{name}: the weights give scores that are not finite; copy them again")
