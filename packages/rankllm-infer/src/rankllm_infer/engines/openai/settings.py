"""Settings for an OpenAI-compatible server."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import SplitResult, unquote, urlsplit

from rankllm_core.errors import ConfigError
from rankllm_infer.engines.base import Read


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenAISettings:
    """Address, model and load limits of a server. Raises ConfigError."""

    base_url: str = field(repr=False)
    """Base URL of the API, usually ending in `/v1`. It may contain a password; messages show `shown_url` instead."""
    model: str
    """Name of the model on the server."""
    api_key: str | None = field(default=None, repr=False)
    """Sent as a bearer token; most local servers need none. Never logged and never part of a message."""
    timeout_s: float = 300.0
    """Maximum duration of one try in seconds, from connecting to the end of the answer."""
    max_retries: int = 5
    """Number of retries of a request after transient problems."""
    concurrency: int = 16
    """Maximum number of requests in flight."""
    top_logprobs: int = 20
    """Number of log-probabilities requested with `first-token`. 20 is the maximum of OpenAI and the default maximum of
    vLLM."""
    chat_template_kwargs: Mapping[str, object] = field(default_factory=lambda: {"enable_thinking": False})
    """Passed to the server's chat template (vLLM, SGLang, llama.cpp); omitted once the server refuses it."""

    def __post_init__(self) -> None:
        url = _parsed(self.base_url)
        if url is None or url.scheme not in ("http", "https") or not url.hostname or url.query or url.fragment:
            raise ConfigError(f"base_url: expected a URL such as http://localhost:8000/v1, found {self.shown_url!r}")
        if not self.model:
            raise ConfigError("model: expected the name of the model on the server, found none")
        for name in ("concurrency", "top_logprobs"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}: expected at least 1, found {getattr(self, name)}")
        if self.max_retries < 0:
            raise ConfigError(f"max_retries: expected at least 0, found {self.max_retries}")
        if not self.timeout_s > 0:
            raise ConfigError(f"timeout_s: expected more than 0 seconds, found {self.timeout_s}")
        if self.key is not None and not (self.key.isascii() and self.key.isprintable()):
            raise ConfigError("api_key: contains characters that cannot be sent in a header; check OPENAI_API_KEY")

    def check_read(self, read: Read) -> None:
        """Raise ConfigError if a chat server cannot be read this way."""
        if read == "head":
            raise ConfigError("a chat server has no score head; use a yes/no template (--prompt-template-path yes_no)")

    @property
    def key(self) -> str | None:
        """API key without surrounding whitespace (a key read from a file ends in a newline); None if there is none."""
        return (self.api_key or "").strip() or None

    @property
    def password(self) -> str | None:
        """Password in the address, if any."""
        url = _parsed(self.base_url)
        return unquote(url.password) if url is not None and url.password else None

    @property
    def shown_url(self) -> str:
        """Base address for messages, without user, password and query, which may be secret."""
        url = _parsed(self.base_url)
        if url is None:
            return self.base_url.rpartition("@")[2]
        host = url.netloc.rpartition("@")[2]
        return f"{url.scheme}://{host}{url.path.rstrip('/')}" if host else f"{url.scheme}:{url.path}".lstrip(":")

    def url(self, path: str) -> str:
        """Return the address of an API resource, such as `models`."""
        return f"{self.base_url.rstrip('/')}/{path}"


def _parsed(base_url: str) -> SplitResult | None:
    try:
        url = urlsplit(base_url)
        _ = url.port  # raises ValueError where it is not a number
    except ValueError:
        return None
    return url
