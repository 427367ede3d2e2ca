"""Tiny random T5s, with a tokenizer of their family made here."""

from __future__ import annotations

from encoder_models import TEXTS
from transformers.utils import logging

logging.set_verbosity_error()
logging.disable_progress_bar()

WORDS = ("Query", "Document", "Document0", "Document1", "Relevant", "true", "false", "yes", "no", "A", "B")
"""Words of the prompts, each a token of its own where a text begins or a blank stands before it."""


def vocabulary():
    """Pieces with their scores, by id: pieces with a mark for the blank before them, and T5's three control tokens."""
    words = sorted({word.strip(".,;:?()") for text in TEXTS for word in text.split()} - {""} | set(WORDS))
    letters = sorted({letter for text in (*TEXTS, *WORDS) for letter in text if letter != " "})
    pieces = dict.fromkeys(["\u2581", *letters, *words, *(f"\u2581{word}" for word in words)])
    # The longer a piece, the likelier.
    return [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), *((piece, -9 / len(piece)) for piece in pieces)]


def make_tokenizer():
    """T5's own, which puts `</s>` behind every text."""
    from transformers import T5Tokenizer

    return T5Tokenizer(vocab=vocabulary(), extra_ids=4)


def save_t5(folder, tokenizer, *, architecture="T5", initializer_factor=3.0, **options):
    """A small model with random weights, and its tokenizer. Returns the model, for plain transformers."""
    import torch
    import transformers

    torch.manual_seed(5)
    config = getattr(transformers, f"{architecture}Config")(
        vocab_size=len(tokenizer),
        d_model=32,
        d_kv=8,
        d_ff=48,
        num_layers=2,
        num_heads=4,
        decoder_start_token_id=0,
        pad_token_id=0,
        eos_token_id=1,
        initializer_factor=initializer_factor,
        **options,
    )
    model = getattr(transformers, f"{architecture}ForConditionalGeneration")(config).eval()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return model
