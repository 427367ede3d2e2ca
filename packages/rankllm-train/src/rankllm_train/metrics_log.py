"""OUTPUT_DIR/metrics.jsonl: one line an entry, without doubles after a resume."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from rankllm_core.files import dumps, write_text

METRICS_NAME = "metrics.jsonl"


def start_metrics(output_dir: Path, *, step: int) -> None:
    """Begin a metrics file, or keep of an earlier run's what lies at or before `step`."""
    path = output_dir / METRICS_NAME
    kept = [line for line in _lines(path) if _step(line) <= step] if step else []
    with write_text(path) as stream:
        stream.writelines(f"{line}\n" for line in kept)


def append_metrics(output_dir: Path, entry: Mapping[str, object]) -> None:
    """Add one line."""
    with (output_dir / METRICS_NAME).open("a", encoding="utf-8") as stream:
        stream.write(dumps(dict(entry)) + "\n")


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines() if path.exists() else []


def _step(line: str) -> float:
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return float("inf")  # the line a killed run was writing
