"""Tokens a second, and how much of what was computed was padding."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any


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
