"""Small model with random weights: fast enough that one minute shows what a long run would."""

from __future__ import annotations

from pathlib import Path


def save_random_model(folder: Path, *, hidden: int = 128, layers: int = 4) -> None:
    """Save a Llama with a score head and the demo model's tokenizer, with weights from a fixed seed."""
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForSequenceClassification

    from rankllm_infer.checkpoints.demo_model import demo_model_path

    tokenizer = AutoTokenizer.from_pretrained(demo_model_path(), trust_remote_code=False)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=hidden,
        intermediate_size=4 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=hidden // 32,
        num_key_value_heads=hidden // 32,
        max_position_embeddings=8192,
        pad_token_id=tokenizer.eos_token_id,
        num_labels=1,
    )
    LlamaForSequenceClassification(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
