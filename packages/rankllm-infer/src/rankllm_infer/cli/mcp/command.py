"""`rankllm-infer mcp`: a reranker as tools of a language model's client."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from rankllm_core.command_line import NAME, PATH
from rankllm_infer.cli import SETTINGS, say
from rankllm_infer.cli.options import GroupedCommand, row_options, select
from rankllm_infer.cli.rerank import given_options
from rankllm_infer.cli.rerank_options import DtypeSwitches, ModelArguments
from rankllm_infer.console import SCREEN
from rankllm_infer.options import RerankOptions

if TYPE_CHECKING:
    from rankllm_infer.mcp_server.server import Tools
    from rankllm_infer.mcp_server.transports import HttpSettings

_HTTP_ONLY = {"host": "--host", "port": "--port", "api_key_file": "--api-key-file", "allowed_hosts": "--allowed-host"}


@dataclass(frozen=True, slots=True, kw_only=True)
class McpCommand:
    """One command line of `mcp`."""

    model: str
    options: RerankOptions
    transport: Literal["stdio", "http"]
    http: HttpSettings
    corpus: Path | None
    index: str | None
    max_documents: int
    request_timeout_s: float


def read_command(given: Mapping[str, Any]) -> McpCommand:
    """The command line as one value. Raises UsageError where it does not go together, RankLLMError for a key file."""
    if given["transport"] == "stdio":
        for name, flag in _HTTP_ONLY.items():
            if given[name] not in (None, ()):
                raise click.UsageError(f"{flag} has no effect with --transport stdio; leave it out")
    return McpCommand(
        model=given["model_path"],
        options=given_options(given),
        transport=given["transport"],
        http=_http_settings(given),
        corpus=given["corpus"],
        index=given["index"],
        max_documents=given["max_documents"],
        request_timeout_s=given["request_timeout"],
    )


def _http_settings(given: Mapping[str, Any]) -> HttpSettings:
    from rankllm_infer.mcp_server.keys import read_keys
    from rankllm_infer.mcp_server.transports import HttpSettings

    asked = {name: given[name] for name in ("host", "port", "allowed_hosts") if given[name] is not None}
    keys = () if given["api_key_file"] is None else read_keys(given["api_key_file"])
    settings = HttpSettings(**asked, keys=keys)
    if not settings.is_loopback and not keys:
        raise click.UsageError(
            f"--host {settings.host} is reached from other machines, which needs --api-key-file; "
            "or leave --host out, for this machine alone"
        )
    return settings


@click.command("mcp", cls=GroupedCommand, context_settings=SETTINGS)
@row_options(*select(ModelArguments), *select(RerankOptions), *select(DtypeSwitches))
@click.option(
    "--transport",
    type=click.Choice(["stdio", "http"]),
    default="stdio",
    help="stdio: the client starts this command and speaks over its standard input and output. "
    "http: streamable HTTP, for any number of clients.",
)
@click.option("--host", type=NAME, help="With http: address to listen on.  [default: 127.0.0.1]")
@click.option(
    "--port", type=click.IntRange(0, 65535), help="With http: port to listen on; 0 takes a free one.  [default: 8000]"
)
@click.option(
    "--api-key-file",
    type=PATH,
    help="With http: file of API keys, one a line; clients send one as Authorization: Bearer KEY.",
)
@click.option(
    "--allowed-host",
    "allowed_hosts",
    type=NAME,
    multiple=True,
    help="With http: further value of the Host header to answer, such as the name of this machine. May be repeated.",
)
@click.option(
    "--corpus", type=PATH, help="Passages to search, JSONL or TSV (gz, xz): adds the tool retrieve_and_rerank."
)
@click.option(
    "--index",
    type=NAME,
    help="With --corpus: folder of its BM25 index, created if missing. Alone: a Lucene index, a folder or one of "
    "Pyserini's by name; adds the tool retrieve_and_rerank.",
)
@click.option("--max-documents", type=click.IntRange(1), default=200, help="Documents that one call may rerank.")
@click.option(
    "--request-timeout",
    type=click.FloatRange(min=0, min_open=True),
    default=120.0,
    help="Seconds that one call may take.",
)
def command(**given: Any) -> None:
    """Serve a reranker to MCP clients: desktop applications and agents.

    Offers the tool `rerank`, and `retrieve_and_rerank` when there is a collection to search. The model is loaded once,
    before the first call. With --transport stdio, nothing but protocol goes to standard output.
    """
    from rankllm_infer.mcp_server.server import check_sdk, make_server
    from rankllm_infer.mcp_server.transports import quiet_standard_output, serve_http, serve_stdio

    asked = read_command(given)
    check_sdk()
    with contextlib.ExitStack() as stack:
        with quiet_standard_output():
            tools = stack.enter_context(_loaded(asked))
            server = make_server(tools)
        if asked.transport == "stdio":
            say("Ready: speaking MCP on standard input and output")
            serve_stdio(server)
        else:
            serve_http(server, asked.http, tell=say)


@contextlib.contextmanager
def _loaded(asked: McpCommand) -> Iterator[Tools]:
    """The tools, with everything loaded that a call needs."""
    from rankllm_infer.jobs.rerank import load_model
    from rankllm_infer.mcp_server.collection import open_collection
    from rankllm_infer.mcp_server.server import Tools, limits_for
    from rankllm_infer.plan import plan_reranking

    has_collection = asked.corpus is not None or asked.index is not None
    collection = open_collection(asked.corpus, asked.index, watcher=SCREEN) if has_collection else None
    say(f"Loading {asked.model}, once for all calls ...")
    with load_model(plan_reranking(asked.model, asked.options), SCREEN) as reranker:
        limits = limits_for(reranker.card, max_documents=asked.max_documents, request_timeout_s=asked.request_timeout_s)
        yield Tools(reranker, limits, collection)
