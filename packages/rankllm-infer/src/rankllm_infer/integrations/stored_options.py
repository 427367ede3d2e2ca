"""Options of a reranker as plain data, for frameworks that serialize components."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from rankllm_core.config import check_keys
from rankllm_core.errors import ConfigError
from rankllm_infer.api import with_environment_key
from rankllm_infer.option_table import rows_of
from rankllm_infer.options import RerankOptions

_KEY = "OPENAI_API_KEY"
_WITHOUT_EFFECT = ("with_trace",)
"""Recording prompts and answers is not supported: no framework's documents can contain them."""


def as_options(options: RerankOptions | Mapping[str, Any] | None) -> RerankOptions | None:
    """Convert options given as RerankOptions or a mapping by name; lists become tuples. Raises ConfigError for unusable
    values.

    A missing API key of a server is read from OPENAI_API_KEY, as on the command line.
    """
    if options is None:
        return None
    if isinstance(options, Mapping):
        check_keys(options, rows_of(RerankOptions), where="options")
        given: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in options.items()}
        options = RerankOptions(**given)
    if not isinstance(options, RerankOptions):
        raise ConfigError(f"options: expected RerankOptions or a mapping of its fields, found {type(options).__name__}")
    options.refuse(_WITHOUT_EFFECT, why="in an integration")
    return with_environment_key(options)


def to_plain(options: RerankOptions | None) -> dict[str, Any] | None:
    """Convert the options that differ from their defaults to values for JSON and YAML; `as_options` reads them.

    A server's API key is omitted, because secrets do not belong in a stored pipeline; it is read from OPENAI_API_KEY
    again. Raises ConfigError if the server's address contains a password.
    """
    if options is None:
        return None
    if urlsplit(options.base_url or "").password:
        raise ConfigError(f"base_url: contains a password, which is not stored; leave it out, and set {_KEY}")
    given = {
        name: getattr(options, name)
        for name, row in rows_of(RerankOptions).items()
        if name != "api_key" and getattr(options, name) != row.default
    }
    return {name: _plain(value) for name, value in given.items()}


def _plain(value: object) -> object:
    if isinstance(value, Path):
        return str(value)
    return list(value) if isinstance(value, tuple) else value
