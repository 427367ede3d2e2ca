"""Real vLLM on a CPU, in the environment made by `scripts/test-vllm`; skipped elsewhere."""

from __future__ import annotations

import importlib.util

import pytest

CACHE = "kv_cache_memory_bytes=1073741824"
"""Sufficient for a test: 1 GiB."""


@pytest.fixture(scope="session", autouse=True)
def _vllm_is_here():
    if importlib.util.find_spec("vllm") is None:
        pytest.skip("needs vLLM, which has an environment of its own: scripts/test-vllm runs these tests")


@pytest.fixture(scope="session")
def requests():
    """The top 20 first-stage passages for 16 queries of TREC DL 2021."""
    from real_windows import real_requests

    return real_requests(16)


@pytest.fixture
def start(smollm2_tokenizer):
    """Start vLLM on a checkpoint in float32. The engine is closed after the test."""
    from rankllm_infer.checkpoints.model_files import find_model
    from rankllm_infer.engines.vllm.loading import start_vllm
    from rankllm_infer.engines.vllm.settings import VllmSettings

    engines = []

    def start(folder, kind, *, max_tokens=256, base_model=None):
        engine, _ = start_vllm(
            find_model(str(folder), base_model),
            kind,
            tokenizer=smollm2_tokenizer,
            max_tokens=max_tokens,
            settings=VllmSettings(dtype="float32", more=("kv_cache_memory_bytes=134217728",)),
        )
        engines.append(engine)
        return engine

    yield start
    for engine in engines:
        engine.close()
