"""Causal rerankers give the ids and the scores of sentence-transformers' CrossEncoder with its LogitScore head.

The published prompt is the tokenizer's chat template there, whose messages have the roles `query` and `document`.
"""

from __future__ import annotations

import pytest

pytest.importorskip("torch")

import torch
from published_prompts import GEMMA, MXBAI, QWEN3, WEB_SEARCH, ZERANK
from score_templates import chat_template
from small_decoders import save_decoder

from rankllm_infer import RerankOptions, load_reranker, make_request

QUERY = "How long do llamas live?"
PASSAGES = ("They live for fifteen to twenty-five years.", "Rain falls.", "a", "Llamas eat grass. " * 12)
# Folder's name -> architecture, published prompt with {query} and {document}, the tokens read.
MODELS = {
    "Qwen3-Reranker-0.6B": ("Qwen3", QWEN3.replace("{instruction}", WEB_SEARCH), ("yes", "no")),
    "mxbai-rerank-base-v2": ("Qwen2", MXBAI.replace("{asked}", "query: {query}"), ("1", "0")),
    "zerank-2": ("Qwen3", ZERANK.replace("{asked}", "{query}"), ("Yes",)),
    "bge-reranker-v2-gemma": ("Gemma", GEMMA, ("Yes",)),
}


@pytest.fixture(params=MODELS)
def pair(request, tmp_path, smollm2_tokenizer):
    """A CrossEncoder and a reranker of one checkpoint, in float32 on a CPU."""
    from sentence_transformers import CrossEncoder
    from sentence_transformers.base.modules.transformer import Transformer
    from sentence_transformers.cross_encoder.modules import LogitScore

    architecture, prompt, tokens = MODELS[request.param]
    folder = tmp_path / request.param
    save_decoder(folder, architecture, smollm2_tokenizer)
    model = Transformer(
        str(folder), transformer_task="text-generation", model_kwargs={"dtype": torch.float32, "local_files_only": True}
    )
    model.tokenizer.chat_template = chat_template(prompt)
    ids = [model.tokenizer.convert_tokens_to_ids(token) for token in tokens]
    theirs = CrossEncoder(modules=[model, LogitScore(*ids)], device="cpu")
    with load_reranker(folder, RerankOptions(device="cpu", dtype="float32")) as ours:
        yield theirs, ours


def test_ids_and_scores_are_those_of_logit_score(pair):
    """Its batch is padded, whereas each of our prompts runs alone."""
    theirs, ours = pair
    for passage in PASSAGES:
        expected = theirs.preprocess([(QUERY, passage)])["input_ids"][0].tolist()
        assert list(ours.method.writer.write(QUERY, title="", text=passage).token_ids) == expected
    expected = theirs.predict([(QUERY, passage) for passage in PASSAGES], activation_fn=torch.nn.Identity())
    (result,) = ours.rerank([make_request(QUERY, PASSAGES)])
    found = {candidate.docid: candidate.model_score for candidate in result.candidates}
    assert [found[docid] for docid in sorted(found)] == pytest.approx(expected.tolist(), abs=1e-5)
