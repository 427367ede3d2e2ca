"""Rank documents for one query: `Reranker.rank`, and the code that it shares with the integrations."""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from rankllm_core.card import Card, PointwiseCard
from rankllm_core.errors import ConfigError, RankLLMError, one_line
from rankllm_core.text import title_and_text
from rankllm_core.types import Candidate, Request, Result, Status, with_fields
from rankllm_infer.ranking.flow import Flow, RankingMethod, check_passages, make_request
from rankllm_infer.ranking.listwise import ListwiseMethod
from rankllm_infer.ranking.pairwise import PairwiseMethod
from rankllm_infer.ranking.pointwise import PointwiseMethod
from rankllm_infer.ranking.relevance import ScoreKind, relevance_scores

if TYPE_CHECKING:
    from concurrent.futures import Future

logger = logging.getLogger("rankllm_infer")
"""Logs the warnings about a loaded model, and answers that could not be parsed as a ranking."""

Document = str | Mapping[str, object] | Candidate
"""A text, a mapping with a text under one of `rankllm_core.text.TEXT_FIELDS`, or a candidate of a request."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RankedTexts:
    """The ranking of N texts."""

    order: tuple[int, ...] = ()
    """0-based input positions, best first; texts that could not be shown to the model come last, in input order."""
    scores: tuple[float | None, ...] = ()
    """From 0 to 1, never increasing with the rank; None for a text that could not be shown to the model."""
    score_kind: ScoreKind = "rank"
    status: Status = "ok"
    defects: tuple[str, ...] = ()

    def notes(self) -> dict[str, Any]:
        """Return how the texts were ranked, as metadata for the documents."""
        notes: dict[str, Any] = {"rankllm_status": self.status, "rankllm_score_kind": self.score_kind}
        return notes | {"rankllm_defects": list(self.defects)} if self.defects else notes


class RanksDocuments(ABC):
    """Mixin with `rank` and `arank` for a class that has a ranking method and `submit`."""

    method: RankingMethod

    @abstractmethod
    def submit(self, request: Request, *, start: Callable[[Request], Flow] | None = None) -> Future[Result]:
        """Rank one request. start: creates its flow."""

    def rank(
        self,
        query: str,
        documents: Iterable[Document],
        *,
        top_k: int | None = None,
        return_documents: bool = False,
        instruction: str | None = None,
    ) -> list[dict[str, Any]]:
        """Return one row per document, best first, in the format of sentence-transformers' `CrossEncoder.rank`.

        documents: texts, mappings with a text (optionally a title and metadata), or Candidates, in first-stage order if
        there is one. Only Candidates have first-stage scores; `fuse_weight` applies if all documents are Candidates.
        top_k: number of rows to return; None returns all. All documents are ranked in either case.
        return_documents: add `text` and all other fields of the document to its row.
        instruction: what counts as relevant, for models that support an instruction.

        A row contains `corpus_id`, the 0-based position in `documents`, and `score`, from 0 to 1 and never increasing
        with the rank. A document field with one of these names is returned as `doc.NAME`. The rows can be passed to
        `pandas.DataFrame`. Raises RankLLMError for an invalid argument, or if the model gave no answer.
        """
        asked = _Question.of(
            self.method, query, documents, top_k=top_k, return_documents=return_documents, instruction=instruction
        )
        answer = self.submit(asked.request, start=asked.method.flow)
        try:
            return asked.rows(answer.result())
        finally:
            answer.cancel()  # after Ctrl-C; a finished request is not affected

    async def arank(
        self,
        query: str,
        documents: Iterable[Document],
        *,
        top_k: int | None = None,
        return_documents: bool = False,
        instruction: str | None = None,
    ) -> list[dict[str, Any]]:
        """Like `rank`, without blocking the event loop. Concurrent calls share the engine's batches."""
        asked = _Question.of(
            self.method, query, documents, top_k=top_k, return_documents=return_documents, instruction=instruction
        )
        return asked.rows(await asyncio.wrap_future(self.submit(asked.request, start=asked.method.flow)))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Question:
    """One call of `rank`: its request, and what it returns."""

    method: RankingMethod
    documents: Sequence[Document]
    request: Request
    """Its docids are positions in `documents`, so ids of the documents may repeat."""
    top_k: int | None
    return_documents: bool

    @classmethod
    def of(
        cls,
        method: RankingMethod,
        query: str,
        documents: Iterable[Document],
        *,
        top_k: int | None,
        return_documents: bool,
        instruction: str | None,
    ) -> _Question:
        check_passages(documents, name="documents")
        check_top(top_k, name="top_k")
        if instruction is not None and not _takes_instruction(method.card):
            raise ConfigError("instruction: has no effect, as the model's prompt has no field for it; leave it out")
        documents = list(documents)
        passages = [_numbered(document, position) for position, document in enumerate(documents)]
        scores = [document.score for document in documents if isinstance(document, Candidate)]
        request = make_request(query, passages, instruction=instruction)
        if len(scores) == len(documents):
            request = with_scores(request, scores)
        else:
            method = without_fusion(method)
        return cls(method=method, documents=documents, request=request, top_k=top_k, return_documents=return_documents)

    def rows(self, result: Result) -> list[dict[str, Any]]:
        ranked = read_ranking(result, self.method.card)
        rows: list[dict[str, Any]] = []
        for position, score in list(zip(ranked.order, ranked.scores, strict=True))[: self.top_k]:
            row: dict[str, Any] = {"corpus_id": position, "score": score}
            rows.append(with_fields(row, _fields(self.documents[position])) if self.return_documents else row)
        return rows


