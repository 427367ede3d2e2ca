"""Models with bidirectional attention give the same scores with vLLM as with transformers in float32."""

from __future__ import annotations

import json

import pytest

pytest.importorskip("torch")

import encoder_models
import tiny_models

from rankllm_core.errors import ConfigError
from rankllm_infer import RerankOptions, load_reranker, make_request
from rankllm_infer.plan import plan_reranking

QUERY = "what is the capital of the country in the north"
PASSAGES = encoder_models.TEXTS[1:]
WIDE = {"hidden_size": 128, "intermediate_size": 96}
"""vLLM's kernels require a head size of at least 32."""

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


def scores(folder, engine):
    """docid -> model score."""
    more = {"vllm_args": ("kv_cache_memory_bytes=134217728",)} if engine == "vllm" else {"device": "cpu"}
    with load_reranker(folder, RerankOptions(engine=engine, dtype="float32", **more)) as reranker:
        (result,) = reranker.rerank([make_request(QUERY, PASSAGES)])
    assert result.error is None
    return {candidate.docid: candidate.model_score for candidate in result.candidates}


@pytest.mark.parametrize("name", ["Bert", "Roberta", "XLMRoberta", "ModernBert"])
def test_an_encoder_scores_as_with_transformers(tmp_path, name):
    """Token types and positions follow the tokenizer's format for text pairs."""
    encoder_models.save_encoder(tmp_path, name, **WIDE)
    assert scores(tmp_path, "vllm") == pytest.approx(scores(tmp_path, "transformers"), abs=1e-4)


@pytest.mark.parametrize("pooling", ["avg", "cls"])
def test_bidirectional_attention_scores_as_with_transformers(tmp_path, smollm2_tokenizer, pooling):
    """With NVIDIA's own model type, without the code bundled with the model."""
    tiny_models.save_classifier(tmp_path, smollm2_tokenizer, hidden=128)
    path = tmp_path / "config.json"
    names = {"model_type": "llama_bidirec", "architectures": ["LlamaBidirectionalForSequenceClassification"]}
    path.write_text(json.dumps(json.loads(path.read_text()) | names | {"pooling": pooling}))
    assert scores(tmp_path, "vllm") == pytest.approx(scores(tmp_path, "transformers"), abs=1e-4)


def test_what_vllm_does_not_have_is_one_line_before_anything_is_loaded(tmp_path):
    """vLLM does not score with DeBERTa."""
    encoder_models.save_encoder(tmp_path, "DebertaV2")
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(ConfigError, match=r"is an encoder whose scores vLLM does not support .deberta-v2.; use --eng"):
        plan_reranking(tmp_path, RerankOptions(engine="vllm"))
