"""What a run sums from one log entry to the next, as checkpoints keep it: a resumed run logs what no stop had changed.

Sums are of one process, as they were added up: put back as they are, they go on to the same bit. JSON holds a double
exactly, and a float32 is one.
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
    """Loss times the number of processes: data parallel takes the mean."""
    token_loss: float = 0.0
    list_loss: float = 0.0
    """Shares of the loss, where the objective has two parts."""
    tokens: float = 0
    positions: float = 0
    """Tokens computed, without and with padding."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Unlogged:
    """What a run has not logged yet."""

    after_step: int = 0
    """The step of its last entry; 0 before the first."""
    elapsed_s: float = 0.0
    """Seconds of training since then."""
    by_process: tuple[StepSums, ...] = ()

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Unlogged:
        """Read what `asdict` and JSON have made of it."""
        by_process = tuple(StepSums(**sums) for sums in record["by_process"])
        return cls(after_step=record["after_step"], elapsed_s=record["elapsed_s"], by_process=by_process)

    @property
    def mean_loss(self) -> float:
        """The sum of the steps' losses."""
        return sum(sums.loss for sums in self.by_process) / max(1, len(self.by_process))

    def of_process(self, index: int, *, processes: int) -> StepSums:
        """The sums that a process continues: its own, where the run has as many processes as it had.

        With another number, the totals are kept: the mean of the losses, the sum of all else.
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
    """Counts tokens since the last reading. clock: seconds, from any beginning."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self.tokens = (0, 0)
        """Real ones, and with padding, of this process."""
        self._started = clock()

    @property
    def elapsed_s(self) -> float:
        """Seconds of training since the last reading."""
        return self._clock() - self._started

    def restart(self, *, tokens: tuple[int, int] = (0, 0), elapsed_s: float = 0.0) -> None:
        """Continue from what an earlier process had counted since its last reading."""
        self.tokens, self._started = tokens, self._clock() - elapsed_s

    def add(self, batch: Mapping[str, Any]) -> None:
        """Count a training batch; it holds `lengths` and `input_ids`."""
        self.tokens = (self.tokens[0] + int(batch["lengths"].sum()), self.tokens[1] + batch["input_ids"].numel())

    def pause(self, seconds: float) -> None:
        """Leave time out that went into something else."""
        self._started += seconds

    def read(self, real: float, computed: float) -> dict[str, float]:
        """`tokens` and `tokens_per_s` (real ones), `padding` (a share), and begin anew. real, computed: of all."""
        now = self._clock()
        elapsed = max(now - self._started, 1e-9)
        self._started, self.tokens = now, (0, 0)
        padding = round(1 - real / max(1, computed), 4)
        return {"tokens": real, "tokens_per_s": round(real / elapsed, 1), "padding": padding}
