"""vLLM's own scoring with score templates agrees with the bundled cards in float32."""

from __future__ import annotations

import gc

import pytest

pytest.importorskip("torch")

from published_prompts import GEMMA, MXBAI, NEMOTRON, QWEN3, WEB_SEARCH, ZERANK
from score_templates import chat_template
from small_decoders import save_decoder

from rankllm_infer import RerankOptions, load_reranker, make_request

QUERY = "How long do llamas live?"
PASSAGES = ("They live for fifteen to twenty-five years.", "Rain falls.", "a", "Llamas eat grass. " * 12)


def from_tokens(architecture, *tokens):
    """How vLLM builds a score head from the logits of one or two tokens, according to its examples."""
    tokens = list(reversed(tokens))  # vLLM takes the first one's weights off the second one's
    method = "from_2_way_softmax" if len(tokens) == 2 else "no_post_processing"
    return {
        "architectures": [f"{architecture}ForSequenceClassification"],
        "classifier_from_token": tokens,
        "method": method,
    }


# Folder's name -> architecture, published prompt with {query} and {document}, what vLLM is told of its head.
MODELS = {
    "Qwen3-Reranker-0.6B": (
        "Qwen3",
        QWEN3.replace("{instruction}", WEB_SEARCH),
        from_tokens("Qwen3", "yes", "no") | {"is_original_qwen3_reranker": True},
    ),
    "mxbai-rerank-base-v2": ("Qwen2", MXBAI.replace("{asked}", "query: {query}"), from_tokens("Qwen2", "1", "0")),
    "zerank-2": ("Qwen3", ZERANK.replace("{asked}", "{query}"), from_tokens("Qwen3", "Yes")),
    "bge-reranker-v2-gemma": ("Gemma", GEMMA, from_tokens("Gemma", "Yes")),
    "llama-nemotron-rerank-1b-v2": (
        "Llama",
        NEMOTRON,
        {"architectures": ["LlamaBidirectionalForSequenceClassification"], "pooling": "avg"},
    ),
}

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


def by_vllm(folder, prompt, head):
    """Scores of PASSAGES computed by vLLM's `score`."""
    from vllm import LLM, PoolingParams

    llm = LLM(
        str(folder),
        runner="pooling",
        dtype="float32",
        max_model_len=512,
        enforce_eager=True,
        kv_cache_memory_bytes=134217728,
        hf_overrides=head,
    )
    try:
        raw = PoolingParams(use_activation=False)
        outputs = llm.score(QUERY, list(PASSAGES), chat_template=chat_template(prompt), pooling_params=raw)
        return [output.outputs.score for output in outputs]
    finally:
        llm.llm_engine.engine_core.shutdown()
        del llm
        gc.collect()


@pytest.mark.parametrize("name", MODELS)
def test_a_card_scores_as_vllms_score_template_does(name, tmp_path, smollm2_tokenizer, monkeypatch):
    """vLLM builds the prompt, tokenizes it and applies its own head."""
    monkeypatch.setenv("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    architecture, prompt, head = MODELS[name]
    folder = tmp_path / name
    save_decoder(folder, architecture, smollm2_tokenizer, has_score_head=architecture == "Llama", hidden=128)
    expected = by_vllm(folder, prompt, head)
    with load_reranker(folder, RerankOptions(device="cpu", dtype="float32")) as ours:
        (result,) = ours.rerank([make_request(QUERY, PASSAGES)])
    found = {candidate.docid: candidate.model_score for candidate in result.candidates}
    assert [found[docid] for docid in sorted(found)] == pytest.approx(expected, rel=1e-5, abs=5e-5)
