"""Clients of rerank APIs, pointed at `rankllm-infer serve`: `scripts/test-clients` has them; elsewhere they skip."""

from __future__ import annotations

import importlib.util

import pytest


@pytest.fixture(scope="session", autouse=True)
def _clients_are_here():
    if importlib.util.find_spec("cohere") is None:
        pytest.skip("needs the cohere client, which has an environment of its own: scripts/test-clients runs these")
