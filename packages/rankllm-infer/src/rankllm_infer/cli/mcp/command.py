"""`rankllm-infer mcp`: offer a reranker as tools to MCP clients."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from rankllm_core.errors import ConfigError
from rankllm_infer.cli import SETTINGS, say
from rankllm_infer.cli.options import GroupedCommand, row_options, select
from rankllm_infer.cli.rerank.command import given_options
from rankllm_infer.cli.rerank.options import DtypeSwitches, ModelArguments
from rankllm_infer.console import SCREEN
from rankllm_infer.mcp_server.settings import McpOptions
from rankllm_infer.option_table import rows_of
from rankllm_infer.option_values import from_given
from rankllm_infer.options import RerankOptions

if TYPE_CHECKING:
    from rankllm_infer.mcp_server.server import Tools

_HTTP_ONLY = ("host", "port", "api_key_file", "allowed_host")


@dataclass(frozen=True, slots=True, kw_only=True)
class McpCommand:
    """Parsed command line of `mcp`."""

    model: str
    options: RerankOptions
    server: McpOptions
    keys: tuple[str, ...]


def read_command(given: Mapping[str, Any]) -> McpCommand:
    """Parse the command line into one value. Raises UsageError for contradicting options, RankLLMError for a bad key
    file."""
    try:
        server = from_given(McpOptions, given)
    except ConfigError as error:
        raise click.UsageError(str(error)) from None
    if server.transport == "stdio":
        for name in _HTTP_ONLY:
            if given[name] not in (None, ()):
                flag = rows_of(McpOptions)[name].spelled
                raise click.UsageError(f"{flag} has no effect with --transport stdio; leave it out")
    from rankllm_infer.api_keys import read_keys

    keys = () if server.api_key_file is None else read_keys(server.api_key_file)
    return McpCommand(model=given["model_path"], options=given_options(given), server=server, keys=keys)


@click.command("mcp", cls=GroupedCommand, context_settings=SETTINGS)
@row_options(*select(ModelArguments), *select(RerankOptions), *select(DtypeSwitches), *select(McpOptions))
def command(**given: Any) -> None:
    """Serve a reranker to MCP clients: desktop applications and agents.

    Offers the tool `rerank` and, with a collection to search (--corpus, --index), `retrieve_and_rerank`. The model is
    loaded once, before the first call. With --transport stdio, standard output carries protocol messages only.
    """
    from rankllm_infer.mcp_server.server import check_sdk, make_server
    from rankllm_infer.mcp_server.transports import quiet_standard_output, serve_http, serve_stdio

    asked = read_command(given)
    check_sdk()
    with contextlib.ExitStack() as stack:
        with quiet_standard_output():
            server = make_server(stack.enter_context(_loaded(asked)))
        if asked.server.transport == "stdio":
            say("Ready: serving MCP on standard input and output")
            serve_stdio(server)
        else:
            serve_http(server, asked.server, keys=asked.keys, tell=say)


@contextlib.contextmanager
def _loaded(asked: McpCommand) -> Iterator[Tools]:
    """Load the model and the collection, and yield the tools."""
    from rankllm_infer.jobs.rerank import load_model
    from rankllm_infer.mcp_server.collection import open_collection
    from rankllm_infer.mcp_server.server import Tools, limits_for
    from rankllm_infer.plan import plan_reranking

    options = asked.server
    has_collection = options.corpus is not None or options.index is not None
    collection = open_collection(options.corpus, options.index, watcher=SCREEN) if has_collection else None
    say(f"Loading {asked.model} ...")
    with load_model(plan_reranking(asked.model, asked.options), SCREEN) as reranker:
        yield Tools(reranker, limits_for(reranker.card, options), collection)
