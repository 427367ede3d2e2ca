"""Options of the MCP server besides those of its reranker: transport, collection and limits."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rankllm_core.errors import ConfigError
from rankllm_infer.option_table import option
from rankllm_infer.option_values import check_bounds, check_field_types

LOOPBACK = ("127.0.0.1", "localhost", "::1")
"""Addresses that this machine alone reaches."""


@dataclass(frozen=True, slots=True, kw_only=True)
class McpOptions:
    """Options of the MCP server. Raises ConfigError where a value cannot be used."""

    transport: str = option("stdio", "--transport", group="Server", effect="none", choices=("stdio", "http"))
    """stdio: the client starts this command and speaks over its standard input and output. http: streamable HTTP, for
    any number of clients."""
    host: str = option("127.0.0.1", "--host", group="Server", effect="none", metavar="HOSTNAME")
    """Address to listen on with --transport http. One that other machines reach needs --api-key-file."""
    port: int = option(8000, "--port", group="Server", effect="none", least=0, most=65535, metavar="PORT")
    """Port to listen on with --transport http; 0 chooses a free one and prints it."""
    api_key_file: Path | None = option(None, "--api-key-file", group="Server", effect="none")
    """File of API keys, one per line; blank lines and lines that begin with # are skipped. Requests over HTTP then need
    the header "Authorization: Bearer KEY"."""
    allowed_host: tuple[str, ...] = option(
        (), "--allowed-host", group="Server", effect="none", metavar="HOSTNAME", default_text="this machine and --host"
    )
    """Further host name that HTTP requests may be addressed to, as in the Host header. Repeat the option for several.
    Others are refused, which protects a local server from web pages that resolve their name to it (DNS rebinding)."""
    corpus: Path | None = option(None, "--corpus", group="Server", effect="none")
    """Passages to search with BM25, JSONL or TSV (gz, xz). Adds the tool retrieve_and_rerank."""
    index: str | None = option(None, "--index", group="Server", effect="none", metavar="FOLDER|NAME")
    """With --corpus, the folder of its BM25 index, which is built where it is missing. Alone, a Lucene index to search:
    a folder, or the name of one of Pyserini's; adds the tool retrieve_and_rerank."""
    max_documents: int = option(200, "--max-documents", group="Server", effect="none", least=1)
    """Maximum number of documents per call."""
    request_timeout_s: float = option(
        120.0, "--request-timeout", group="Server", effect="none", above=0, unit="seconds", metavar="SECONDS"
    )
    """Seconds after which a call is given up, waiting time included."""

    def __post_init__(self) -> None:
        check_field_types(self)
        check_bounds(self)
        if self.transport == "http" and self.host not in LOOPBACK and self.api_key_file is None:
            raise ConfigError(
                f"--host {self.host} is reached from other machines, which needs --api-key-file; "
                "or leave --host out, for this machine alone"
            )
