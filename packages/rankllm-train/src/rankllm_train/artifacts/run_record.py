"""Run record training_run.json: inputs and progress of a run, saved in each checkpoint and compared on resume."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rankllm_core.errors import DataError
from rankllm_core.files import write_text

RECORD_NAME = "training_run.json"
RECORD_FORMAT = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecord:
    """State of a run that neither its recipe nor the Trainer's files contain."""

    step: int = 0
    """Number of optimizer steps taken."""
    steps_per_epoch: int = 0
    """Optimizer steps per pass over the data."""
    records_per_step: int = 0
    """Records (pointwise: groups) per optimizer step, over all processes."""
    sources: Mapping[str, str] = field(default_factory=dict)
    """Recipe key of an input -> identity of its content, see `source_identity`."""
    best: Mapping[str, Any] | None = None
    """Best model so far, as in best.json."""
    unlogged: Mapping[str, Any] | None = None
    """Sums since the last log entry, see `step_sums`; None in models and in checkpoints of older versions."""
    changes: tuple[Mapping[str, Any], ...] = ()
    """Recipe values changed on resume: `after_step`, `key`, `old`, `new`."""


def save_record(record: RunRecord, folder: Path) -> None:
    """Write the record into the folder of a checkpoint or model."""
    with write_text(folder / RECORD_NAME) as stream:
        json.dump({"format": RECORD_FORMAT, **asdict(record)}, stream, indent=1)


def load_record(folder: Path) -> RunRecord:
    """Return the record in a folder. Raises DataError if it is missing or unusable."""
    path = folder / RECORD_NAME
    try:
        found = json.loads(path.read_bytes())
        if found.pop("format") != RECORD_FORMAT:
            raise DataError(f"expected format {RECORD_FORMAT}; update rankllm", path=path)
        return RunRecord(**found | {"changes": tuple(found["changes"])})
    except OSError as error:
        raise DataError(f"cannot be read ({error.strerror})", path=path) from None
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise DataError(
            "is not a record of a training run; restore the file, or use another checkpoint", path=path
        ) from None
