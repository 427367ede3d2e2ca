"""What requests to the served model may hold, as `GET /v1/models` says it: strategies, windows, limits."""

from __future__ import annotations

from rankllm_core.card import ListwiseCard, PairwiseCard, PointwiseCard
from rankllm_infer.ranking import pairwise_strategies
from rankllm_infer.ranking.flow import RankingMethod
from rankllm_infer.ranking.listwise import ListwiseMethod
from rankllm_infer.ranking.pairwise import PairwiseMethod
from rankllm_infer.ranking.strategies import STRATEGIES
from rankllm_infer.serving.settings import ServerOptions


def capabilities(method: RankingMethod, options: ServerOptions) -> dict[str, object]:
    """What a client needs to know before it asks.

    `strategies` is empty and the windows are null where a request cannot choose them; `raw_scores` says whether the
    model scores documents, `instruction` whether its prompt has a place for one.
    """
    card = method.card
    has_windows = isinstance(card, ListwiseCard)
    return {
        "method": card.kind,
        "strategies": list(_strategies(method)),
        "strategy": _strategy(method),
        "window_size": card.window_size if has_windows else None,
        "stride": card.stride if has_windows else None,
        "instruction": isinstance(card, PointwiseCard) and card.template.takes_instruction,
        "raw_scores": _scores(method),
        "max_documents": options.max_documents,
        "max_body": options.max_body,
    }


def _strategies(method: RankingMethod) -> tuple[str, ...]:
    if isinstance(method, ListwiseMethod):
        return STRATEGIES
    return tuple(pairwise_strategies.STRATEGIES) if isinstance(method, PairwiseMethod) else ()


def _strategy(method: RankingMethod) -> str | None:
    if isinstance(method, ListwiseMethod):
        return method.settings.strategy or "sliding"
    return method.settings.strategy or "all-pairs" if isinstance(method, PairwiseMethod) else None


def _scores(method: RankingMethod) -> bool:
    if isinstance(method.card, ListwiseCard):
        return method.card.answer == "first-token"
    return not isinstance(method.card, PairwiseCard) or _strategy(method) == "all-pairs"
