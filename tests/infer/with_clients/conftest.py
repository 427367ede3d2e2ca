"""Published clients, pointed at `rankllm-infer serve`.

Each has an environment of its own, which holds the client and pytest but not rankllm: `scripts/test-clients`.
Elsewhere their modules skip.
"""

from __future__ import annotations

import pytest
from client_server import client_server


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch):
    """Clients contact the server on this machine directly, regardless of any proxy in the environment."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """A server with a key and small limits."""
    with client_server(tmp_path_factory.mktemp("served")) as found:
        yield found


@pytest.fixture
def leaving(tmp_path):
    """A server that a test may stop."""
    with client_server(tmp_path) as found:
        yield found


@pytest.fixture
def hasty(tmp_path):
    """A server with a one-second limit per request."""
    with client_server(tmp_path, "--request-timeout", 1) as found:
        yield found
