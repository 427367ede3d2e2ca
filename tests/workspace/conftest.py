"""The scripts folder is not a package, so tests import its modules by name."""

from __future__ import annotations

import importlib

import pytest
from shared_files import REPOSITORY


@pytest.fixture
def model_script(monkeypatch):
    """Import a module of scripts/models."""
    monkeypatch.syspath_prepend(REPOSITORY / "scripts" / "models")
    return importlib.import_module
