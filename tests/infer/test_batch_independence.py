"""In float32 on a CPU, scores are bit-identical for any batch size and order of requests."""

from __future__ import annotations

import pytest

pytest.importorskip("torch")

import tiny_models

from rankllm_infer.api import load_reranker, make_request
from rankllm_infer.options import RerankOptions

PASSAGES = (
    "The Danube flows through ten countries.",
    "Bread rises because yeast makes gas from sugar, and the gas is held by gluten.",
    "Yeast.",
    "Dough that is kneaded well holds its gas; it doubles in size in an hour or two, in a warm place, under a cloth.",
    "A loaf cools on a rack.",
)
QUERIES = ("what makes bread rise", "rivers of europe")


def scores(model, requests, **options):
    """(qid, docid) -> raw model score."""
    with load_reranker(str(model), RerankOptions(device="cpu", dtype="float32", **options)) as reranker:
        results = reranker.rerank(requests)
    return {(r.query.qid, c.docid): c.model_score for r in results for c in r.candidates}, reranker.warnings


@pytest.mark.slow
@pytest.mark.parametrize(
    "options", [{"method": "pointwise"}, {"method": "listwise", "use_logits": True, "use_alpha": True}]
)
def test_no_score_depends_on_batch_or_order(smollm2_path, options):
    """On the real model, whose logits around 30 would otherwise vary by 3e-5 with the batch shape."""
    docs = [{"docid": str(number), "text": text} for number, text in enumerate(PASSAGES)]
    # Of different lengths, and with a list of its own each: FIRST's prompt depends on the order within a list.
    requests = [make_request(query, docs[: 5 - n], qid=str(n)) for n, query in enumerate(QUERIES)]
    alone, _ = scores(smollm2_path, requests, batch_size=1, **options)
    assert len(alone) == 9
    assert all(score is not None for score in alone.values())
    together, warnings = scores(smollm2_path, requests[::-1], batch_size=16, **options)
    assert together == alone
    assert any(warning.startswith("--batch-size has no effect: float32 on a CPU") for warning in warnings)


def test_models_that_read_by_the_longest_neighbour_run_alone(tmp_path, smollm2_tokenizer):
    """LongRoPE, in any dtype; a warning is issued if another batch size was requested."""
    factors = {"short_factor": [1.0] * 4, "long_factor": [4.0] * 4, "original_max_position_embeddings": 64}
    rope = {"rope_type": "longrope", "rope_theta": 10000.0, **factors}
    tiny_models.save_causal(tmp_path, smollm2_tokenizer, rope_parameters=rope)
    options = RerankOptions(device="cpu", dtype="bfloat16", method="pointwise", batch_size=4)
    with load_reranker(str(tmp_path), options) as reranker:
        assert any(warning.startswith("--batch-size has no effect: this model") for warning in reranker.warnings)


def test_what_is_not_asked_for_is_not_warned_of(tiny_causal):
    """No warning for defaults, other dtypes, or generated rankings."""
    ways = [
        {"dtype": "float32", "method": "pointwise"},
        {"dtype": "bfloat16", "method": "pointwise", "batch_size": 4},
        {"dtype": "float32", "method": "listwise", "batch_size": 4, "context_size": 512},
    ]
    for options in ways:
        with load_reranker(str(tiny_causal), RerankOptions(device="cpu", **options)) as reranker:
            assert not [warning for warning in reranker.warnings if "batch" in warning]
