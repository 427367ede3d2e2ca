"""The full window: all candidates in one prompt."""

from __future__ import annotations

from rankllm_core.errors import ConfigError
from rankllm_infer.ranking.strategies.steps import Steps, Window


def ask_once(n: int, *, size: int) -> Steps:
    """Rank n candidates in one window. Raises ConfigError where it holds fewer."""
    if n > size:
        raise ConfigError(
            f"{n} candidates, but a window holds {size}, and --strategy full shows all at once; "
            f"use --window-size {n}, --top-k-candidates {size}, or another strategy"
        )
    if n < 2:
        return list(range(n))
    (order,) = yield (Window(tuple(range(n)), 0),)
    return list(order)
