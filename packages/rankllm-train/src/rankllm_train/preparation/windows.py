"""Windows drawn from a labelled list: how many passages, which ones, and in what order they are shown."""

from __future__ import annotations

import random
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Literal

from rankllm_core.errors import ConfigError

WindowSample = Literal["uniform", "with-relevant"]


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowRule:
    """How windows are drawn. RankZephyr's augmentation: 2 to 20 passages, shuffled (arXiv:2312.02724)."""

    per_query: int = 1
    """Windows that are drawn from each list."""
    min_size: int = 2
    max_size: int = 20
    """The number of passages is drawn evenly from `min_size` to `max_size`, or to as many as there are."""
    shuffle: bool = True
    """Whether passages are shown in random order; if not, in first-stage order."""
    sample: WindowSample = "with-relevant"
    """`uniform`: any passages. `with-relevant`: one of the relevant ones, then any others."""
    require_relevant: bool = True
    """Whether a window without a relevant passage is left out."""
    seed: int = 42

    def __post_init__(self) -> None:
        if not 2 <= self.min_size <= self.max_size:
            raise ConfigError(
                f"windows: expected 2 <= --min-window <= --max-window, found {self.min_size} and {self.max_size}"
            )
        if self.per_query < 1:
            raise ConfigError(f"windows: expected 1 or more a query, found {self.per_query}")


def draw_windows(n: int, rule: WindowRule, *, relevant: Collection[int], key: str) -> Iterator[tuple[int, ...]]:
    """Yield `rule.per_query` windows over n candidates: positions in the order in which they are shown.

    relevant: positions of relevant candidates; where there is none, windows are drawn evenly. key: names the list;
    the windows are a function of it, of the seed and of their number.
    Raises ConfigError where there are fewer candidates than the smallest window holds.
    """
    if n < rule.min_size:
        raise ConfigError(f"windows: expected {rule.min_size} or more candidates, found {n}")
    for number in range(1, rule.per_query + 1):
        draw = random.Random(f"{rule.seed}/{key}/{number}")
        size = draw.randint(rule.min_size, min(rule.max_size, n))
        chosen: list[int] = []
        if rule.sample == "with-relevant" and relevant:
            chosen.append(draw.choice(sorted(relevant)))
        others = [position for position in range(n) if position not in chosen]
        chosen += draw.sample(others, size - len(chosen))
        if rule.shuffle:
            draw.shuffle(chosen)
        else:
            chosen.sort()
        yield tuple(chosen)
