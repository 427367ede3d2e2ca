"""What the integrations share: a reranker that is loaded once, texts ranked by it, and how its answers were read."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rankllm_core.errors import ConfigError, MissingPackageError, RankLLMError, one_line
from rankllm_core.types import Request, Result, Status
from rankllm_infer.api import Reranker, load_reranker
from rankllm_infer.integrations.stored_options import as_options
from rankllm_infer.options import RerankOptions
from rankllm_infer.ranking.flow import make_request
from rankllm_infer.ranking.relevance import ScoreKind, relevance_scores

logger = logging.getLogger("rankllm_infer.integrations")
"""Warns of what loading a model has to say, and of rankings that a model's answers do not cover."""


def missing_package(error: ModuleNotFoundError, package: str, *, extra: str) -> Exception:
    """What to raise where importing a framework failed: one line that says how to install it, or the error itself.

    package: the module that the framework is imported by. A module that the framework itself lacks is another error.
    """
    if error.name is None or error.name.partition(".")[0] != package.partition(".")[0]:
        return error
    return MissingPackageError(
        f"rankllm_infer.integrations.{extra.replace('-', '_')} needs {package}, which is not installed. "
        f"Install it with: uv add 'rankllm-infer[{extra}]'"
    )


def check_top(top: int | None, *, name: str) -> None:
    """Raise ConfigError where the number of documents to return is none. name: as the framework calls it."""
    if top is not None and (isinstance(top, bool) or not isinstance(top, int) or top < 1):
        raise ConfigError(f"{name}: expected an integer of at least 1, or None for all, found {top!r}")


@dataclass(frozen=True, slots=True, kw_only=True)
class RankedTexts:
    """N texts in the order of the model."""

    order: tuple[int, ...] = ()
    """0-based positions before reranking, best first; texts that could not be shown come last, in their given order."""
    scores: tuple[float | None, ...] = ()
    """From 0 to 1, never rising from one rank to the next; None for a text that could not be shown."""
    score_kind: ScoreKind = "rank"
    status: Status = "ok"
    defects: tuple[str, ...] = ()

    def notes(self) -> dict[str, Any]:
        """What documents are told of their ranking, under names for their metadata."""
        notes: dict[str, Any] = {"rankllm_status": self.status, "rankllm_score_kind": self.score_kind}
        return notes | {"rankllm_defects": list(self.defects)} if self.defects else notes


class TextReranker:
    """A reranker that is loaded once, on first use or by `load`, whichever thread comes first; or one passed in.

    Copies of a component share it: `copy.deepcopy` returns the same object. What is unpickled, in another process,
    loads the model on first use.
    """

    def __init__(
        self,
        model: str | Path | None,
        options: RerankOptions | Mapping[str, Any] | None = None,
        *,
        reranker: Reranker | None = None,
    ) -> None:
        """model, options: as for `load_reranker`. Raises ConfigError unless just one of model and reranker is given.

        The key of a server (engine openai) is read from OPENAI_API_KEY where the options hold none.
        """
        if (model is None) == (reranker is None):
            raise ConfigError("expected either model, which is loaded, or reranker, which is loaded already")
        if reranker is not None and options is not None:
            raise ConfigError("options: they have no effect on a reranker that is loaded already; leave them out")
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
        """The model's name, for people; of a reranker that was passed in, what describes it."""
        described = "" if self._reranker is None else self._reranker.description
        return str(self.model) if self.model is not None else described or "reranker"

    def load(self) -> Reranker:
        """The reranker, loaded where it is not yet. Raises RankLLMError as `load_reranker` does."""
        with self._lock:
            reranker = self._reranker
            if reranker is None:  # then there is a model
                reranker = self._reranker = load_reranker(self.model or "", self.options)
                for warning in reranker.warnings:
                    logger.warning("%s: %s", self.model, one_line(warning))
            return reranker

    async def aload(self) -> Reranker:
        """The reranker; loading it does not block the event loop."""
        reranker = self._reranker
        return await asyncio.to_thread(self.load) if reranker is None else reranker

    def close(self) -> None:
        """Release the model, which is loaded again on next use; a reranker that was passed in stays open.

        Requests in flight fail.
        """
        with self._lock:
            if self.model is not None and self._reranker is not None:
                # The end of a block fails what is in flight, which `close` refuses.
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
        """Rank texts. None, and a text of blanks, cannot be shown to the model.

        scores: of the first stage, for a card or options that fuse them in; where one is missing, ranks count.
        Raises RankLLMError where the query is empty or could not be ranked.
        """
        request = text_request(query, texts, scores=scores, instruction=instruction)
        if request is None:
            return _unranked(len(texts))
        reranker = self.load()
        (result,) = reranker.rerank([request])
        return _read(result, reranker, n=len(texts))

    async def arank(
        self,
        query: str,
        texts: Sequence[str | None],
        *,
        scores: Sequence[float | None] = (),
        instruction: str | None = None,
    ) -> RankedTexts:
        """As `rank`, without blocking the event loop; concurrent calls share the engine's batches."""
        request = text_request(query, texts, scores=scores, instruction=instruction)
        if request is None:
            return _unranked(len(texts))
        reranker = await self.aload()
        (result,) = await reranker.arerank([request])
        return _read(result, reranker, n=len(texts))


def text_request(
    query: str,
    texts: Sequence[str | None],
    *,
    scores: Sequence[float | None] = (),
    instruction: str | None = None,
) -> Request | None:
    """A request whose docids are positions in `texts`; None where no text can be shown. See `TextReranker.rank`."""
    shown = [(position, text) for position, text in enumerate(texts) if text is not None and text.strip()]
    if not shown:
        return None
    passages = [{"docid": str(position), "text": text} for position, text in shown]
    request = make_request(query, passages, instruction=instruction)
    known = [score for score in scores if score is not None]
    if len(known) < len(texts):
        return request
    candidates = (replace(candidate, score=known[int(candidate.docid)]) for candidate in request.candidates)
    return replace(request, candidates=tuple(candidates))


def checked(result: Result, *, is_named: bool) -> Result:
    """The result of a query that was ranked; warns where a model's answers could not be read.

    is_named: whether the caller knows the query by its qid. Raises RankLLMError where the query failed: its documents
    are in the order they came in, which is no ranking.
    """
    name = f"query {result.query.qid!r}: "
    where = name if is_named else ""
    if result.status == "failed":
        raise RankLLMError(where + (result.error or "no answer").removeprefix(name))
    if result.status == "fallback":
        shown = one_line("; ".join(result.defects[:3]))
        logger.warning(
            "%ssome of the model's answers could not be read (%s); the documents concerned keep their order",
            where,
            shown,
        )
    return result


def _unranked(n: int) -> RankedTexts:
    return RankedTexts(order=tuple(range(n)), scores=(None,) * n)


def _read(result: Result, reranker: Reranker, *, n: int) -> RankedTexts:
    """The ranking of n texts, of which the result holds those that could be shown."""
    kind, scores = relevance_scores(checked(result, is_named=False), reranker.card)
    order = [int(candidate.docid) for candidate in result.candidates]
    rest = sorted(set(range(n)) - set(order))
    return RankedTexts(
        order=(*order, *rest),
        scores=(*scores, *[None] * len(rest)),
        score_kind=kind,
        status=result.status,
        defects=result.defects,
    )
