"""Tiny random models of other families than Llama, made from their configurations."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

VOCABULARY = 49152
_IDS = {"pad_token_id": 2, "bos_token_id": 1, "eos_token_id": 2}
_SMALL = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 2048,
    **_IDS,
}


def _of(config: str, model: str, **values: Any) -> Callable[[], Any]:
    def make() -> Any:
        import transformers

        return getattr(transformers, model)(getattr(transformers, config)(**values))

    return make


def _without(*names: str) -> dict[str, Any]:
    return {name: value for name, value in _SMALL.items() if name not in names}


_STATES = {"vocab_size": VOCABULARY, "hidden_size": 32, "num_hidden_layers": 2, "state_size": 8, **_IDS}
_NO_GROUPS = _without("num_key_value_heads")

_T5 = {
    "vocab_size": VOCABULARY,
    "d_model": 32,
    "d_kv": 8,
    "d_ff": 64,
    "num_layers": 2,
    "num_heads": 4,
    "decoder_start_token_id": 0,
    **_IDS,
}
FAMILIES: dict[str, Callable[[], Any]] = {
    "mistral": _of("MistralConfig", "MistralForCausalLM", **_SMALL),
    "qwen3": _of("Qwen3Config", "Qwen3ForCausalLM", **_SMALL, head_dim=8),
    "gemma3-text": _of("Gemma3TextConfig", "Gemma3ForCausalLM", **_SMALL, head_dim=8),
    "gpt2": _of(
        "GPT2Config", "GPT2LMHeadModel", vocab_size=VOCABULARY, n_embd=32, n_layer=2, n_head=4, n_positions=2048, **_IDS
    ),
    "mixtral": _of("MixtralConfig", "MixtralForCausalLM", **_SMALL, num_local_experts=4),
    "qwen3-moe": _of(
        "Qwen3MoeConfig",
        "Qwen3MoeForCausalLM",
        **_SMALL,
        head_dim=8,
        num_experts=4,
        num_experts_per_tok=2,
        moe_intermediate_size=16,
    ),
    "llama4-text": _of(
        *("Llama4TextConfig", "Llama4ForCausalLM"),
        **(
            _SMALL
            | {"intermediate_size_mlp": 64, "num_local_experts": 2, "head_dim": 8, "attn_temperature_tuning": False}
        ),
    ),
    "mamba": _of("MambaConfig", "MambaForCausalLM", **_STATES),
    "mamba2": _of(
        "Mamba2Config", "Mamba2ForCausalLM", **_STATES, num_heads=8, head_dim=8, n_groups=1, chunk_size=16, expand=2
    ),
    "falcon-mamba": _of("FalconMambaConfig", "FalconMambaForCausalLM", **_STATES),
    "rwkv": _of("RwkvConfig", "RwkvForCausalLM", vocab_size=VOCABULARY, hidden_size=32, num_hidden_layers=2, **_IDS),
    "jamba": _of(
        *("JambaConfig", "JambaForCausalLM"),
        **(_SMALL | {"num_experts": 2, "mamba_d_state": 8, "mamba_dt_rank": 4, "attn_layer_period": 2}),
        attn_layer_offset=1,
        use_mamba_kernels=False,
    ),
    "bamba": _of(
        *("BambaConfig", "BambaForCausalLM"),
        **_SMALL,
        attn_layer_indices=[1],
        mamba_n_heads=8,
        mamba_d_head=8,
        mamba_d_state=8,
        mamba_chunk_size=16,
    ),
    "recurrent-gemma": _of(
        "RecurrentGemmaConfig", "RecurrentGemmaForCausalLM", **_without("max_position_embeddings"), lru_width=32
    ),
    "bert": _of("BertConfig", "BertForMaskedLM", **_NO_GROUPS),
    "bert-decoder": _of("BertConfig", "BertLMHeadModel", **_NO_GROUPS, is_decoder=True),
    "t5": _of("T5Config", "T5ForConditionalGeneration", **_T5),
    "longt5": _of("LongT5Config", "LongT5ForConditionalGeneration", **_T5),
    "gemma3-vision": _of(
        *("Gemma3Config", "Gemma3ForConditionalGeneration"),
        text_config=_SMALL | {"head_dim": 8},
        vision_config={
            "hidden_size": 16,
            "intermediate_size": 16,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "image_size": 28,
            "patch_size": 14,
        },
        mm_tokens_per_image=4,
    ),
    "clip": _of("CLIPConfig", "CLIPModel"),
}
"""Family -> how its model is made."""


def save_family(name: str, folder: Path, tokenizer: Any) -> Path:
    """One of FAMILIES, with a tokenizer."""
    import torch

    torch.manual_seed(11)
    model = FAMILIES[name]()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
