"""docs/models.md matches the cards."""

from __future__ import annotations

import importlib

import pytest
from shared_files import REPOSITORY

from rankllm_infer.known_models import known_models


@pytest.fixture
def page(monkeypatch):
    """The script that generates the page."""
    monkeypatch.syspath_prepend(REPOSITORY / "scripts")
    return importlib.import_module("model_reference")


def test_the_page_in_the_repository_is_the_generated_one(page):
    """To update it: uv run --all-packages python scripts/model_reference.py."""
    assert page.PAGE == REPOSITORY / "docs" / "models.md"
    assert page.PAGE.read_text(encoding="utf-8") == page.reference()


def test_the_page_has_a_row_for_every_name_and_a_section_for_every_model(page):
    """Once each; unconfirmed facts are marked."""
    text = page.PAGE.read_text(encoding="utf-8")
    for facts in known_models():
        assert text.count(f"\n## {facts.known.name}\n") == 1
        assert all(text.count(f"\n| `{pattern}` |") == 1 for pattern in facts.known.patterns)
        assert all(f"\n- Unconfirmed: {sentence}\n" in text for sentence in facts.known.unconfirmed)
