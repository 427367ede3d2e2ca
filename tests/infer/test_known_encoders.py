"""Scores of published cross-encoders: small random models under the published names, without options."""

from __future__ import annotations

import math

import pytest

pytest.importorskip("torch")

import torch
import transformers
from encoder_models import TEXTS, make_tokenizer

from rankllm_infer import RerankOptions, load_reranker, make_request

# Name -> model class, family of its tokenizer, positions as published, whether its authors give a probability.
MODELS = {
    "ms-marco-MiniLM-L6-v2": ("Bert", "wordpiece", 512, False),
    "bge-reranker-base": ("XLMRoberta", "unigram", 514, True),
    "bge-reranker-v2-m3": ("XLMRoberta", "unigram", 8194, True),
    "gte-reranker-modernbert-base": ("ModernBert", "modern", 8192, False),
}


def save(name, folder):
    """A small cross-encoder with random weights, and its tokenizer."""
    kind, family, positions, _ = MODELS[name]
    tokenizer = make_tokenizer(family)
    tokenizer.model_max_length = positions if positions % 512 == 0 else positions - 2
    torch.manual_seed(5)
    config = getattr(transformers, f"{kind}Config")(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=3,
        num_attention_heads=4,
        initializer_range=0.3,
        num_labels=1,
        max_position_embeddings=positions,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = getattr(transformers, f"{kind}ForSequenceClassification")(config).eval()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return model, tokenizer


@pytest.mark.parametrize("name", MODELS)
def test_a_cross_encoder_scores_as_transformers_does_without_any_option(name, tmp_path):
    """The tokenizer's own format for text pairs; the sigmoid if the authors apply it."""
    model, tokenizer = save(name, tmp_path / name)
    query, *passages = TEXTS
    with load_reranker(tmp_path / name, RerankOptions(dtype="float32", device="cpu")) as reranker:
        (result,) = reranker.rerank([make_request(query, passages)])
    assert result.error is None
    found = {candidate.docid: candidate for candidate in result.candidates}
    for number, passage in enumerate(passages, start=1):
        with torch.inference_mode():
            expected = model(**tokenizer(query, passage, return_tensors="pt")).logits[0, 0].item()
        assert found[str(number)].model_score == pytest.approx(expected, abs=1e-5)
        chance = 1 / (1 + math.exp(-expected)) if MODELS[name][3] else None
        assert found[str(number)].probability == (None if chance is None else pytest.approx(chance, abs=1e-5))


@pytest.mark.parametrize(("name", "most"), [("ms-marco-MiniLM-L6-v2", 512), ("bge-reranker-base", 512)])
def test_a_long_passage_is_cut_where_the_original_cuts_it(name, most, tmp_path):
    """The passage is truncated until the pair fits the model's 512 tokens, like `only_second` of transformers."""
    model, tokenizer = save(name, tmp_path / name)
    query, passage = TEXTS[0], " ".join(TEXTS[1:] * 40)
    with load_reranker(tmp_path / name, RerankOptions(dtype="float32", device="cpu")) as reranker:
        (result,) = reranker.rerank([make_request(query, [passage, TEXTS[1]])])
    cut = tokenizer(query, passage, truncation="only_second", max_length=most, return_tensors="pt")
    assert cut["input_ids"].shape[1] == most
    with torch.inference_mode():
        expected = model(**cut).logits[0, 0].item()
    scores = {candidate.docid: candidate.model_score for candidate in result.candidates}
    assert scores["1"] == pytest.approx(expected, abs=1e-5)
