"""The server's description and spans, checked by packages from `scripts/test-openapi`; skipped elsewhere."""

from __future__ import annotations

import importlib.util

import pytest


@pytest.fixture(scope="session", autouse=True)
def _judges_are_here():
    if importlib.util.find_spec("openapi_spec_validator") is None:
        pytest.skip(
            "needs openapi-spec-validator, which has an environment of its own: scripts/test-openapi runs these"
        )
