"""Which OpenAI-compatible server to ask, and how."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import SplitResult, unquote, urlsplit

from rankllm_core.errors import ConfigError
from rankllm_infer.engines.base import Read


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenAISettings:
    """A server, its model, and how hard to press it. Raises ConfigError."""

    base_url: str = field(repr=False)
    """Where the API begins, most often ending in `/v1`. It may hold a password: messages have `shown_url`."""
    model: str
    """The model's name as the server knows it."""
    api_key: str | None = field(default=None, repr=False)
    """Sent as a bearer token; local servers mostly need none. Never logged, never part of a message."""
    timeout_s: float = 300.0
    """How long one try may take, from the connection to the end of the answer."""
    max_retries: int = 5
    """How often a request is sent again after a problem that may pass."""
    concurrency: int = 16
    """Requests under way at once."""
    top_logprobs: int = 20
    """Log-probabilities asked for with `first-token`. 20 is the most that OpenAI and, by default, vLLM give."""
    chat_template_kwargs: Mapping[str, object] = field(default_factory=lambda: {"enable_thinking": False})
    """Passed on to the server's chat template (vLLM, SGLang, llama.cpp); left out once the server refuses it."""

    def __post_init__(self) -> None:
        url = _parsed(self.base_url)
        if url is None or url.scheme not in ("http", "https") or not url.hostname or url.query or url.fragment:
            raise ConfigError(f"base_url: expected something like http://localhost:8000/v1, found {self.shown_url!r}")
        if not self.model:
            raise ConfigError("model: expected the model's name as the server knows it, found none")
        for name in ("concurrency", "top_logprobs"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}: expected at least 1, found {getattr(self, name)}")
        if self.max_retries < 0:
            raise ConfigError(f"max_retries: expected 0 or more, found {self.max_retries}")
        if not self.timeout_s > 0:
            raise ConfigError(f"timeout_s: expected more than 0 seconds, found {self.timeout_s}")
        if self.key is not None and not (self.key.isascii() and self.key.isprintable()):
            raise ConfigError("api_key: holds characters that cannot be sent in a header; check OPENAI_API_KEY")

    def check_read(self, read: Read) -> None:
        """Raise ConfigError where a chat server cannot be read this way."""
        if read == "head":
            raise ConfigError("a chat server has no score head; use a yes/no template (--prompt-template-path yes_no)")

    @property
    def key(self) -> str | None:
        """The API key without blanks around it (a key read from a file ends in a line break); None without one."""
        return (self.api_key or "").strip() or None

    @property
    def password(self) -> str | None:
        """The password in the address, if there is one."""
        url = _parsed(self.base_url)
        return unquote(url.password) if url is not None and url.password else None

    @property
    def shown_url(self) -> str:
        """The base address for messages: without user, password and query, which may be secret."""
        url = _parsed(self.base_url)
        if url is None:
            return self.base_url.rpartition("@")[2]
        host = url.netloc.rpartition("@")[2]
        return f"{url.scheme}://{host}{url.path.rstrip('/')}" if host else f"{url.scheme}:{url.path}".lstrip(":")

    def url(self, path: str) -> str:
        """The address of one of the API's resources, such as `models`."""
        return f"{self.base_url.rstrip('/')}/{path}"


def _parsed(base_url: str) -> SplitResult | None:
    try:
        url = urlsplit(base_url)
        _ = url.port  # raises ValueError where it is not a number
    except ValueError:
        return None
    return url
