"""Reranker as a LangChain document compressor, for `ContextualCompressionRetriever` and custom chains."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rankllm_infer.api import Reranker
from rankllm_infer.integrations.stored_options import as_options, to_plain
from rankllm_infer.integrations.texts import TextReranker, missing_package
from rankllm_infer.options import RerankOptions
from rankllm_infer.ranking.documents import RankedTexts, check_top

try:
    from langchain_core.callbacks import Callbacks
    from langchain_core.documents import BaseDocumentCompressor, Document
    from pydantic import ConfigDict, Field, PrivateAttr, field_serializer, field_validator
    from pydantic.json_schema import SkipJsonSchema
except ModuleNotFoundError as error:
    raise missing_package(error, "langchain_core", extra="langchain") from None

__all__ = ["RankLLMRerank"]


class RankLLMRerank(BaseDocumentCompressor):
    """Reranks the documents of a retriever with a large language model.

    The model is loaded when the compressor is created. Documents are returned as copies with additional metadata:
    `relevance_score`; `rankllm_score_kind`, the meaning of the score; `rankllm_status`, how the model's answers were
    parsed; and `rankllm_defects`, if there were any. Raises RankLLMError if the model cannot be loaded, or a query
    cannot be ranked.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid")

    model: str | Path | None = Field(default=None, frozen=True)
    """A folder, a hub name, a bundled reranker, or a server's name for the model."""
    top_n: int | None = None
    """Number of documents to return; None: all."""
    options: RerankOptions | None = Field(default=None, frozen=True)
    """Options of the reranker, as `RerankOptions` or a mapping of its fields."""
    instruction: str | None = None
    """What counts as relevant, for models that take an instruction."""
    reranker: SkipJsonSchema[Reranker | None] = Field(default=None, exclude=True, repr=False, frozen=True)
    """An already loaded reranker, instead of `model`; several components may share it."""
    _texts: TextReranker = PrivateAttr()

    @field_validator("options", mode="plain")
    @classmethod
    def _read_options(cls, options: Any) -> RerankOptions | None:
        return as_options(options)

    @field_serializer("options")
    def _write_options(self, options: RerankOptions | None) -> dict[str, Any] | None:
        return to_plain(options)

    def model_post_init(self, context: Any, /) -> None:
        """Load the model. Raises RankLLMError."""
        check_top(self.top_n, name="top_n")
        self._texts = TextReranker(self.model, self.options, reranker=self.reranker)
        self._texts.load()

    def compress_documents(
        self, documents: Sequence[Document], query: str, callbacks: Callbacks | None = None
    ) -> Sequence[Document]:
        """Return the best documents, best first, with `relevance_score` from 0 to 1 in their metadata.

        A document of only whitespace cannot be shown to the model: it comes last with score None. callbacks: not used.
        Raises RankLLMError if the query is empty or cannot be ranked.
        """
        texts = [document.page_content for document in documents]
        return self._compressed(documents, self._texts.rank(query, texts, instruction=self.instruction))

    async def acompress_documents(
        self, documents: Sequence[Document], query: str, callbacks: Callbacks | None = None
    ) -> Sequence[Document]:
        """Rerank like `compress_documents`, without blocking the event loop; concurrent calls share the model's
        batches."""
        texts = [document.page_content for document in documents]
        return self._compressed(documents, await self._texts.arank(query, texts, instruction=self.instruction))

    def _compressed(self, documents: Sequence[Document], ranked: RankedTexts) -> list[Document]:
        notes = ranked.notes()
        best = list(zip(ranked.order, ranked.scores, strict=True))[: self.top_n]
        return [
            documents[position].model_copy(
                update={"metadata": documents[position].metadata | {"relevance_score": score} | notes}
            )
            for position, score in best
        ]
