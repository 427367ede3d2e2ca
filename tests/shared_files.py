"""Where the reference inputs and outputs are: beside the checkout, in `../shared`. A user's clone has none."""

from __future__ import annotations

from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
SHARED = REPOSITORY.parent / "shared"


def _or_skip(path: Path) -> Path:
    if not path.exists():
        pytest.skip(f"needs the reference file {path.relative_to(SHARED.parent)}, which is not beside this checkout")
    return path


def golden(name: str) -> Path:
    """A recorded output of the reference projects, or skip the test."""
    return _or_skip(SHARED / "golden" / name)


def data(name: str) -> Path:
    """A real collection, run or transcript, or skip the test."""
    return _or_skip(SHARED / "data" / name)


def tokenizer_dir(name: str) -> Path:
    """A tokenizer without weights, or skip the test."""
    return _or_skip(SHARED / "tokenizers" / name)
