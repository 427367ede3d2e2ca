"""HTTP requests to an OpenAI-compatible server, with retries."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from random import Random
from types import ModuleType
from typing import TYPE_CHECKING, TypeVar

from rankllm_core.errors import ConfigError, MissingPackageError
from rankllm_infer.engines.base import EngineError
from rankllm_infer.engines.openai.problems import ServerProblem, advice, connection_reason, one_line, refusal
from rankllm_infer.engines.openai.reply import parse_reply, read_bounded
from rankllm_infer.engines.openai.settings import OpenAISettings

if TYPE_CHECKING:
    import httpx2

FIRST_DELAY_S = 0.5
LONGEST_DELAY_S = 30.0
LONGEST_RETRY_AFTER_S = 120.0
"""Maximum wait that a server may request with Retry-After; longer than our own delays, but not hours."""

LONGEST_RETRYING_S = 900.0
"""Maximum time between the first and the last try of a prompt, whatever the server requests."""

_CONNECT_TIMEOUT_S = 30.0
_CHECK_TIMEOUT_S = 30.0
_NO_LIST = (404, 405, 501)


class NoServerError(EngineError):
    """No server accepts connections at the address."""


T = TypeVar("T")
Sleep = Callable[[float], Awaitable[None]]


def import_http_client() -> ModuleType:
    """Return the HTTP package. Raises MissingPackageError."""
    try:
        import httpx2
    except ModuleNotFoundError:
        raise MissingPackageError(
            "engine 'openai' needs httpx2, which is not installed. Install it with: uv add 'rankllm-infer[openai]'"
        ) from None
    return httpx2


class Transport:
    """Connections to one server, for one event loop. Raises ConfigError, MissingPackageError."""

    def __init__(self, options: OpenAISettings) -> None:
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
        """Try one chat completion and return the server's reply, a JSON object. Raises ServerProblem."""
        content = json.dumps(body, ensure_ascii=False).encode("utf-8")
        request = self._client.build_request("POST", self._url, content=content)
        timeout_s = self._options.timeout_s
        try:
            return await self._exchange(request, timeout_s)
        except (TimeoutError, self._http.TimeoutException):
            raise ServerProblem(f"no answer within {timeout_s:g} s", is_retryable=True, is_silence=True) from None
        except (self._http.RequestError, self._http.InvalidURL) as error:
            reason = connection_reason(error, self._options)
            raise ServerProblem(reason, is_retryable=True, is_silence=True) from None

    async def list_models(self, timeout_s: float) -> Mapping[str, object] | None:
        """Return the server's list of models; None if it has none. Raises the same errors as `_exchange`."""
        request = self._client.build_request("GET", self._options.url("models"))
        try:
            return await self._exchange(request, timeout_s)
        except ServerProblem as problem:
            if problem.status in _NO_LIST:
                return None
            raise

    async def _exchange(self, request: httpx2.Request, timeout_s: float) -> Mapping[str, object]:
        """Send a request and return the JSON object of its reply. Raises ServerProblem, TimeoutError, and httpx2's
        errors."""
        # The client's own timeouts restart with every byte; a slowly dripping server must not block forever.
        async with asyncio.timeout(timeout_s):
            response = await self._client.send(request, stream=True)
            try:
                headers = response.headers
                body = await read_bounded(
                    response.aiter_raw(),
                    encoding=headers.get("content-encoding"),
                    length=headers.get("content-length"),
                )
            finally:
                await response.aclose()
        reply = parse_reply(body, self._options)
        if not response.is_success:
            raise refusal(response.status_code, headers, reply, options=self._options)
        if not isinstance(reply, dict):
            found = one_line(reply if isinstance(reply, str) else body[:4096].decode("utf-8", "replace"), self._options)
            raise ServerProblem(f"expected a JSON object, found {found!r}", is_retryable=True)
        return reply

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.aclose()


