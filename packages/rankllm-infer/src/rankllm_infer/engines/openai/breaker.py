"""Notices that a server is gone, so that a run is not asked to the end of a dead one."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from rankllm_core.errors import RankLLMError


class ServerGoneError(RankLLMError):
    """The server has stopped answering; the run stops. What was not answered counts as not asked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerLimits:
    """When a server counts as gone: so many failed tries in a row, and so long since the last sign of life."""

    n_silent: int = 6
    """Tries without any reply (no connection, no answer in time): as many as one prompt gets."""
    silent_s: float = 4.0
    """Long enough for a proxy to reload; a server that starts anew takes longer, and the run can be resumed."""
    n_faults: int = 30
    """Tries answered with a status of 500 or more, as a proxy does before a server that is gone."""
    faults_s: float = 60.0


class Breaker:
    """Counts failures in a row over all prompts of an engine. For one thread."""

    def __init__(self, limits: BreakerLimits | None = None, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._limits = limits or BreakerLimits()
        self._clock = clock
        self.reset()

    def reset(self) -> None:
        """Start over, as after an answer."""
        self._n_silent = self._n_faults = 0
        self._since: dict[str, float] = {}

    def failed(self, reason: str, *, where: str, began: float, is_silent: bool) -> None:
        """Count a failed try. Raises ServerGoneError where it is one too many.

        reason: for people. where: the server's address. began: the clock's time when the try began. is_silent: whether
        there was no reply at all; else one of status 500 or more.
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
                f"{where}: the server has stopped answering ({n} tries in a row failed within {passed_s:.0f} s, "
                f"the last: {reason}); the run stops here, and the same command resumes it once the server is back"
            )
