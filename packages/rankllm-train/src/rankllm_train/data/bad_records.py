"""Records that cannot be learnt from: each one an error, or left out and counted. One path for every reason."""

from __future__ import annotations

from rankllm_core.config import one_of
from rankllm_core.errors import DataError, RankLLMError

POLICIES = ("error", "skip")


class BadRecords:
    """The records of one file that are left out, and why.

    Whatever finds a record unusable (its parser, a check, the encoder) passes the reason to `refuse`; no later step
    sees the record.
    """

    def __init__(self, policy: str = "error", *, source: str = "") -> None:
        """policy: `error` raises the first reason, `skip` keeps it. source: the file or data set, for messages."""
        one_of(policy, POLICIES, where="bad_records")
        self.policy = policy
        self.source = source
        self.n_read = 0
        """Records that were looked at, good and bad."""
        self._reasons: list[tuple[int, str]] = []

    def refuse(self, problem: DataError) -> None:
        """Leave a record out. problem: names its file and line. Raises it under the policy `error`."""
        if self.policy == "error":
            raise problem
        self.leave_out(problem)

    def leave_out(self, problem: DataError) -> None:
        """The same where leaving it out was asked for in another way, such as `--overlong skip`."""
        self._reasons.append((problem.line or 0, str(problem)))

    @property
    def reasons(self) -> tuple[str, ...]:
        """One line for each record that was left out, in the order of the file."""
        return tuple(reason for _, reason in sorted(self._reasons, key=lambda entry: entry[0]))

    def notes(self, *, n_kept: int) -> tuple[str, ...]:
        """What a user should know before the run: nothing, or how many were left out and the first reason."""
        if not self._reasons:
            return ()
        n = len(self._reasons)
        return (f"left out {n} records, the first: {self.reasons[0]} ({n_kept} of {n + n_kept} are left)",)

    def nothing_left(self) -> RankLLMError:
        """The error of a file in which no record is left."""
        where = f"{self.source}: " if self.source else ""
        reasons = self.reasons
        why = f"; the first of {len(reasons)} left out: {reasons[0]}" if reasons else ""
        return RankLLMError(f"{where}no record to train on{why}")
