"""Records that cannot be trained on: either an error, or skipped and counted, whatever the reason."""

from __future__ import annotations

from rankllm_core.config import one_of
from rankllm_core.errors import DataError, RankLLMError

POLICIES = ("error", "skip")


class BadRecords:
    """Skipped records of one file, with the reasons.

    Whatever finds a record unusable (its parser, a check, the encoder) passes the reason to `refuse`, and no later step
    sees the record.
    """

    def __init__(self, policy: str = "error", *, source: str = "") -> None:
        """policy: `error` raises the first reason, `skip` collects them. source: file or data set, for messages."""
        one_of(policy, POLICIES, where="bad_records")
        self.policy = policy
        self.source = source
        self.n_read = 0
        """Number of records read, good and bad."""
        self._reasons: list[tuple[int, str]] = []

    def refuse(self, problem: DataError) -> None:
        """Skip a record, or raise under the policy `error`. problem: names the file and line."""
        if self.policy == "error":
            raise problem
        self.leave_out(problem)

    def leave_out(self, problem: DataError) -> None:
        """Skip a record under either policy, for skipping requested in another way, such as `--overlong skip`."""
        self._reasons.append((problem.line or 0, str(problem)))

    @property
    def reasons(self) -> tuple[str, ...]:
        """One line for each skipped record, in file order."""
        return tuple(reason for _, reason in sorted(self._reasons, key=lambda entry: entry[0]))

    def notes(self, *, n_kept: int) -> tuple[str, ...]:
        """Return lines to show before the run: none, or how many records were skipped and the first reason."""
        if not self._reasons:
            return ()
        n = len(self._reasons)
        return (f"skipped {n} of {n + n_kept} records ({n_kept} left); the first: {self.reasons[0]}",)

    def nothing_left(self) -> RankLLMError:
        """Return the error of a file in which no record is left."""
        where = f"{self.source}: " if self.source else ""
        reasons = self.reasons
        why = f"; skipped {len(reasons)}, the first: {reasons[0]}" if reasons else ""
        return RankLLMError(f"{where}contains no records to train on{why}")
