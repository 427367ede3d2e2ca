"""Small decoders of published architectures with random weights, saved with a tokenizer."""

from __future__ import annotations


def save_decoder(folder, architecture, tokenizer, *, has_score_head=False, hidden=32):
    """Save a two-layer model of an architecture of transformers, such as Qwen3. Returns the model.

    hidden: its width; heads are a quarter of it.
    """
    import torch
    import transformers

    torch.manual_seed(3)
    config = getattr(transformers, f"{architecture}Config")(
        vocab_size=len(tokenizer),
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=hidden // 4,
        max_position_embeddings=32768,
        initializer_range=0.2,
        pad_token_id=2,
        bos_token_id=1,
        eos_token_id=2,
        num_labels=1,
    )
    kind = "SequenceClassification" if has_score_head else "CausalLM"
    model = getattr(transformers, f"{architecture}For{kind}")(config).eval()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return model
