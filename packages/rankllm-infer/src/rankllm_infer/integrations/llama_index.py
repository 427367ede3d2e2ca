"""Reranker as a LlamaIndex node postprocessor, for query engines, chat engines and custom pipelines."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rankllm_core.errors import RankLLMError
from rankllm_infer.api import Reranker
from rankllm_infer.integrations.stored_options import as_options, to_plain
from rankllm_infer.integrations.texts import TextReranker, missing_package
from rankllm_infer.options import RerankOptions
from rankllm_infer.ranking.documents import RankedTexts, check_top

try:
    from llama_index.core.bridge.pydantic import ConfigDict, Field, PrivateAttr, field_serializer, field_validator
    from llama_index.core.callbacks import CBEventType, EventPayload
    from llama_index.core.instrumentation import get_dispatcher
    from llama_index.core.instrumentation.events.rerank import ReRankEndEvent, ReRankStartEvent
    from llama_index.core.postprocessor.types import BaseNodePostprocessor
    from llama_index.core.schema import MetadataMode, NodeWithScore, QueryBundle
    from pydantic.json_schema import SkipJsonSchema
except ModuleNotFoundError as error:
    raise missing_package(error, "llama_index.core", extra="llama-index") from None

__all__ = ["RankLLMRerank"]

_dispatcher = get_dispatcher(__name__)


class RankLLMRerank(BaseNodePostprocessor):
    """Reranks retrieved nodes with a large language model.

    The model is loaded when the postprocessor is created. Nodes are returned as copies whose metadata describe how they
    were ranked (`rankllm_status`, `rankllm_score_kind`, and `rankllm_defects` if there are any); prompts and embeddings
    do not include it. Raises RankLLMError if the model cannot be loaded, or a query cannot be ranked.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid")

    model: str | Path | None = Field(
        default=None, frozen=True, description="A folder, a hub name, or a bundled reranker."
    )
    top_n: int | None = Field(default=None, description="Number of nodes to return; None: all.")
    options: RerankOptions | None = Field(
        default=None, frozen=True, description="RerankOptions, or its fields by name."
    )
    instruction: str | None = Field(default=None, description="What counts as relevant.")
    metadata_mode: MetadataMode = Field(
        default=MetadataMode.EMBED, description="Which of a node's metadata the model sees before the text."
    )
    reranker: SkipJsonSchema[Reranker | None] = Field(
        default=None,
        exclude=True,
        repr=False,
        frozen=True,
        description="An already loaded reranker, instead of `model`.",
    )
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

    @classmethod
    def class_name(cls) -> str:
        """Return the name under which LlamaIndex serializes the component."""
        return "RankLLMRerank"

    def _postprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        query = _query_of(query_bundle)
        with self._reported(nodes, query) as found:
            ranked = self._texts.rank(
                query, self._shown(nodes), scores=[node.score for node in nodes], instruction=self.instruction
            )
            found += self._best(nodes, ranked)
        return found

    async def _apostprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        query = _query_of(query_bundle)
        with self._reported(nodes, query) as found:
            ranked = await self._texts.arank(
                query, self._shown(nodes), scores=[node.score for node in nodes], instruction=self.instruction
            )
            found += self._best(nodes, ranked)
        return found

    @contextmanager
    def _reported(self, nodes: list[NodeWithScore], query: str) -> Iterator[list[NodeWithScore]]:
        """Report start and end to LlamaIndex's observers. Yields the list to fill with the reranked nodes."""
        top_n, name = self.top_n or len(nodes), self._texts.name
        payload: dict[str, Any] = {
            EventPayload.NODES: nodes,
            EventPayload.MODEL_NAME: name,
            EventPayload.QUERY_STR: query,
            EventPayload.TOP_K: top_n,
        }
        found: list[NodeWithScore] = []
        _dispatcher.event(ReRankStartEvent(query=query, nodes=nodes, top_n=top_n, model_name=name))
        with self.callback_manager.event(CBEventType.RERANKING, payload=payload) as event:
            yield found
            event.on_end(payload={EventPayload.NODES: found})
        _dispatcher.event(ReRankEndEvent(nodes=found))

    def _shown(self, nodes: list[NodeWithScore]) -> list[str | None]:
        """Return the text of each node as shown to the model; None without text, regardless of its metadata."""
        return [node.get_content(self.metadata_mode) if node.get_content().strip() else None for node in nodes]

    def _best(self, nodes: list[NodeWithScore], ranked: RankedTexts) -> list[NodeWithScore]:
        best = list(zip(ranked.order, ranked.scores, strict=True))[: self.top_n]
        return [_copied(nodes[position], score, ranked) for position, score in best]


def _query_of(query_bundle: QueryBundle | None) -> str:
    if query_bundle is None:
        raise RankLLMError("query: expected query_str or query_bundle, found neither")
    return query_bundle.query_str


def _copied(found: NodeWithScore, score: float | None, ranked: RankedTexts) -> NodeWithScore:
    """Copy a node with its new score and notes on the ranking, which are hidden from prompts and embeddings."""
    node, notes = found.node, ranked.notes()
    update = {
        "metadata": node.metadata | notes,
        "excluded_embed_metadata_keys": [*dict.fromkeys((*node.excluded_embed_metadata_keys, *notes))],
        "excluded_llm_metadata_keys": [*dict.fromkeys((*node.excluded_llm_metadata_keys, *notes))],
    }
    return found.model_copy(update={"node": node.model_copy(update=update), "score": score})
