"""How far a run is, in prompts: queries finish in leaps, since the prompts of many go to the engine together."""

from __future__ import annotations

from collections.abc import Callable, Mapping


class PromptProgress:
    """Answered prompts, against as many as there will be.

    n_prompts: how many a query of so many candidates asks; a guess where that depends on the answers. sizes: qid ->
    number of candidates, of all queries. A query's guess becomes its number of prompts when it is finished, and the
    number of those it was answered where it asks more, so `done` never goes beyond `total` and ends there.
    """

    def __init__(self, n_prompts: Callable[[int], int], sizes: Mapping[str, int]) -> None:
        known = {size: n_prompts(size) for size in set(sizes.values())}
        self._left = {qid: known[size] for qid, size in sizes.items()}
        """Prompts to come of each unfinished query."""
        self.n_queries = len(sizes)
        self.n_finished = 0
        self.done = 0
        self.total = sum(self._left.values())

    def skip(self, qid: str) -> None:
        """Count a query that was finished before this run as all done."""
        self.done += self._left.pop(qid, 0)
        self.n_finished += 1

    def answer(self, qid: str) -> None:
        """Count a prompt's answer."""
        self.done += 1
        left = self._left.get(qid, 0)
        if left:
            self._left[qid] = left - 1
        else:
            self.total += 1

    def finish(self, qid: str) -> None:
        """Count a query that is finished or has failed; what it has not asked, it never will."""
        self.total -= self._left.pop(qid, 0)
        self.n_finished += 1
