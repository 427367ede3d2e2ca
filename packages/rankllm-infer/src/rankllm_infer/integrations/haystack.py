"""Reranker as a component of Haystack pipelines that can be serialized."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rankllm_core.errors import RankLLMError
from rankllm_infer.api import Reranker
from rankllm_infer.integrations.stored_options import to_plain
from rankllm_infer.integrations.texts import TextReranker, missing_package
from rankllm_infer.options import RerankOptions
from rankllm_infer.ranking.documents import RankedTexts, check_top

try:
    from haystack import Document, component, default_from_dict, default_to_dict
except ModuleNotFoundError as error:
    raise missing_package(error, "haystack", extra="haystack") from None

__all__ = ["RankLLMRanker"]


@component
class RankLLMRanker:
    """Ranks documents for a query with a large language model.

    The model is loaded by `warm_up`, which a pipeline calls before its first run, or else by the first run. Documents
    are returned as copies. Raises RankLLMError if the model cannot be loaded, or a query cannot be ranked.
    """

    def __init__(
        self,
        model: str | Path | None = None,
        *,
        top_k: int | None = None,
        options: RerankOptions | Mapping[str, Any] | None = None,
        instruction: str | None = None,
        meta_fields_to_embed: list[str] | None = None,
        meta_data_separator: str = "\n",
        reranker: Reranker | None = None,
    ) -> None:
        """model: a folder, a hub name, a bundled reranker, or a server's name for the model.

        top_k: number of documents to return; None: all. options: `RerankOptions`, or a mapping of its fields.
        instruction: what counts as relevant, for models that take an instruction. meta_fields_to_embed: fields of
        `meta` shown to the model before the content, separated by `meta_data_separator`. reranker: an already loaded
        reranker, instead of `model`; a component with one cannot be serialized. Raises ConfigError for unusable values.
        """
        check_top(top_k, name="top_k")
        self._texts = TextReranker(None if model is None else str(model), options, reranker=reranker)
        self.top_k = top_k
        self.instruction = instruction
        self.meta_fields_to_embed = list(meta_fields_to_embed or [])
        self.meta_data_separator = meta_data_separator

    def warm_up(self) -> None:
        """Load the model, once. Raises RankLLMError."""
        self._texts.load()

    async def warm_up_async(self) -> None:
        """Load the model, once, without blocking the event loop."""
        await self._texts.aload()

    def close(self) -> None:
        """Release the model; a reranker that was passed in stays open."""
        self._texts.close()

    async def close_async(self) -> None:
        """Release the model like `close`, without blocking the event loop."""
        await asyncio.to_thread(self._texts.close)

    def to_dict(self) -> dict[str, Any]:
        """Serialize the component, without a server's API key, which is read from OPENAI_API_KEY when restored.

        Raises RankLLMError if a reranker was passed in, because it cannot be serialized.
        """
        if self._texts.model is None:
            raise RankLLMError("a reranker that was passed in cannot be serialized; use model and options instead")
        return default_to_dict(
            self,
            model=self._texts.model,
            top_k=self.top_k,
            options=to_plain(self._texts.options),
            instruction=self.instruction,
            meta_fields_to_embed=self.meta_fields_to_embed,
            meta_data_separator=self.meta_data_separator,
        )

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> RankLLMRanker:
        """Restore a component serialized by `to_dict`."""
        restored: RankLLMRanker = default_from_dict(cls, data)
        return restored

    @component.output_types(documents=list[Document], status=str, defects=list[str], score_kind=str)
    def run(self, query: str, documents: list[Document], top_k: int | None = None) -> dict[str, Any]:
        """Rank documents for a query.

        documents: duplicates by id are ranked once; documents without text come last, with score None. top_k: number of
        documents to return, instead of the component's. Returns `documents`, best first, with scores from 0 to 1;
        `status` (ok, repaired or fallback) and `defects`, which describe how the model's answers were parsed; and
        `score_kind`, the meaning of the scores. Raises RankLLMError if the query is empty or cannot be ranked.
        """
        check_top(top_k, name="top_k")
        documents = _each_once(documents)
        scores = [document.score for document in documents]
        ranked = self._texts.rank(query, self._shown(documents), scores=scores, instruction=self.instruction)
        return _output(documents, ranked, top_k or self.top_k)

    @component.output_types(documents=list[Document], status=str, defects=list[str], score_kind=str)
    async def run_async(self, query: str, documents: list[Document], top_k: int | None = None) -> dict[str, Any]:
        """Rank like `run`, without blocking the event loop; concurrent runs share the model's batches."""
        check_top(top_k, name="top_k")
        documents = _each_once(documents)
        scores = [document.score for document in documents]
        ranked = await self._texts.arank(query, self._shown(documents), scores=scores, instruction=self.instruction)
        return _output(documents, ranked, top_k or self.top_k)

    def _shown(self, documents: Sequence[Document]) -> list[str | None]:
        """Return the text of each document as shown to the model; None without content, regardless of its meta."""
        shown: list[str | None] = []
        for document in documents:
            fields = [str(document.meta[key]) for key in self.meta_fields_to_embed if document.meta.get(key)]
            content = (document.content or "").strip()
            shown.append(self.meta_data_separator.join([*fields, document.content or ""]) if content else None)
        return shown


def _each_once(documents: Sequence[Document]) -> list[Document]:
    """Deduplicate documents by id, keeping their order and, for each id, the first with the highest score."""
    by_id: dict[str, Document] = {}
    for document in documents:
        known = by_id.setdefault(document.id, document)
        if known.score is None or (document.score is not None and document.score > known.score):
            by_id[document.id] = document if document.score is not None else known
    return list(by_id.values())


def _output(documents: Sequence[Document], ranked: RankedTexts, top_k: int | None) -> dict[str, Any]:
    best = list(zip(ranked.order, ranked.scores, strict=True))[:top_k]
    return {
        "documents": [
            replace(documents[position], score=score, meta=dict(documents[position].meta)) for position, score in best
        ],
        "status": ranked.status,
        "defects": list(ranked.defects),
        "score_kind": ranked.score_kind,
    }
