"""Test a loaded model on a few tokens, to check that it can be read as intended."""

from __future__ import annotations

import inspect
from typing import Any

import torch

from rankllm_core.errors import ContractError
from rankllm_core.nn.model_parts import backbone_of, quiet_transformers, readable_load
from rankllm_infer.engines.base import Read
from rankllm_infer.engines.transformers.model import cache_argument
from rankllm_infer.engines.transformers.permutation_decoding import attends_alone

_N_TRIED_TOKENS = 8
_N_CACHED_TOKENS = 5
_MOST_OF_FORGOTTEN, _MOST_OF_SPREAD = 0.2, 0.005
"""Tolerances for logits with and without a cache: as a fraction of the effect of forgetting the prefix, and of the
spread."""


def check_is_decoder(model: Any, source: str) -> None:
    """Raise ContractError if a model's tokens attend to later ones, so that padding would change its scores.

    Encoder families include language models too, which transformers loads as if they were decoders.
    """
    from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES

    config = model.config
    is_encoder = config.model_type in MODEL_FOR_MASKED_LM_MAPPING_NAMES and not getattr(config, "is_decoder", False)
    sees_behind = getattr(config, "use_bidirectional_attention", None) is True
    if is_encoder or sees_behind or getattr(config, "is_causal", True) is False or config.is_encoder_decoder:
        raise ContractError(
            f"{source}: {type(model).__name__} is not a decoder (its tokens attend to later ones); rankllm supports "
            "decoder language models"
        )


@torch.inference_mode()
def try_model(model: Any, read: Read, *, source: str) -> None:
    """Raise ContractError or RankLLMError, in one line, if a model cannot be read this way.

    read: as in `Prompt`. source: name of the model, for messages.
    """
    ids_1T = torch.arange(1, _N_TRIED_TOKENS + 1, device=model.device)[None] % _n_embeddings(model)
    if read == "permutation":
        _check_continues(model, ids_1T, source)
        return
    with readable_load(source, problem=f"{type(model).__name__} cannot be run"), quiet_transformers(hide_warnings=True):
        if read == "text":
            _generate(model, ids_1T)
        elif read == "first-token":
            model(input_ids=ids_1T, use_cache=False)
        else:
            backbone_of(model)(input_ids=ids_1T, use_cache=False)


def _generate(model: Any, ids_1T: torch.Tensor) -> None:
    from transformers import GenerationConfig

    config = GenerationConfig(do_sample=False, max_new_tokens=2, pad_token_id=0)
    model.generate(ids_1T, attention_mask=torch.ones_like(ids_1T), generation_config=config)


def _check_continues(model: Any, ids_1T: torch.Tensor, source: str) -> None:
    """Check that a model gives the same logits with and without a cache, which decoding permutations requires.

    Attention layers always do and are not tested. Other layers may not support such a cache and would forget the
    prompt.
    """
    with readable_load(source, problem=f"{type(model).__name__} cannot be run"), quiet_transformers(hide_warnings=True):
        whole_V = model(input_ids=ids_1T, use_cache=False).logits[0, -1].float()
    takes_cache = "past_key_values" in inspect.signature(model.forward).parameters
    if takes_cache and attends_alone(model.config):
        return
    problem: str = ""
    try:
        with quiet_transformers(hide_warnings=True):
            behind_V = _logits_behind_cache(model, ids_1T)
            alone_V = model(input_ids=ids_1T[:, _N_CACHED_TOKENS:], use_cache=False).logits[0, -1].float()
        rounding = _MOST_OF_SPREAD * (whole_V.max() - whole_V.min())
        # Negated comparison, so that NaN is refused.
        if not (whole_V - behind_V).abs().max() <= _MOST_OF_FORGOTTEN * (whole_V - alone_V).abs().max() + rounding:
            problem = "its logits with a cache differ from those without"
    except (ValueError, TypeError, RuntimeError, AttributeError, NotImplementedError, IndexError) as error:
        problem = (str(error).splitlines() or [type(error).__name__])[0][:120]
    if problem:
        raise ContractError(
            f"{source}: {type(model).__name__} cannot decode permutations, which requires a cache of keys and values "
            f"({problem}); use --free-decoding, or --use-logits for a model trained for FIRST"
        )


def _logits_behind_cache(model: Any, ids_1T: torch.Tensor) -> torch.Tensor:
    from transformers import DynamicCache

    cached = {cache_argument(model): DynamicCache(config=model.config), "use_cache": True}
    model(input_ids=ids_1T[:, :_N_CACHED_TOKENS], **cached)
    for place in range(_N_CACHED_TOKENS, ids_1T.shape[1]):
        logits = model(input_ids=ids_1T[:, place : place + 1], **cached).logits
    last_V: torch.Tensor = logits[0, -1].float()
    return last_V


def _n_embeddings(model: Any) -> int:
    return int(model.get_input_embeddings().weight.shape[0])
