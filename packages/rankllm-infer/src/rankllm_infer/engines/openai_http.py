"""Requests to an OpenAI-compatible server, sent again where that may help."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from random import Random
from types import ModuleType
from typing import TYPE_CHECKING, TypeVar

from rankllm_core.errors import ConfigError, MissingPackageError
from rankllm_infer.engines import EngineError
from rankllm_infer.engines.openai_options import OpenAIOptions
from rankllm_infer.engines.openai_problems import ServerProblem, advice, connection_reason, one_line, refusal

if TYPE_CHECKING:
    import httpx2

FIRST_DELAY_S = 0.5
LONGEST_DELAY_S = 30.0
LONGEST_RETRY_AFTER_S = 120.0
"""A server may ask for a longer wait than our own, but not for hours."""

_CONNECT_TIMEOUT_S = 30.0
_CHECK_TIMEOUT_S = 30.0


class NoServerError(EngineError):
    """Nobody takes connections at the address."""


T = TypeVar("T")
Sleep = Callable[[float], Awaitable[None]]


def import_http_client() -> ModuleType:
    """The HTTP package. Raises MissingPackageError."""
    try:
        import httpx2
    except ModuleNotFoundError:
        raise MissingPackageError(
            "engine 'openai' needs httpx2, which is not installed. Install it with: uv add 'rankllm-infer[openai]'"
        ) from None
    return httpx2


class Transport:
    """Connections to one server, for one event loop. Raises ConfigError, MissingPackageError."""

    def __init__(self, options: OpenAIOptions) -> None:
        self._http = import_http_client()
        self._options = options
        try:
            self._url = self._http.URL(options.url("chat/completions"))
        except self._http.InvalidURL as error:
            raise ConfigError(f"base_url: {options.shown_url!r}: {error}") from None
        self._client: httpx2.AsyncClient = self._http.AsyncClient(
            headers=_headers(options),
            timeout=self._http.Timeout(options.timeout_s, connect=min(options.timeout_s, _CONNECT_TIMEOUT_S)),
            limits=self._http.Limits(max_connections=options.concurrency),
        )

    async def ask(self, body: Mapping[str, object]) -> Mapping[str, object]:
        """One try at a chat completion: the server's reply, a JSON object. Raises ServerProblem."""
        content = json.dumps(body, ensure_ascii=False).encode("utf-8")
        timeout_s = self._options.timeout_s
        try:
            # The client's own timeouts start anew with every byte; a server that drips must not hold us for ever.
            async with asyncio.timeout(timeout_s):
                response = await self._client.post(self._url, content=content)
        except (TimeoutError, self._http.TimeoutException):
            raise ServerProblem(f"no answer within {timeout_s:g} s", is_retryable=True) from None
        except self._http.RequestError as error:
            raise ServerProblem(connection_reason(error, self._options), is_retryable=True) from None
        return _read_reply(response, self._options)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.aclose()


async def with_retries(
    attempt: Callable[[], Awaitable[T]], *, options: OpenAIOptions, sleep: Sleep, random: Random
) -> T:
    """What `attempt` gives, tried again after problems that may pass. Raises EngineError."""
    tries = 0
    while True:
        tries += 1
        try:
            return await attempt()
        except ServerProblem as problem:
            if not problem.is_retryable or tries > options.max_retries:
                raise EngineError(_final_message(problem, tries, options)) from None
            delay_s = retry_delay_s(tries, problem.retry_after_s, random=random)
        await sleep(delay_s)


def _final_message(problem: ServerProblem, tries: int, options: OpenAIOptions) -> str:
    count = "1 try" if tries == 1 else f"{tries} tries"
    gave_up = f"gave up after {count}, the last problem: " if problem.is_retryable else ""
    return f"{options.shown_url}: {gave_up}{problem.message}{advice(problem, options)}"


def retry_delay_s(tries: int, retry_after_s: float | None, *, random: Random) -> float:
    """How long to wait after the given number of failed tries, in seconds.

    What the server asks for, up to LONGEST_RETRY_AFTER_S; else 0.5, 1, 2, ... up to LONGEST_DELAY_S, each shortened by
    up to a half at random so that many clients do not come back at once.
    """
    if retry_after_s is not None:
        return min(retry_after_s, LONGEST_RETRY_AFTER_S)
    return min(FIRST_DELAY_S * 2.0 ** min(tries - 1, 32), LONGEST_DELAY_S) * random.uniform(0.5, 1.0)


def server_models(options: OpenAIOptions) -> tuple[str, ...] | None:
    """The names of the models that the server offers; None where it keeps no list.

    Asks once, without retries: a server that is not there should be noticed at once. Raises NoServerError then, and
    EngineError where it is there and refuses.
    """
    http = import_http_client()
    timeout_s = min(options.timeout_s, _CHECK_TIMEOUT_S)
    try:
        response = http.get(options.url("models"), headers=_headers(options), timeout=timeout_s)
    except (http.ConnectError, http.ConnectTimeout, http.InvalidURL) as error:
        raise NoServerError(f"no server at {options.shown_url}: {connection_reason(error, options)}") from None
    except http.TimeoutException:
        raise EngineError(f"no answer from {options.shown_url} within {timeout_s:g} s; is the server up?") from None
    except http.RequestError as error:
        raise EngineError(f"no server at {options.shown_url}: {connection_reason(error, options)}") from None
    if response.status_code in (404, 405, 501):
        return None
    try:
        models = _read_reply(response, options).get("data")
    except ServerProblem as problem:
        raise EngineError(_final_message(problem, 1, options)) from None
    if not isinstance(models, list):
        return None
    return tuple(str(model["id"]) for model in models if isinstance(model, dict) and "id" in model)


def check_server(options: OpenAIOptions) -> None:
    """Make sure that the server is there, takes our key and offers the model. Raises EngineError.

    A server that keeps no list of its models passes.
    """
    models = server_models(options)
    if not models or options.model in models:
        return
    more = f" and {len(models) - 10} more" if len(models) > 10 else ""
    offered = one_line(", ".join(models[:10]), options) + more
    raise EngineError(f"{options.shown_url}: offers no model {options.model!r}; it offers {offered}")


def _headers(options: OpenAIOptions) -> dict[str, str]:
    key = {"Authorization": f"Bearer {options.key}"} if options.key else {}
    return {"Content-Type": "application/json", "Accept": "application/json"} | key


def _read_reply(response: httpx2.Response, options: OpenAIOptions) -> Mapping[str, object]:
    """The JSON object in a response. Raises ServerProblem."""
    try:
        reply = json.loads(response.content)
    except (ValueError, RecursionError):
        reply = response.text
    if not response.is_success:
        raise refusal(response.status_code, response.headers, reply, options=options)
    if not isinstance(reply, dict):
        found = one_line(response.text, options)
        raise ServerProblem(f"expected a JSON object, found {found!r}", is_retryable=True)
    return reply
