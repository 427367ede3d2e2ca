"""sentence-transformers compared with rankllm, installed by `scripts/test-oracles`; skipped elsewhere."""

from __future__ import annotations

import importlib.util

import pytest


@pytest.fixture(scope="session", autouse=True)
def _oracle_is_here():
    if importlib.util.find_spec("sentence_transformers") is None:
        pytest.skip("needs sentence-transformers, which has an environment of its own: scripts/test-oracles runs these")
