"""MCP server options, in addition to the reranker options: transport, collection and limits."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rankllm_core.errors import ConfigError
from rankllm_infer.option_table import option
from rankllm_infer.option_values import check_bounds, check_field_types

LOOPBACK = ("127.0.0.1", "localhost", "::1")
"""Addresses that only this machine can reach."""


@dataclass(frozen=True, slots=True, kw_only=True)
class McpOptions:
    """MCP server options. Raises ConfigError for invalid values."""

    transport: str = option("stdio", "--transport", group="Server", effect="none", choices=("stdio", "http"))
    """Transport. stdio: the client starts this command and communicates over its standard input and output. http:
    streamable HTTP, for any number of clients."""
    host: str = option("127.0.0.1", "--host", group="Server", effect="none", metavar="HOSTNAME")
    """Address to listen on with --transport http. An address that other machines can reach requires --api-key-file."""
    port: int = option(8000, "--port", group="Server", effect="none", least=0, most=65535, metavar="PORT")
    """Port to listen on with --transport http; 0 picks a free port and prints it."""
    api_key_file: Path | None = option(None, "--api-key-file", group="Server", effect="none")
    """File with API keys, one per line; blank lines and lines starting with # are skipped. HTTP requests then require
    the header "Authorization: Bearer KEY"."""
    allowed_host: tuple[str, ...] = option(
        (), "--allowed-host", group="Server", effect="none", metavar="HOSTNAME", default_text="this machine and --host"
    )
    """Additional host name accepted in the Host header of HTTP requests. Repeat the option to accept several. Protects
    a local server against DNS rebinding by web pages."""
    corpus: Path | None = option(None, "--corpus", group="Server", effect="none")
    """Passages to search with BM25: JSONL or TSV (.gz, .xz). Adds the tool retrieve_and_rerank."""
    index: str | None = option(None, "--index", group="Server", effect="none", metavar="FOLDER|NAME")
    """With --corpus: folder for the BM25 index, built if missing. Without --corpus: Lucene index to search, either a
    folder or the name of a prebuilt Pyserini index; adds the tool retrieve_and_rerank."""
    max_documents: int = option(200, "--max-documents", group="Server", effect="none", least=1)
    """Maximum number of documents per call."""
    request_timeout_s: float = option(
        120.0, "--request-timeout", group="Server", effect="none", above=0, unit="seconds", metavar="SECONDS"
    )
    """Seconds after which a call is cancelled, including time in the queue."""

    def __post_init__(self) -> None:
        check_field_types(self)
        check_bounds(self)
        if self.transport == "http" and self.host not in LOOPBACK and self.api_key_file is None:
            raise ConfigError(
                f"--host {self.host} can be reached from other machines and needs --api-key-file; "
                "or omit --host to listen on this machine only"
            )
