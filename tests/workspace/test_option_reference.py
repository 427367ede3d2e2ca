"""docs/rerank-options.md matches the option table."""

from __future__ import annotations

import importlib

import pytest
from shared_files import REPOSITORY

from rankllm_infer.cli.rerank.options import OWNERS
from rankllm_infer.option_table import rows_of

ROWS = [row for owner in OWNERS for row in rows_of(owner).values()]


@pytest.fixture
def page(monkeypatch):
    """The script that generates the page."""
    monkeypatch.syspath_prepend(REPOSITORY / "scripts")
    return importlib.import_module("option_reference")


def test_the_page_in_the_repository_is_the_generated_one(page):
    """To update it: uv run --all-packages python scripts/option_reference.py."""
    assert page.PAGE == REPOSITORY / "docs" / "rerank-options.md"
    assert page.PAGE.read_text(encoding="utf-8") == page.reference()


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_the_page_lists_every_option_once_in_its_group(page, row):
    """With all flags, its Python name and its description."""
    text = page.PAGE.read_text(encoding="utf-8")
    section = text.partition(f"\n## {row.option.group}\n")[2].partition("\n## ")[0]
    lines = [line for line in section.splitlines() if f"| {row.help.replace('|', chr(92) + '|')} |" in line]
    assert len(lines) == 1
    assert all(f"`{flag}" in lines[0] for flag in row.option.flags)
    assert (f"| `{row.name}` |" in lines[0]) == (row.owner.__name__ == "RerankOptions")
