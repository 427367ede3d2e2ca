"""A probe recorded with transformers is verified on vLLM: both engines give the same scores."""

from __future__ import annotations

import shutil

import pytest

pytest.importorskip("torch")

import tiny_models
from probed_models import CARDS, change_weights, keep_probe, small_tokenizer

from rankllm_core.card import save_card
from rankllm_infer.api import load_reranker
from rankllm_infer.options import RerankOptions

HIDDEN = 128
"""vLLM's kernels require a head size of at least 32."""

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


@pytest.mark.parametrize("kind", ["head", "FIRST"])
def test_the_right_model_raises_no_doubt_and_a_wrong_one_does(tmp_path, kind):
    """In float32, where the numbers in the card are compared with a tight tolerance."""
    save = tiny_models.save_classifier if kind == "head" else tiny_models.save_causal
    save(tmp_path / "right", small_tokenizer(), hidden=HIDDEN, max_position_embeddings=1024)
    save_card(CARDS[kind], tmp_path / "right")
    keep_probe(tmp_path / "right")
    wrong = shutil.copytree(tmp_path / "right", tmp_path / "wrong")
    change_weights(wrong, lambda name, tensor: -tensor if "layers.1" in name else tensor)
    cache = ("kv_cache_memory_bytes=134217728",)
    options = RerankOptions(engine="vllm", dtype="float32", verify=True, vllm_args=cache, **context(kind))
    for name, agrees in (("right", True), ("wrong", False)):
        with load_reranker(tmp_path / name, options) as reranker:
            doubts = [warning for warning in reranker.warnings if "probe" in warning]
            assert reranker.verify().agrees is agrees
        assert bool(doubts) is not agrees


def context(kind):
    """Context size for a listwise prompt."""
    return {} if kind == "head" else {"context_size": 1024}
