"""Shared code of the integrations: a lazily loaded reranker that ranks texts."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rankllm_core.errors import ConfigError, MissingPackageError, RankLLMError
from rankllm_core.types import Request, Result
from rankllm_infer.api import Reranker, load_reranker
from rankllm_infer.integrations.stored_options import as_options
from rankllm_infer.options import RerankOptions
from rankllm_infer.ranking.documents import RankedTexts, read_ranking, with_scores
from rankllm_infer.ranking.flow import make_request


def missing_package(error: ModuleNotFoundError, package: str, *, extra: str) -> Exception:
    """The error to raise if importing a framework failed: a one-line install hint, or the original error.

    package: the framework's top-level module. If a dependency of the framework is missing, the error is returned as is.
    """
    if error.name is None or error.name.partition(".")[0] != package.partition(".")[0]:
        return error
    return MissingPackageError(
        f"rankllm_infer.integrations.{extra.replace('-', '_')} needs {package}, which is not installed. "
        f"Install it with: uv add 'rankllm-infer[{extra}]'"
    )


class TextReranker:
    """A reranker that is loaded once, on first use or by `load`, safely from any thread; or an existing one.

    Copies of a component share it: `copy.deepcopy` returns the same object. An unpickled copy in another process loads
    the model on first use.
    """

    def __init__(
        self,
        model: str | Path | None,
        options: RerankOptions | Mapping[str, Any] | None = None,
        *,
        reranker: Reranker | None = None,
    ) -> None:
        """model, options: as for `load_reranker`. Raises ConfigError unless exactly one of model and reranker is given.

        The API key of a server (engine openai) is read from OPENAI_API_KEY if the options contain none.
        """
        if (model is None) == (reranker is None):
            raise ConfigError("expected either model (to be loaded) or reranker (already loaded)")
        if reranker is not None and options is not None:
            raise ConfigError("options: they have no effect on a reranker that is already loaded; leave them out")
        self.model = model
        self.options = as_options(options)
        self._reranker = reranker
        self._lock = threading.Lock()

    def __deepcopy__(self, memo: dict[int, Any]) -> TextReranker:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        if self.model is None:
            raise RankLLMError("a reranker that was passed in cannot be pickled; give model and options instead")
        return TextReranker, (self.model, self.options)

    @property
    def name(self) -> str:
        """A display name: the model, or the description of a reranker that was passed in."""
        described = "" if self._reranker is None else self._reranker.description
        return str(self.model) if self.model is not None else described or "reranker"

    def load(self) -> Reranker:
        """Return the reranker, loading it on first use. Raises RankLLMError as `load_reranker` does."""
        with self._lock:
            reranker = self._reranker
            if reranker is None:  # `model` is set in this case
                reranker = self._reranker = load_reranker(self.model or "", self.options)
            return reranker

    async def aload(self) -> Reranker:
        """Like `load`, without blocking the event loop."""
        reranker = self._reranker
        return await asyncio.to_thread(self.load) if reranker is None else reranker

    def close(self) -> None:
        """Release the model, which is reloaded on next use; a reranker that was passed in stays open.

        Requests in flight fail.
        """
        with self._lock:
            if self.model is not None and self._reranker is not None:
                # Leaving the context fails requests in flight, whereas `close` would refuse to close.
                with self._reranker:
                    pass
                self._reranker = None

    def rank(
        self,
        query: str,
        texts: Sequence[str | None],
        *,
        scores: Sequence[float | None] = (),
        instruction: str | None = None,
    ) -> RankedTexts:
        """Rank texts. None and blank texts cannot be shown to the model and are placed last.

        scores: first-stage scores, for a card or options with score fusion; if any is missing, ranks are used.
        Raises RankLLMError if the query is empty or could not be ranked.
        """
        request = text_request(query, texts, scores=scores, instruction=instruction)
        if request is None:
            return _unranked(len(texts))
        reranker = self.load()
        return _read(reranker.rerank(request), reranker, n=len(texts))

    async def arank(
        self,
        query: str,
        texts: Sequence[str | None],
        *,
        scores: Sequence[float | None] = (),
        instruction: str | None = None,
    ) -> RankedTexts:
        """Like `rank`, without blocking the event loop; concurrent calls share the engine's batches."""
        request = text_request(query, texts, scores=scores, instruction=instruction)
        if request is None:
            return _unranked(len(texts))
        reranker = await self.aload()
        return _read(await reranker.arerank(request), reranker, n=len(texts))


def text_request(
    query: str,
    texts: Sequence[str | None],
    *,
    scores: Sequence[float | None] = (),
    instruction: str | None = None,
) -> Request | None:
    """A request whose docids are positions in `texts`; None if every text is blank. See `TextReranker.rank`."""
    shown = [(position, text) for position, text in enumerate(texts) if text is not None and text.strip()]
    if not shown:
        return None
    passages = [{"docid": str(position), "text": text} for position, text in shown]
    request = make_request(query, passages, instruction=instruction)
    known = [score for score in scores if score is not None]
    return request if len(known) < len(texts) else with_scores(request, known)


def _unranked(n: int) -> RankedTexts:
    return RankedTexts(order=tuple(range(n)), scores=(None,) * n)


def _read(result: Result, reranker: Reranker, *, n: int) -> RankedTexts:
    """The ranking of all n texts, from a result that contains only the non-blank ones."""
    ranked = read_ranking(result, reranker.card)
    rest = sorted(set(range(n)) - set(ranked.order))
    return replace(ranked, order=(*ranked.order, *rest), scores=(*ranked.scores, *[None] * len(rest)))
