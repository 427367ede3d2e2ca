"""Engine for OpenAI-compatible servers: OpenAI, vLLM, SGLang, llama.cpp and others.

One thread runs an event loop with one worker per concurrent request; `submit` passes prompts to it, `collect` takes
answers from it. An event loop can be stopped in the middle of a request. Threads blocked on a socket cannot, and would
delay `close` until the server answers.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import time
from collections.abc import Collection, Mapping
from concurrent.futures import Future
from functools import partial
from random import Random
from threading import Lock, Thread

from rankllm_core.errors import ConfigError
from rankllm_infer.engines.base import Answer, EngineError, Prompt, Read
from rankllm_infer.engines.openai.breaker import Breaker, ServerGoneError
from rankllm_infer.engines.openai.chat import Dialect, explained, read_answer, request_body, without_refused
from rankllm_infer.engines.openai.http import (
    NoServerError,
    Sleep,
    Transport,
    check_server,
    server_models,
    with_retries,
)
from rankllm_infer.engines.openai.problems import ServerProblem
from rankllm_infer.engines.openai.settings import OpenAISettings

__all__ = ["OpenAIEngine", "OpenAISettings", "ServedModel", "check_server", "server_models"]

logger = logging.getLogger(__name__)

_JOIN_TIMEOUT_S = 10.0


class OpenAIEngine:
    """Sends prompts to a server with bounded concurrency and retries; needs no tokenizer.

    Reads `text` and `first-token`. With `first-token`, an identifier outside the `top_logprobs` most likely tokens
    scores -inf. A final assistant turn is an opening that the model continues. options: server settings. sleep: waits
    between retries. random: jitter, which spreads retries of many clients. breaker: detects that the server is gone.
    Raises ConfigError, MissingPackageError.
    """

    name = "openai"
    takes_prompts_at_work = True

    def __init__(
        self,
        options: OpenAISettings,
        *,
        sleep: Sleep = asyncio.sleep,
        random: Random | None = None,
        breaker: Breaker | None = None,
    ) -> None:
        self._breaker = breaker or Breaker()
        self._gone: ServerGoneError | None = None
        self._options = options
        self.n_slots = options.concurrency
        self._sleep = sleep
        self._random = random or Random()
        self._dialect = Dialect()
        self._transport = Transport(options)
        # Lower tickets first: those of a run in order, preceded by those of waiting clients.
        self._waiting: asyncio.PriorityQueue[tuple[int, Prompt]] = asyncio.PriorityQueue()
        self._finished: queue.SimpleQueue[tuple[int, Answer | Exception] | None] = queue.SimpleQueue()
        self._pending = 0
        self._cancelled: set[int] = set()
        self._is_closed = False
        self._lock = Lock()
        started: Future[asyncio.AbstractEventLoop] = Future()
        self._thread = Thread(target=lambda: asyncio.run(self._serve(started)), name="rankllm-openai", daemon=True)
        self._thread.start()
        self._loop = started.result()

    def submit(self, ticket: int, prompt: Prompt) -> None:
        """Queue a prompt. Its answer is returned with `ticket`. Raises ConfigError if a score head is to be read."""
        if prompt.read == "head":
            raise ConfigError("engine 'openai': a server has no score head; use --engine transformers")
        with self._lock:
            if self._is_closed:
                raise RuntimeError("engine 'openai' is closed")
            self._pending += 1
            self._loop.call_soon_threadsafe(self._waiting.put_nowait, (ticket, prompt))

    def collect(self) -> list[tuple[int, Answer | EngineError]]:
        """Wait until at least one queued prompt is answered; return all available answers with their tickets.

        The list is empty if no prompt is queued or once the engine is closed. Raises ServerGoneError if the server has
        stopped answering, after returning the answers it gave.
        """
        if self._gone is None:
            with self._lock:
                if self._is_closed or not self._pending:
                    return []
            answers = self._next_answers()
            if answers or self._gone is None:
                return answers
        gone, self._gone = self._gone, None
        self._loop.call_soon_threadsafe(self._breaker.reset)
        raise gone

    def _next_answers(self) -> list[tuple[int, Answer | EngineError]]:
        """Wait for an outcome, then take all that are available."""
        outcomes = [self._finished.get()]
        while not self._finished.empty():
            outcomes.append(self._finished.get())
        done = [outcome for outcome in outcomes if outcome is not None]
        with self._lock:
            self._pending -= len(done)
        answers: list[tuple[int, Answer | EngineError]] = []
        for ticket, outcome in done:
            if ticket in self._cancelled:
                self._cancelled.discard(ticket)
            elif isinstance(outcome, ServerGoneError):
                self._gone = outcome
            elif isinstance(outcome, Answer | EngineError):
                answers.append((ticket, outcome))
            else:
                raise outcome  # a bug: keep its traceback
        return answers

    def cancel(self, tickets: Collection[int]) -> None:
        """Drop prompts: queued ones are not sent, answers in flight are discarded."""
        with self._lock:
            self._cancelled.update(tickets)

    def wake(self) -> None:
        """Make a `collect` waiting in another thread return."""
        self._finished.put(None)

    def close(self) -> None:
        """Stop immediately: requests in flight are aborted, queued prompts are dropped."""
        with self._lock:
            if self._is_closed:
                return
            self._is_closed = True
            self._loop.call_soon_threadsafe(self._stop.set)
        self.wake()
        self._thread.join(_JOIN_TIMEOUT_S)

    async def _serve(self, started: Future[asyncio.AbstractEventLoop]) -> None:
        """Main task of the thread: run the workers until `close`."""
        self._stop = asyncio.Event()
        workers = [asyncio.create_task(self._work()) for _ in range(self._options.concurrency)]
        started.set_result(asyncio.get_running_loop())
        await self._stop.wait()
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)
        await self._transport.aclose()

    async def _work(self) -> None:
        """Answer prompts one after the other."""
        while True:
            ticket, prompt = await self._waiting.get()
            if ticket in self._cancelled:
                self._finished.put((ticket, EngineError("cancelled")))
                continue
            try:
                outcome: Answer | Exception = await with_retries(
                    partial(self._ask, prompt),
                    options=self._options,
                    sleep=self._sleep,
                    random=self._random,
                    is_wanted=lambda ticket=ticket: ticket not in self._cancelled,  # type: ignore[misc]
                )
            except Exception as error:  # passed to `collect`, which raises anything but an EngineError
                outcome = error
            self._finished.put((ticket, outcome))

    async def _ask(self, prompt: Prompt) -> Answer:
        """Try once; if the server refuses an optional part, try again immediately without it. Raises ServerProblem."""
        while True:
            dialect = self._dialect
            try:
                reply = await self._asked(request_body(prompt, self._options, dialect))
            except ServerProblem as problem:
                if without_refused(dialect, problem) == dialect:
                    raise explained(problem, prompt) from None
                self._learn(problem)
            else:
                return read_answer(prompt, reply, self._options)

    async def _asked(self, body: dict[str, object]) -> Mapping[str, object]:
        """Send one request, and update the breaker on whether the server is still there."""
        began = time.monotonic()
        try:
            reply = await self._transport.ask(body)
        except ServerProblem as problem:
            if problem.is_silence or (problem.status or 0) >= 500:
                where = self._options.shown_url
                self._breaker.failed(problem.message, where=where, began=began, is_silent=problem.is_silence)
            else:
                self._breaker.reset()
            raise
        self._breaker.reset()
        return reply

    def _learn(self, problem: ServerProblem) -> None:
        """Remember a refusal for later requests. Requests in flight may report it again."""
        before, self._dialect = self._dialect, without_refused(self._dialect, problem)
        if before.takes_temperature and not self._dialect.takes_temperature:
            logger.warning("the server accepts no temperature for this model: answers may differ between runs")


class ServedModel:
    """Model on a server, whose tokenizer, limits and device are unknown."""

    tokenizer = None
    positions = None
    place = ""

    def __init__(self, settings: OpenAISettings) -> None:
        """Check the server and its list of models. Raises NoServerError immediately if it does not accept
        connections."""
        self._settings = settings
        self.where = f"at {settings.shown_url}"
        self.warnings = _doubts_about(settings)

    def start(self, read: Read, *, longest: int, sample: Prompt | None = None) -> OpenAIEngine:
        """Start the engine; the server itself limits prompt lengths. `read` is checked prompt by prompt."""
        return OpenAIEngine(self._settings)


def _doubts_about(settings: OpenAISettings) -> tuple[str, ...]:
    """Return warnings from the server's list of models."""
    try:
        check_server(settings)
    except NoServerError:
        raise
    except EngineError as error:
        # Some servers do not list their models, or not to every key: the first prompts will show whether they work.
        return (str(error),)
    return ()
