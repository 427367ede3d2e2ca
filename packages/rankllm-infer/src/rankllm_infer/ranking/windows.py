"""Which slices of a ranking a listwise reranker reads, and in what order."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from rankllm_core.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowSchedule:
    """Slide a window up the ranking, bottom to top, until it covers rank 0.

    Source: RankGPT, arXiv:2304.09542, section 3.2; the bounds are those of castorini/rank_llm (reference section 3.4).
    """

    size: int = 20
    """Passages shown to the model at once."""
    stride: int = 10
    """Ranks the window moves per step; smaller overlaps more and costs more calls."""

    def __post_init__(self) -> None:
        if not 0 < self.stride <= self.size:
            raise ConfigError(f"window: need 0 < stride <= size, got stride={self.stride}, size={self.size}")

    def windows(self, n: int) -> Iterator[tuple[int, int]]:
        """(start, end) of each window over n ranks, end excluded. None for n = 0; the last one starts at 0."""
        if n <= 0:
            return
        end, start = n, max(n - self.size, 0)
        while True:
            yield start, end
            if start == 0:
                return
            end -= self.stride
            start = max(start - self.stride, 0)


def check_pass_depth(depth: int | None, *, num_passes: int, top_k_candidates: int | None) -> None:
    """Raise ConfigError where a depth of later passes changes nothing, or leaves nothing to order."""
    if depth is None:
        return
    if depth < 2:
        raise ConfigError(f"pass_depth: expected at least 2, found {depth}")
    if num_passes == 1:
        raise ConfigError("--pass-depth has no effect without --num-passes 2 or more; leave it out")
    if top_k_candidates is not None and depth >= top_k_candidates:
        raise ConfigError(
            f"--pass-depth {depth} has no effect with --top-k-candidates {top_k_candidates}, "
            "which every pass goes over; leave it out"
        )
