"""Tools over the MCP SDK: calls are validated, ranked concurrently, report progress, and can be cancelled.

Uses the SDK's low-level server, so that tools have the schemas of `schemas`, and invalid arguments result in a one-line
tool error that the calling model can act on. Cancelling a call cancels the task that awaits the result and thereby the
request: the scheduler drops its prompts when the engine's step ends.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any

from rankllm_core.card import PointwiseCard
from rankllm_core.errors import MissingPackageError, RankLLMError, one_line
from rankllm_core.files import dumps
from rankllm_core.types import Request, Result
from rankllm_infer import __version__
from rankllm_infer.mcp_server.answers import answer
from rankllm_infer.mcp_server.arguments import Limits, read_rerank, read_search
from rankllm_infer.mcp_server.schemas import OUTPUT, rerank_input, rerank_text, search_input, search_text
from rankllm_infer.mcp_server.settings import McpOptions
from rankllm_infer.scheduling.scheduler import DeadlineError

if TYPE_CHECKING:
    from mcp.server.context import ServerRequestContext
    from mcp.server.lowlevel import Server
    from mcp_types import CallToolRequestParams, CallToolResult, ListToolsResult, Tool

    from rankllm_core.card import Card
    from rankllm_infer.api import Reranker
    from rankllm_infer.mcp_server.collection import Collection

Report = Callable[[int, int], Awaitable[None]]
"""Reports progress: answered prompts and their total."""
_NAME = "rankllm"


def check_sdk() -> None:
    """Raise MissingPackageError if the MCP SDK is not installed."""
    try:
        import mcp.server.lowlevel  # noqa: F401
    except ModuleNotFoundError:
        raise MissingPackageError(
            "the MCP server needs the package mcp, which is not installed. Install it with: uv add 'rankllm-infer[mcp]'"
        ) from None


def limits_for(card: Card, options: McpOptions) -> Limits:
    """Return the limits of a call to a model with this card."""
    return Limits(
        max_documents=options.max_documents,
        request_timeout_s=options.request_timeout_s,
        takes_instruction=isinstance(card, PointwiseCard) and card.template.takes_instruction,
    )


class Tools:
    """The tools: `rerank`, and `retrieve_and_rerank` if there is a collection to search."""

    def __init__(self, reranker: Reranker, limits: Limits, collection: Collection | None = None) -> None:
        self._reranker, self._limits, self._collection = reranker, limits, collection
        self._calls = {"rerank": self._rerank} | ({} if collection is None else {"retrieve_and_rerank": self._search})

    def listed(self) -> list[Tool]:
        """Return the tools as listed to clients."""
        from mcp_types import Tool, ToolAnnotations

        described = [("rerank", "Rerank documents", rerank_text(), rerank_input(self._limits))]
        if self._collection is not None:
            text = search_text(self._collection.name)
            described.append(("retrieve_and_rerank", "Search and rerank", text, search_input(self._limits)))
        # Repeated calls return the same answer and have no side effects.
        notes = ToolAnnotations(read_only_hint=True, idempotent_hint=True, open_world_hint=False)
        return [
            Tool(
                name=name,
                title=title,
                description=description,
                input_schema=schema,
                output_schema=dict(OUTPUT),
                annotations=notes,
            )
            for name, title, description, schema in described
        ]

    async def call(self, name: str, arguments: Mapping[str, Any], *, report: Report) -> Mapping[str, Any]:
        """Call a tool. Raises RankLLMError, in one line, for errors the caller can correct and for failed queries."""
        if name not in self._calls:
            raise RankLLMError(f"{name[:60]!r}: unknown tool; expected {' or '.join(self._calls)}")
        return await self._calls[name](arguments, report)

    async def _rerank(self, arguments: Mapping[str, Any], report: Report) -> Mapping[str, Any]:
        call = read_rerank(arguments, self._limits)
        result = await self._ranked(call.request, report)
        return self._answer(result, call.request, top_n=call.top_n, with_documents=call.with_documents)

    async def _search(self, arguments: Mapping[str, Any], report: Report) -> Mapping[str, Any]:
        call, collection = read_search(arguments, self._limits), self._collection
        if collection is None:
            raise RankLLMError("there is no collection to search")
        request = await asyncio.to_thread(collection.find, call.query, k=call.k, instruction=call.instruction)
        if not request.candidates:
            result = Result(query=request.query, candidates=(), n_ranked=0)
        else:
            result = await self._ranked(request, report)
        return self._answer(result, request, top_n=call.top_n, with_documents=True)

    async def _ranked(self, request: Request, report: Report) -> Result:
        """Rank a request. Raises RankLLMError if it takes too long or fails."""
        timeout_s = self._limits.request_timeout_s
        progress = _Progress(report, total=self._reranker.n_prompts(len(request.candidates)))
        future = self._reranker.submit(request, timeout_s=timeout_s, on_answered=progress.count)
        telling = asyncio.create_task(progress.tell())
        try:
            result = await asyncio.wrap_future(future)
            progress.end()
            await telling
        except DeadlineError:
            raise RankLLMError(
                f"not finished within {timeout_s:g} s (--request-timeout); rerank fewer documents, or try again later"
            ) from None
        finally:
            telling.cancel()
        if result.status == "failed":
            raise RankLLMError((result.error or "no answer").removeprefix(f"query {request.query.qid!r}: "))
        return result

    def _answer(
        self, result: Result, request: Request, *, top_n: int | None, with_documents: bool
    ) -> Mapping[str, Any]:
        return answer(result, request, top_n=top_n, with_documents=with_documents, card=self._reranker.card)


class _Progress:
    """Counts answers in the scheduler's thread and reports them in the event loop, possibly several at once."""

    def __init__(self, report: Report, *, total: int) -> None:
        self._report, self._total = report, total
        self._loop = asyncio.get_running_loop()
        self._has_news = asyncio.Event()
        self._n_answered = 0
        """Only written by the scheduler's thread."""
        self._is_over = False

    def count(self, qid: str) -> None:
        """Count an answer, in the scheduler's thread."""
        self._n_answered += 1
        # The loop may already be closed: a stopped server does not wait for answers.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._has_news.set)

    def end(self) -> None:
        """Signal that no more answers will come."""
        self._is_over = True
        self._has_news.set()

    async def tell(self) -> None:
        """Report answers as they arrive, until the end."""
        n_reported = 0
        while not self._is_over:
            await self._has_news.wait()
            self._has_news.clear()
            n = self._n_answered
            if n > n_reported:
                # n_prompts is a lower bound for top-down, and an upper bound for sorting strategies.
                await self._report(n, max(n, self._total))
                n_reported = n


def make_server(tools: Tools) -> Server[Any]:
    """Build a server with these tools, for any of the SDK's transports. Raises MissingPackageError."""
    check_sdk()
    import mcp_types as types
    from mcp.server.lowlevel import Server

    async def list_tools(context: ServerRequestContext[Any], params: object) -> ListToolsResult:
        return types.ListToolsResult(tools=tools.listed())

    async def call_tool(context: ServerRequestContext[Any], params: CallToolRequestParams) -> CallToolResult:
        async def report(n_answered: int, total: int) -> None:
            await context.session.report_progress(n_answered, total, "prompts answered")

        try:
            found = await tools.call(params.name, params.arguments or {}, report=report)
        except RankLLMError as error:
            text = types.TextContent(type="text", text=one_line(str(error)))
            return types.CallToolResult(content=[text], is_error=True)
        return types.CallToolResult(
            content=[types.TextContent(type="text", text=dumps(found))], structured_content=dict(found)
        )

    return Server(
        _NAME,
        version=__version__,
        title="rankllm reranker",
        on_list_tools=list_tools,
        on_call_tool=call_tool,
    )
