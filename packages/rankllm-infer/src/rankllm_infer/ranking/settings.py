"""Ranking settings apart from the model and its card, and checks against the card's windows."""

from __future__ import annotations

from dataclasses import dataclass

from rankllm_core.card import ListwiseCard
from rankllm_core.errors import ConfigError
from rankllm_core.prompts.template import Message
from rankllm_infer.ranking.strategies import (
    TOP_K_STRATEGIES,
    Strategy,
    WindowSchedule,
    check_pass_depth,
    choose_strategy,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class RankingSettings:
    """Everything that affects a ranking apart from the model and its card. Methods ignore settings they do not use."""

    strategy: str | None = None
    """One of `strategies.STRATEGIES` or, for a pairwise card, `pairwise_strategies.STRATEGIES`. None: `sliding`, or
    `all-pairs`."""
    rank_top_k: int | None = None
    """Number of top candidates to find, for strategies that find a top k; None: half a window, or `DEFAULT_TOP_K` for a
    pairwise card."""
    permutations: int = 1
    """Query each window this many times, shuffled after the first, and aggregate the rankings."""
    num_passes: int = 1
    pass_depth: int | None = None
    """Number of top ranks that passes after the first rerank; the rest keep their order."""
    top_k_candidates: int | None = None
    """Number of candidates to rerank; the rest follow in their order."""
    shuffle_seed: int | None = None
    """Seed for shuffling the candidates of each request in each pass; None keeps the first-stage order."""
    permutation_seed: int = 0
    """Seed for shuffling inside windows."""
    system_message: str | None = None
    instruction: str | None = None
    """What counts as relevant, unless a request specifies it; None: the template's own."""
    few_shot: tuple[Message, ...] = ()
    short_windows: bool = True
    """Allow windows with fewer passages than the window size."""
    free_decoding: bool = True
    """True if answers are generated freely; otherwise decoding is constrained to permutations where possible."""
    decode_top_k: int | None = None
    """With constrained decoding: number of identifiers to generate per window; the rest keep their order."""
    with_trace: bool = False
    max_traced_calls: int | None = None
    """With `with_trace`: record only this many model calls, without their prompts, because clients share a server's
    memory. None: record all calls with their prompts."""

    def __post_init__(self) -> None:
        for name in ("num_passes", "permutations", "top_k_candidates"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise ConfigError(f"{name}: expected at least 1, found {value}")
        check_pass_depth(self.pass_depth, num_passes=self.num_passes, top_k_candidates=self.top_k_candidates)
        if self.decode_top_k is not None and (self.free_decoding or self.decode_top_k < 1):
            raise ConfigError(f"decode_top_k: expected at least 1, and constrained decoding, found {self.decode_top_k}")
        if not self.short_windows and self.strategy not in (None, "sliding"):
            raise ConfigError(f"--no-variable-passages has no effect with --strategy {self.strategy}; leave it out")

    def traces(self, n_traced: int) -> bool:
        """Return whether to record another model call. n_traced: number of calls recorded so far."""
        return self.with_trace and (self.max_traced_calls is None or n_traced < self.max_traced_calls)

    def traced_prompt(self, prompt: str) -> str:
        """Return the part of a prompt to record."""
        return prompt if self.max_traced_calls is None else ""


def strategy_of(card: ListwiseCard, settings: RankingSettings) -> Strategy:
    """Return the strategy for the card's windows. Raises ConfigError for inconsistent numbers."""
    return choose_strategy(
        settings.strategy or "sliding", size=card.window_size, stride=card.stride, top_k=settings.rank_top_k
    )


def check_windows(card: ListwiseCard, settings: RankingSettings) -> None:
    """Raise ConfigError if the settings are incompatible with the card's windows."""
    if settings.decode_top_k is not None and settings.strategy in TOP_K_STRATEGIES:
        wanted = settings.rank_top_k or max(1, card.window_size // 2)
        if settings.decode_top_k < wanted:
            raise ConfigError(
                f"--decode-top-k {settings.decode_top_k}: --strategy {settings.strategy} needs the first {wanted} of a "
                "window; use a larger --decode-top-k or a smaller --rank-top-k"
            )
    if not settings.short_windows and settings.pass_depth is not None:
        windows = WindowSchedule(size=card.window_size, stride=card.stride).windows(settings.pass_depth)
        if any(end - start < card.window_size for start, end in windows):
            raise ConfigError(
                f"--pass-depth {settings.pass_depth}: leaves a window with fewer than {card.window_size} passages, but "
                "--no-variable-passages requires full windows; use a depth of one window plus whole strides"
            )
    strategy_of(card, settings)


def check_full_windows(card: ListwiseCard, settings: RankingSettings, n_candidates: int) -> None:
    """Raise ConfigError if full windows are required and a query with this many candidates has an incomplete one.

    n_candidates: all candidates of the query; those beyond `top_k_candidates` are ignored.
    """
    if settings.short_windows:
        return
    size, stride = card.window_size, card.stride
    n = n_asked(settings, n_candidates)
    lengths = [end - start for start, end in WindowSchedule(size=size, stride=stride).windows(n)]
    shortest = min(
        (length for length in lengths if length > 1), default=size
    )  # a window of one is never shown to the model
    if shortest == size:
        return
    if n < size:
        found, way_out = f"{n} candidates for a window of {size}", "retrieve more or use a smaller --window-size"
    else:
        full = size + (n - size) // stride * stride
        found = f"its {n} candidates leave a window of {shortest} (--window-size {size} --stride {stride})"
        way_out = f"use --top-k-candidates {full}, or other windows"
    raise ConfigError(f"{found}, but --no-variable-passages requires full windows; {way_out}")


def count_prompts(card: ListwiseCard, settings: RankingSettings, n_candidates: int) -> int:
    """Return the number of prompts for a number of candidates; 0 if such a query cannot be prompted.

    Exact except for `top-down`, where it depends on the answers: the number for a perfect first stage, which is the
    minimum.
    """
    n = n_asked(settings, n_candidates)
    later = n if settings.pass_depth is None else min(n, settings.pass_depth)
    strategy = strategy_of(card, settings)
    try:
        check_full_windows(card, settings, n_candidates)
        n_windows = _n_windows(strategy, n) + (settings.num_passes - 1) * _n_windows(strategy, later)
        return settings.permutations * n_windows
    except ConfigError:
        return 0


def n_asked(settings: RankingSettings, n_candidates: int) -> int:
    """Return how many of a query's candidates are reranked."""
    return n_candidates if settings.top_k_candidates is None else min(n_candidates, settings.top_k_candidates)


def _n_windows(strategy: Strategy, n: int) -> int:
    steps = strategy(n)
    found, orders = 0, None
    while True:
        try:
            windows = steps.send(orders)  # type: ignore[arg-type]  # sending None starts a generator
        except StopIteration:
            return found
        found += len(windows)
        orders = tuple(window.shown for window in windows)