def _takes_instruction(card: Card) -> bool:
    return isinstance(card, PointwiseCard) and card.template.takes_instruction


def _numbered(document: Any, position: int) -> Any:
    """Return the document with its position as its docid. `make_request` rejects anything that is not a document."""
    doc = document.doc if isinstance(document, Candidate) else document
    if isinstance(doc, str):
        return {"pid": str(position), "text": doc}
    return {**doc, "pid": str(position)} if isinstance(doc, Mapping) else doc


def _fields(document: Document) -> Mapping[str, object]:
    """Return a document's fields, with its text as `text` whatever field stores it."""
    if isinstance(document, str):
        return {"text": document}
    if isinstance(document, Candidate):
        return {"text": title_and_text(document.doc)[1], **document.doc, "docid": document.docid}
    return {"text": title_and_text(document)[1], **document}


def without_fusion(method: RankingMethod) -> RankingMethod:
    """Return the method with scores of the model only, for documents without first-stage scores."""
    if not method.card.fuse_weight:
        return method
    card: Any = replace(method.card, fuse_weight=0.0)
    if isinstance(method, ListwiseMethod):
        return ListwiseMethod(card, method.settings, method.writer, sample=method.sample, warnings=method.warnings)
    if isinstance(method, PairwiseMethod):
        return PairwiseMethod(card, method.settings, method.writer)
    return PointwiseMethod(card, method.settings, method.writer) if isinstance(method, PointwiseMethod) else method


def with_scores(request: Request, scores: Sequence[float]) -> Request:
    """Return the request with other first-stage scores. scores: by position, which is each candidate's docid."""
    candidates = (replace(candidate, score=scores[int(candidate.docid)]) for candidate in request.candidates)
    return replace(request, candidates=tuple(candidates))


def check_top(top: int | None, *, name: str) -> None:
    """Raise ConfigError for an invalid number of documents to return. name: of the caller's argument."""
    if top is not None and (isinstance(top, bool) or not isinstance(top, int) or top < 1):
        raise ConfigError(f"{name}: expected an integer of at least 1, or None for all, found {top!r}")


def read_ranking(result: Result, card: Card) -> RankedTexts:
    """Return the ranking of a result whose docids are positions. Raises RankLLMError if the query failed."""
    kind, scores = relevance_scores(checked(result, is_named=False), card)
    return RankedTexts(
        order=tuple(int(candidate.docid) for candidate in result.candidates),
        scores=tuple(scores),
        score_kind=kind,
        status=result.status,
        defects=result.defects,
    )


def checked(result: Result, *, is_named: bool) -> Result:
    """Return the result of a query that was ranked; log a warning if answers of the model could not be read.

    is_named: whether the caller chose the qid. Raises RankLLMError if the query failed, since its documents are then
    in input order, which is not a ranking.
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
