"""Strategies: which candidates are shown together, in which rounds, and what is made of the orders that come back.

A strategy knows positions only: no texts, no prompts, no model. `rankllm_infer.ranking.listwise` queries its windows.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from rankllm_core.config import one_of
from rankllm_core.errors import ConfigError
from rankllm_infer.ranking.strategies.consensus import consensus
from rankllm_infer.ranking.strategies.full import ask_once
from rankllm_infer.ranking.strategies.sliding import WindowSchedule, slide
from rankllm_infer.ranking.strategies.steps import Steps, Window
from rankllm_infer.ranking.strategies.top_down import partition
from rankllm_infer.ranking.strategies.tournament import play

__all__ = [
    "STRATEGIES",
    "TOP_K_STRATEGIES",
    "Steps",
    "Strategy",
    "Window",
    "WindowSchedule",
    "check_pass_depth",
    "choose_strategy",
    "consensus",
]

STRATEGIES = ("sliding", "full", "top-down", "tournament")
TOP_K_STRATEGIES = ("top-down", "tournament")
"""Those that find the best k and leave the rest much as it was."""

Strategy = Callable[[int], Steps]
"""Begins to rank so many candidates."""


def choose_strategy(name: str, *, size: int, stride: int, top_k: int | None = None) -> Strategy:
    """A strategy for windows of `size`. stride: of `sliding`. top_k: of those that find a top k; None: half a window.

    Raises ConfigError where the numbers do not go together.
    """
    one_of(name, STRATEGIES, where="strategy")
    if name not in TOP_K_STRATEGIES:
        if top_k is not None:
            raise ConfigError(f"--rank-top-k has no effect with --strategy {name}; leave it out")
        if name == "full":
            return partial(ask_once, size=size)
        return partial(slide, schedule=WindowSchedule(size=size, stride=stride))
    wanted = max(1, size // 2) if top_k is None else top_k
    if not 0 < wanted < size:
        raise ConfigError(
            f"--rank-top-k {wanted}: expected at least 1 and less than the window of {size} passages; "
            "use a smaller --rank-top-k, or a larger --window-size"
        )
    return partial(partition if name == "top-down" else play, size=size, top_k=wanted)


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
