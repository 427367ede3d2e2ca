"""What is asked of a ranking beside the model and its card, and whether it goes together with the card's windows."""

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
    """Everything that decides a ranking beside the model and its card. A method ignores what is not its own."""

    strategy: str | None = None
    """What is shown together: one of `strategies.STRATEGIES` or, of a pairwise card, `pairwise_strategies.STRATEGIES`.
    None: `sliding`, or `all-pairs`."""
    rank_top_k: int | None = None
    """How many of the best a strategy that finds a top k looks for; None: half a window, or `DEFAULT_TOP_K` of a
    pairwise card."""
    permutations: int = 1
    """Ask each window so many times, all but the first time with its passages shuffled, and take the consensus."""
    num_passes: int = 1
    pass_depth: int | None = None
    """Passes after the first rank this many of the first anew; the others keep their order behind them."""
    top_k_candidates: int | None = None
    """Rerank this many of the candidates; the others keep their order behind them."""
    shuffle_seed: int | None = None
    """Shuffle the candidates of each request first, in each pass; None keeps the first-stage order."""
    permutation_seed: int = 0
    """Of the shuffling inside windows."""
    system_message: str | None = None
    instruction: str | None = None
    """What counts as relevant, where a request does not say; None: the template's own."""
    few_shot: tuple[Message, ...] = ()
    short_windows: bool = True
    """Whether a window may hold fewer passages than its size."""
    free_decoding: bool = True
    """Whether an answer is what the model writes; if not, it is held to the permutations of the window where it can."""
    decode_top_k: int | None = None
    """With answers held to permutations: choose the first so many of a window; the others keep their order."""
    with_trace: bool = False
    max_traced_calls: int | None = None
    """With `with_trace`: record the first so many model calls only, and without their prompts, since many callers share
    a server's memory. None: all of them, with their prompts."""

    def __post_init__(self) -> None:
        for name in ("num_passes", "permutations", "top_k_candidates"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise ConfigError(f"{name}: expected at least 1, found {value}")
        check_pass_depth(self.pass_depth, num_passes=self.num_passes, top_k_candidates=self.top_k_candidates)
        if self.decode_top_k is not None and (self.free_decoding or self.decode_top_k < 1):
            raise ConfigError(
                f"decode_top_k: expected at least 1, and answers held to permutations, found {self.decode_top_k}"
            )
        if not self.short_windows and self.strategy not in (None, "sliding"):
            raise ConfigError(f"--no-variable-passages has no effect with --strategy {self.strategy}; leave it out")

    def traces(self, n_traced: int) -> bool:
        """Whether another model call is recorded. n_traced: calls recorded so far."""
        return self.with_trace and (self.max_traced_calls is None or n_traced < self.max_traced_calls)

    def traced_prompt(self, prompt: str) -> str:
        """What a record holds of a call's prompt."""
        return prompt if self.max_traced_calls is None else ""


def strategy_of(card: ListwiseCard, settings: RankingSettings) -> Strategy:
    """The strategy for the card's windows. Raises ConfigError where the numbers do not go together."""
    return choose_strategy(
        settings.strategy or "sliding", size=card.window_size, stride=card.stride, top_k=settings.rank_top_k
    )


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
