"""OUTPUT_DIR/metrics.jsonl: one line an entry, without doubles after a resume."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rankllm_core.files import dumps, write_text

METRICS_NAME = "metrics.jsonl"


def start_metrics(output_dir: Path, *, step: int) -> None:
    """Begin a metrics file, or keep of an earlier run's what lies at or before `step`."""
    kept = [entry for entry in read_metrics(output_dir) if entry["step"] <= step] if step else []
    with write_text(output_dir / METRICS_NAME) as stream:
        stream.writelines(dumps(entry) + "\n" for entry in kept)


def append_metrics(output_dir: Path, entry: Mapping[str, object]) -> None:
    """Add one line."""
    with (output_dir / METRICS_NAME).open("a", encoding="utf-8") as stream:
        stream.write(dumps(dict(entry)) + "\n")


def read_metrics(output_dir: Path) -> list[dict[str, Any]]:
    """The entries in order, without the line that a killed run was writing; none where there is no file."""
    path = output_dir / METRICS_NAME
    entries = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if isinstance(entry, dict) and isinstance(entry.get("step"), int):
            entries.append(entry)
    return entries
