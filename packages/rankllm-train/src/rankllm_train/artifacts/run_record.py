"""training_run.json: what a run was fed with and how far it was, kept in each checkpoint and compared on resume."""

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
    """The state of a run that neither its recipe nor the Trainer's files hold."""

    step: int = 0
    """Optimizer steps behind it."""
    steps_per_epoch: int = 0
    """Optimizer steps of a pass over the data."""
    records_per_step: int = 0
    """Records (pointwise: groups) of an optimizer step, over all processes."""
    sources: Mapping[str, str] = field(default_factory=dict)
    """What was read, by the key of its name in the recipe -> identity, see `source_identity`."""
    best: Mapping[str, Any] | None = None
    """The best model so far, as best.json says it."""
    unlogged: Mapping[str, Any] | None = None
    """Sums of the log since its last entry, see `step_sums`; None in models, and in checkpoints of versions before."""
    changes: tuple[Mapping[str, Any], ...] = ()
    """Choices of the recipe that were changed on a resume: `after_step`, `key`, `old`, `new`."""


def save_record(record: RunRecord, folder: Path) -> None:
    """Write the record into a checkpoint's or a model's folder."""
    with write_text(folder / RECORD_NAME) as stream:
        json.dump({"format": RECORD_FORMAT, **asdict(record)}, stream, indent=1)


def load_record(folder: Path) -> RunRecord:
    """The record in a folder. Raises DataError where there is none that can be used."""
    path = folder / RECORD_NAME
    try:
        found = json.loads(path.read_bytes())
        if found.pop("format") != RECORD_FORMAT:
            raise DataError(f"expected format {RECORD_FORMAT}; update rankllm", path=path)
        return RunRecord(**found | {"changes": tuple(found["changes"])})
    except OSError as error:
        raise DataError(f"cannot be read ({error.strerror})", path=path) from None
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise DataError("is not a record of a training run", path=path) from None
