"""Circuit breaker: stops a run when the server is gone, instead of sending it all remaining prompts."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from rankllm_core.errors import RankLLMError


class ServerGoneError(RankLLMError):
    """The server has stopped answering and the run stops. Unanswered prompts count as not sent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerLimits:
    """Thresholds for considering a server gone: consecutive failed tries, and time since the last sign of life."""

    n_silent: int = 6
    """Tries without any reply (no connection, or no answer in time): as many as a single prompt gets."""
    silent_s: float = 4.0
    """Long enough for a proxy to reload; restarting a server takes longer, but then the run can be resumed."""
    n_faults: int = 30
    """Tries answered with status 500 or above, as by a proxy in front of a server that is gone."""
    faults_s: float = 60.0


class Breaker:
    """Counts consecutive failures over all prompts of an engine. Not thread-safe."""

    def __init__(self, limits: BreakerLimits | None = None, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._limits = limits or BreakerLimits()
        self._clock = clock
        self.reset()

    def reset(self) -> None:
        """Reset the counters, as after an answer."""
        self._n_silent = self._n_faults = 0
        self._since: dict[str, float] = {}

    def failed(self, reason: str, *, where: str, began: float, is_silent: bool) -> None:
        """Count a failed try. Raises ServerGoneError if a threshold is exceeded.

        reason: text for users. where: address of the server. began: clock time at which the try started. is_silent:
        True if there was no reply at all, else the reply had status 500 or above.
        """
        limits = self._limits
        if is_silent:
            self._n_silent += 1
        else:
            self._n_faults, self._n_silent = self._n_faults + 1, 0
            self._since.pop("silent", None)
        kind = "silent" if is_silent else "faults"
        n, least = (self._n_silent, limits.n_silent) if is_silent else (self._n_faults, limits.n_faults)
        passed_s = self._clock() - self._since.setdefault(kind, began)
        if n >= least and passed_s >= (limits.silent_s if is_silent else limits.faults_s):
            raise ServerGoneError(
                f"{where}: the server has stopped answering ({n} consecutive tries failed within {passed_s:.0f} s, "
                f"last: {reason}); the run stops here; repeat the command to resume it once the server is back"
            )
