"""Capabilities of the served model, determined once, for OpenAPI and for `GET /v1/models`."""

from __future__ import annotations

from dataclasses import replace

from rankllm_core.card import ListwiseCard, PairwiseCard, PointwiseCard
from rankllm_infer.ranking import pairwise_strategies
from rankllm_infer.ranking.flow import RankingMethod
from rankllm_infer.ranking.listwise import ListwiseMethod
from rankllm_infer.ranking.pairwise import PairwiseMethod
from rankllm_infer.ranking.strategies import STRATEGIES
from rankllm_infer.serving.dialects.abilities import Abilities, Windows
from rankllm_infer.serving.dialects.errors import InvalidRequestError
from rankllm_infer.serving.dialects.questions import VLLM, Question
from rankllm_infer.serving.settings import ServerOptions
from rankllm_infer.serving.variants import method_of, takes_instruction


def abilities_of(method: RankingMethod, *, models: tuple[str, ...] | None, max_documents: int) -> Abilities:
    """Determine what requests may ask of a method. models: accepted names; None: any."""
    card = method.card
    is_pointwise = isinstance(card, PointwiseCard)
    windows = _windows_of(method) if isinstance(method, ListwiseMethod) else None
    generates = isinstance(card, ListwiseCard) and card.answer == "permutation"
    return Abilities(
        models=models,
        max_documents=max_documents,
        scores_pairs=is_pointwise,
        takes_instruction=takes_instruction(method),
        raw_scores="always" if is_pointwise else "never" if generates else "sometimes",
        strategies=() if is_pointwise else tuple(windows.sizes) if windows else tuple(pairwise_strategies.STRATEGIES),
        windows=windows,
    )


def _windows_of(method: ListwiseMethod) -> Windows:
    """Determine the window sizes that each strategy supports by trying them, since the server's options limit some."""
    largest = method.card.window_size
    sizes = {}
    for strategy in STRATEGIES:
        # A request shown in one window does not choose a window size.
        sizes_asked = [None] if strategy == "full" else range(2, largest + 1)
        taken = [size or largest for size in sizes_asked if _is_taken(method, strategy, size)]
        if taken:
            sizes[strategy] = (taken[0], taken[-1])
    return Windows(size=largest, strategy=method.settings.strategy or "sliding", sizes=sizes)


def _is_taken(method: ListwiseMethod, strategy: str, window_size: int | None) -> bool:
    asked = Question(dialect=VLLM, query="", documents=(), returns_documents=False)
    try:
        method_of(replace(asked, strategy=strategy, window_size=window_size), method)
    except InvalidRequestError:
        return False
    return True


def capabilities(method: RankingMethod, abilities: Abilities, options: ServerOptions) -> dict[str, object]:
    """Describe what a client needs to know before sending requests.

    `strategies` is empty and window fields are null if requests cannot choose them; `raw_scores` tells whether the
    model scores documents, `instruction` whether its prompt takes one.
    """
    card = method.card
    has_windows = isinstance(card, ListwiseCard)
    return {
        "method": card.kind,
        "strategies": list(abilities.strategies),
        "strategy": _strategy(method),
        "window_size": card.window_size if has_windows else None,
        "stride": card.stride if has_windows else None,
        "instruction": abilities.takes_instruction,
        "raw_scores": _scores(method),
        "max_documents": options.max_documents,
        "max_body": options.max_body,
    }


def _strategy(method: RankingMethod) -> str | None:
    if isinstance(method, ListwiseMethod):
        return method.settings.strategy or "sliding"
    return method.settings.strategy or "all-pairs" if isinstance(method, PairwiseMethod) else None


def _scores(method: RankingMethod) -> bool:
    if isinstance(method.card, ListwiseCard):
        return method.card.answer == "first-token"
    return not isinstance(method.card, PairwiseCard) or _strategy(method) == "all-pairs"
