"""Sums between two log entries, saved in checkpoints so that a resumed run logs the same values as an uninterrupted
one.

Sums are kept per process, exactly as accumulated, so they continue bit-identically. JSON represents every double
exactly, and every float32 is one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class StepSums:
    """Sums over the steps since the last log entry."""

    loss: float = 0.0
    """Loss times the number of processes, since data parallelism averages."""
    token_loss: float = 0.0
    list_loss: float = 0.0
    """Parts of the loss, for objectives with two parts."""
    tokens: float = 0
    positions: float = 0
    """Tokens computed, without and with padding."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Unlogged:
    """Values of a run that are not logged yet."""

    after_step: int = 0
    """Step of the last entry; 0 before the first."""
    elapsed_s: float = 0.0
    """Seconds of training since then."""
    by_process: tuple[StepSums, ...] = ()

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Unlogged:
        """Read a record that went through `asdict` and JSON."""
        by_process = tuple(StepSums(**sums) for sums in record["by_process"])
        return cls(after_step=record["after_step"], elapsed_s=record["elapsed_s"], by_process=by_process)

    @property
    def mean_loss(self) -> float:
        """Sum of the steps' losses, averaged over processes."""
        return sum(sums.loss for sums in self.by_process) / max(1, len(self.by_process))

    def of_process(self, index: int, *, processes: int) -> StepSums:
        """Return the sums that a process continues: its own, if the number of processes is unchanged.

        With another number, the totals are kept: the mean of the losses, the sum of everything else.
        """
        if processes == len(self.by_process):
            return self.by_process[index]
        if index:
            return StepSums(loss=self.mean_loss)
        return StepSums(
            loss=self.mean_loss,
            token_loss=sum(sums.token_loss for sums in self.by_process),
            list_loss=sum(sums.list_loss for sums in self.by_process),
            tokens=sum(sums.tokens for sums in self.by_process),
            positions=sum(sums.positions for sums in self.by_process),
        )


class Throughput:
    """Counts tokens since the last reading. clock: returns seconds, from any origin."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self.tokens = (0, 0)
        """Tokens of this process, without and with padding."""
        self._started = clock()

    @property
    def elapsed_s(self) -> float:
        """Seconds of training since the last reading."""
        return self._clock() - self._started

    def restart(self, *, tokens: tuple[int, int] = (0, 0), elapsed_s: float = 0.0) -> None:
        """Continue from the counts of an earlier process since its last reading."""
        self.tokens, self._started = tokens, self._clock() - elapsed_s

    def add(self, batch: Mapping[str, Any]) -> None:
        """Count a training batch, which has `lengths` and `input_ids`."""
        self.tokens = (self.tokens[0] + int(batch["lengths"].sum()), self.tokens[1] + batch["input_ids"].numel())

    def pause(self, seconds: float) -> None:
        """Exclude time spent on something else."""
        self._started += seconds

    def read(self, real: float, computed: float) -> dict[str, float]:
        """Return `tokens` and `tokens_per_s` (real tokens) and `padding` (a fraction), and reset. Arguments: global
        counts."""
        now = self._clock()
        elapsed = max(now - self._started, 1e-9)
        self._started, self.tokens = now, (0, 0)
        padding = round(1 - real / max(1, computed), 4)
        return {"tokens": real, "tokens_per_s": round(real / elapsed, 1), "padding": padding}