async def with_retries(
    attempt: Callable[[], Awaitable[T]],
    *,
    options: OpenAISettings,
    sleep: Sleep,
    random: Random,
    is_wanted: Callable[[], bool] = lambda: True,
    clock: Callable[[], float] = time.monotonic,
) -> T:
    """Return the result of `attempt`, retrying after transient problems. Raises EngineError.

    is_wanted: returns whether the answer is still needed. clock: seconds; see LONGEST_RETRYING_S.
    """
    tries, latest = 0, clock() + LONGEST_RETRYING_S
    while True:
        tries += 1
        try:
            return await attempt()
        except ServerProblem as problem:
            if not problem.is_retryable or tries > options.max_retries:
                raise EngineError(_final_message(problem, tries, options)) from None
            delay_s = retry_delay_s(tries, problem.retry_after_s, random=random)
            if clock() + delay_s > latest or not is_wanted():
                raise EngineError(_final_message(problem, tries, options)) from None
        await sleep(delay_s)


def _final_message(problem: ServerProblem, tries: int, options: OpenAISettings) -> str:
    count = "1 try" if tries == 1 else f"{tries} tries"
    gave_up = f"gave up after {count}; last problem: " if problem.is_retryable else ""
    return f"{options.shown_url}: {gave_up}{problem.message}{advice(problem, options)}"


def retry_delay_s(tries: int, retry_after_s: float | None, *, random: Random) -> float:
    """Return the delay after a number of failed tries, in seconds.

    The delay the server requests, up to LONGEST_RETRY_AFTER_S; otherwise exponential backoff of 0.5, 1, 2, ... s up to
    LONGEST_DELAY_S, each shortened randomly by up to half, so that clients do not retry simultaneously.
    """
    if retry_after_s is not None:
        return min(retry_after_s, LONGEST_RETRY_AFTER_S)
    return min(FIRST_DELAY_S * 2.0 ** min(tries - 1, 32), LONGEST_DELAY_S) * random.uniform(0.5, 1.0)


def server_models(options: OpenAISettings) -> tuple[str, ...] | None:
    """Return the names of the models on the server; None if it does not list them.

    Sends one request without retries, so that a missing server is reported immediately: NoServerError if nothing
    accepts connections, EngineError if the server refuses.
    """
    http = import_http_client()
    timeout_s = min(options.timeout_s, _CHECK_TIMEOUT_S)
    try:
        # In a separate thread: the caller's thread may already run an event loop, as in a notebook.
        with ThreadPoolExecutor(1) as thread:
            reply = thread.submit(asyncio.run, _list_models(options, timeout_s)).result()
    except (http.ConnectError, http.ConnectTimeout, http.InvalidURL) as error:
        raise NoServerError(f"no server at {options.shown_url}: {connection_reason(error, options)}") from None
    except (TimeoutError, http.TimeoutException):
        raise EngineError(
            f"no answer from {options.shown_url} within {timeout_s:g} s; is the server running?"
        ) from None
    except http.RequestError as error:
        raise EngineError(f"no server at {options.shown_url}: {connection_reason(error, options)}") from None
    except ServerProblem as problem:
        raise EngineError(_final_message(problem, 1, options)) from None
    models = None if reply is None else reply.get("data")
    if not isinstance(models, list):
        return None
    return tuple(str(model["id"]) for model in models if isinstance(model, dict) and "id" in model)


async def _list_models(options: OpenAISettings, timeout_s: float) -> Mapping[str, object] | None:
    transport = Transport(options)
    try:
        return await transport.list_models(timeout_s)
    finally:
        await transport.aclose()


def check_server(options: OpenAISettings) -> None:
    """Check that the server is reachable, accepts the key and offers the model. Raises EngineError.

    A server that does not list its models passes.
    """
    models = server_models(options)
    if not models or options.model in models:
        return
    more = f" and {len(models) - 10} more" if len(models) > 10 else ""
    offered = one_line(", ".join(models[:10]), options) + more
    raise EngineError(f"{options.shown_url}: does not offer model {options.model!r}; available: {offered}")


def _headers(options: OpenAISettings) -> dict[str, str]:
    key = {"Authorization": f"Bearer {options.key}"} if options.key else {}
    # Compression is not requested: replies are short, and uncompressed replies have a known size.
    plain = {"Content-Type": "application/json", "Accept": "application/json", "Accept-Encoding": "identity"}
    return plain | key
