"""The windows of a listwise ranking: whether a card and what was asked for go together, and how many there will be."""

from __future__ import annotations

from rankllm_core.card import ListwiseCard
from rankllm_core.errors import ConfigError
from rankllm_infer.ranking.flow import RankingSettings
from rankllm_infer.ranking.strategies import TOP_K_STRATEGIES, Strategy, WindowSchedule, choose_strategy


def strategy_of(card: ListwiseCard, settings: RankingSettings) -> Strategy:
    """The strategy for the card's windows. Raises ConfigError where the numbers do not go together."""
    return choose_strategy(settings.strategy, size=card.window_size, stride=card.stride, top_k=settings.rank_top_k)


def check_windows(card: ListwiseCard, settings: RankingSettings) -> None:
    """Raise ConfigError where what was asked for cannot be had with the card's windows."""
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
                f"--pass-depth {settings.pass_depth}: leaves a window of {card.window_size} that is not full, and "
                "--no-variable-passages asks for full windows; use a depth of a window and whole strides"
            )
    strategy_of(card, settings)


def check_full_windows(card: ListwiseCard, settings: RankingSettings, n_candidates: int) -> None:
    """Raise ConfigError where full windows are asked for and a query of so many candidates leaves one that is not.

    n_candidates: all of the query's; those beyond `top_k_candidates` do not count.
    """
    if settings.short_windows:
        return
    size, stride = card.window_size, card.stride
    n = n_asked(settings, n_candidates)
    lengths = [end - start for start, end in WindowSchedule(size=size, stride=stride).windows(n)]
    shortest = min((length for length in lengths if length > 1), default=size)  # a window of one is not asked
    if shortest == size:
        return
    if n < size:
        found, way_out = f"{n} candidates for a window of {size}", "retrieve more or use a smaller --window-size"
    else:
        full = size + (n - size) // stride * stride
        found = f"its {n} candidates leave a window of {shortest} (--window-size {size} --stride {stride})"
        way_out = f"use --top-k-candidates {full}, or other windows"
    raise ConfigError(f"{found}, and --no-variable-passages asks for full windows; {way_out}")


def count_prompts(card: ListwiseCard, settings: RankingSettings, n_candidates: int) -> int:
    """Prompts of a query of so many candidates; 0 where it cannot be asked.

    Exact but for `top-down`, where it depends on the answers: there it is what a first stage that is never wrong would
    lead to, which is the least.
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
    """How many of a query's candidates are reranked."""
    return n_candidates if settings.top_k_candidates is None else min(n_candidates, settings.top_k_candidates)


def _n_windows(strategy: Strategy, n: int) -> int:
    steps = strategy(n)
    found, orders = 0, None
    while True:
        try:
            windows = steps.send(orders)  # type: ignore[arg-type]  # a generator is begun by sending it None
        except StopIteration:
            return found
        found += len(windows)
        orders = tuple(window.shown for window in windows)
