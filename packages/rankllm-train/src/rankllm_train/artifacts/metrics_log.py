"""Metrics file OUTPUT_DIR/metrics.jsonl: one entry per line, without duplicates after a resume."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rankllm_core.files import dumps, write_text

METRICS_NAME = "metrics.jsonl"


def start_metrics(output_dir: Path, *, step: int, logged_step: int | None = None) -> int:
    """Start a metrics file, or keep the entries of an earlier run up to `step`.

    logged_step: last training entry to keep, if it differs from `step`. An entry that a run wrote when it stopped early
    is dropped, because its values are in the sums that the resumed run continues.
    Returns how many unreadable lines were dropped, not counting the last one, which a killed run may have been writing.
    it.
    """
    last = step if logged_step is None else logged_step
    kept = [e for e in read_metrics(output_dir) if e["step"] <= (last if "loss" in e else step)] if step else []
    n_lost = sum(_entry(line) is None for line in _lines(output_dir)[:-1]) if step else 0
    with write_text(output_dir / METRICS_NAME) as stream:
        stream.writelines(dumps(entry) + "\n" for entry in kept)
    return n_lost


def append_metrics(output_dir: Path, entry: Mapping[str, object]) -> None:
    """Append one entry."""
    with (output_dir / METRICS_NAME).open("a", encoding="utf-8") as stream:
        stream.write(dumps(dict(entry)) + "\n")


def read_metrics(output_dir: Path) -> list[dict[str, Any]]:
    """Return the entries in order, without unreadable lines; empty if there is no file."""
    return [entry for entry in map(_entry, _lines(output_dir)) if entry is not None]


def _lines(output_dir: Path) -> list[bytes]:
    path = output_dir / METRICS_NAME
    return [line for line in path.read_bytes().split(b"\n") if line.strip()] if path.is_file() else []


def _entry(line: bytes) -> dict[str, Any] | None:
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(entry, dict) or not isinstance(entry.get("step"), int):
        return None
    is_sound = all(isinstance(value, int | float) and not isinstance(value, bool) for value in entry.values())
    return entry if is_sound else None
