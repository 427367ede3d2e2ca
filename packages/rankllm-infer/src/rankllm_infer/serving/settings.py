"""HTTP server options, in addition to the reranker options: model names, address, API keys and limits."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rankllm_core.errors import ConfigError
from rankllm_infer.option_table import option
from rankllm_infer.option_values import check_bounds, check_field_types

PROTECTABLE = ("health", "ready", "metrics", "page")
"""Endpoints that require no key by default."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerOptions:
    """HTTP server options. Raises ConfigError for invalid values."""

    served_model_name: tuple[str, ...] = option(
        (), "--served-model-name", group="Server", effect="none", metavar="NAME", default_text="--model-path"
    )
    """Model name accepted as "model" in requests. Repeat the option to accept several; responses contain the first one.
    A request with another name gets 404; a request without a name is accepted."""
    any_model_name: bool = option(False, "--any-model-name", group="Server", effect="none")
    """Accept any model name in requests."""
    host: str = option("127.0.0.1", "--host", group="Server", effect="none", metavar="HOSTNAME")
    """Address to listen on. 0.0.0.0 listens on all interfaces; combine it with --api-key-file."""
    port: int = option(8000, "--port", group="Server", effect="none", least=0, most=65535, metavar="PORT")
    """Port to listen on; 0 picks a free port and prints it."""
    allowed_host: tuple[str, ...] = option(
        (),
        "--allowed-host",
        group="Server",
        effect="none",
        metavar="HOSTNAME",
        default_text="localhost on a loopback address, else any",
    )
    """Host name accepted in the Host header of requests, without the port. Repeat the option to accept several; *
    allows any. Protects a local server against DNS rebinding by web pages."""
    cors_origin: tuple[str, ...] = option((), "--cors-origin", group="Server", effect="none", metavar="ORIGIN")
    """Origin whose web pages may call the server, such as https://app.example. Repeat the option to allow several; *
    allows any. Requests from other origins get 403."""
    api_key_file: Path | None = option(None, "--api-key-file", group="Server", effect="none")
    """File with API keys, one per line; blank lines and lines starting with # are skipped. Requests then require the
    header "Authorization: Bearer KEY"."""
    protect: tuple[str, ...] = option(
        (), "--protect", group="Server", effect="none", metavar=f"[{'|'.join(PROTECTABLE)}]"
    )
    """Also require a key for /health, /ready, /metrics or the page at /. Repeat the option to protect several. Browsers
    cannot send a key when opening a page, so `page` disables the page. Requires --api-key-file."""
    max_queue: int = option(256, "--max-queue", group="Server", effect="none", least=1)
    """Maximum number of requests queued or in flight; further requests get 429 with Retry-After."""
    max_documents: int = option(1000, "--max-documents", group="Server", effect="none", least=1)
    """Maximum number of documents per request."""
    max_body: int = option(8 * 1024 * 1024, "--max-body", group="Server", effect="none", least=1, metavar="BYTES")
    """Maximum size of a request body in bytes."""
    request_timeout_s: float = option(
        120.0, "--request-timeout", group="Server", effect="none", above=0, unit="seconds", metavar="SECONDS"
    )
    """Seconds after which a request is cancelled and answered with 504, including time in the queue."""
    ssl_certfile: Path | None = option(None, "--ssl-certfile", group="Server", effect="none")
    """TLS certificate chain (PEM). Requires --ssl-keyfile."""
    ssl_keyfile: Path | None = option(None, "--ssl-keyfile", group="Server", effect="none")
    """Private key for --ssl-certfile (PEM)."""
    root_path: str = option("", "--root-path", group="Server", effect="none", metavar="PATH")
    """URL path prefix under which a reverse proxy exposes this server, such as /rerankers/zephyr."""

    def __post_init__(self) -> None:
        check_field_types(self)
        check_bounds(self)
        if (self.ssl_certfile is None) != (self.ssl_keyfile is None):
            raise ConfigError("--ssl-certfile and --ssl-keyfile go together; one was given without the other")
        for name in self.protect:
            if name not in PROTECTABLE:
                raise ConfigError(f"--protect: expected one of {', '.join(PROTECTABLE)}, found {name!r}")
        if self.protect and self.api_key_file is None:
            raise ConfigError("--protect has no effect without --api-key-file")
        if self.any_model_name and len(self.served_model_name) > 1:
            raise ConfigError(
                "--any-model-name accepts every name, so only one --served-model-name has an effect; give one"
            )
        if self.root_path and (not self.root_path.startswith("/") or self.root_path.endswith("/")):
            raise ConfigError(f"--root-path: expected a path such as /rerank-api, found {self.root_path!r}")
        for origin in self.cors_origin:
            if origin != "*" and not origin.startswith(("http://", "https://")):
                raise ConfigError(f"--cors-origin: expected an origin such as https://app.example, found {origin!r}")
