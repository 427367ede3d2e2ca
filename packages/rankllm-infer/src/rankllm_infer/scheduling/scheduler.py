"""Ranks requests that arrive at any time, from any thread: each is a future with a deadline that can be cancelled.

One thread drives the flows of all requests over one view of the engine, and ends when there are none. Prompts are
ordered by start-time fair queuing (Goyal, Vin and Cheng, SIGCOMM 1996): a request's prompts are numbered from the
engine's current position, so that a request with fifty windows leaves room for later ones.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future

from rankllm_core.errors import ConfigError, RankLLMError
from rankllm_core.types import Request, Result
from rankllm_infer.engines.base import Engine
from rankllm_infer.ranking.flow import Flow
from rankllm_infer.scheduling.flows import FlowSet, RunningFlow
from rankllm_infer.scheduling.sharing import EngineView, shared_engine

FIRST_TICKET = -(1 << 80)
"""Tickets of a scheduler are negative: engines prefer them to those of runs over files."""
_TURN_BITS = 32
_NUMBERS = itertools.count()
"""Source of ticket numbers, shared by all schedulers because several may use one engine."""


class DeadlineError(RankLLMError):
    """A request was not finished before its deadline."""


class _Job(RunningFlow):
    """A request in flight and the future that waits for it."""

    __slots__ = ("deadline", "future", "on_answered", "problem", "turn")

    def __init__(
        self, request: Request, flow: Flow, *, deadline: float | None, on_answered: Callable[[str], None] | None
    ) -> None:
        super().__init__(request, flow)
        self.future: Future[Result] = Future()
        self.on_answered = on_answered
        self.problem: Exception | None = None
        """Exception raised by `on_answered`; it ends the job."""
        self.deadline = deadline
        """On the clock of `time.monotonic`; None: no deadline."""
        self.turn = 0
        """Position of its latest prompt in the order in which prompts are taken."""


class Scheduler:
    """Ranks requests over an engine that others may share.

    start: creates the flow of a request. max_active: maximum number of requests in flight; others wait in order of
    arrival.
    """

    def __init__(self, engine: Engine, start: Callable[[Request], Flow], *, max_active: int) -> None:
        if max_active < 1:
            raise ConfigError(f"max_active: expected at least 1, found {max_active}")
        self._shared = shared_engine(engine)
        self._start, self._max_active = start, max_active
        self._change = threading.Condition()
        self._waiting: deque[_Job] = deque()
        self._active: list[_Job] = []
        self._thread: threading.Thread | None = None
        self._view: EngineView | None = None
        self._turn = 0
        """Position of the latest answered prompt."""
        self._closed = ""

    @property
    def n_unfinished(self) -> int:
        """Number of requests without a result."""
        with self._change:
            return len(self._waiting) + len(self._active)

    def submit(
        self,
        request: Request,
        *,
        timeout_s: float | None = None,
        start: Callable[[Request], Flow] | None = None,
        on_answered: Callable[[str], None] | None = None,
    ) -> Future[Result]:
        """Accept a request and return a future for its result, which has status `failed` if it cannot be prompted or
        answered.

        start: creates the flow of this request instead of the scheduler's; the flow starts when the request does.
        timeout_s: after this many seconds, checked after each step of the engine, the future raises DeadlineError.
        on_answered: called with the qid for every answer to a prompt, in the scheduler's thread; its exceptions are
        raised by the future. The future can be cancelled until it is done: prompts that have not started are then never
        run. It raises the engine's errors, such as ServerGoneError. Raises RankLLMError if the scheduler is closed.
        """
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        job = _Job(request, (start or self._start)(request), deadline=deadline, on_answered=on_answered)
        with self._change:
            if self._closed:
                raise RankLLMError(self._closed)
            self._waiting.append(job)
            if self._thread is None:
                self._thread = threading.Thread(target=self._serve, name="rankllm-scheduler", daemon=True)
                self._thread.start()
        job.future.add_done_callback(self._notice)
        self._wake()
        return job.future

    def settle(self) -> None:
        """Wait until the thread has ended; return immediately if requests are unfinished.

        A request's result is available slightly before the thread has released the engine.
        """
        if self._thread is threading.current_thread():
            return
        with self._change:
            self._change.wait_for(lambda: self._thread is None or self._waiting or self._active)

    def close(self, reason: str) -> None:
        """Fail unfinished requests with RankLLMError and refuse new ones; returns when the thread has ended."""
        with self._change:
            self._closed, thread = reason, self._thread
            self._change.notify_all()
        self._wake()
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def _notice(self, future: Future[Result]) -> None:
        if future.cancelled():
            self._wake()

    def _wake(self) -> None:
        view = self._view
        if view is not None:
            view.wake()

    def _serve(self) -> None:
        """Main function of the thread: run until there is nothing to do."""
        while True:
            with self._change:
                if not (self._waiting or self._active):
                    self._thread = None
                    self._change.notify_all()
                    return
                self._view = self._shared.view()
            try:
                self._drive(self._view)
            except Exception as error:
                # Prompts in the engine are lost; waiting requests have not been started.
                for job in self._take_active():
                    _raise_in(job, error)
            finally:
                self._view.leave()
                self._view = None

    def _drive(self, view: EngineView) -> None:
        """Drive flows while any request is in flight."""
        flows = FlowSet(
            view, on_over=self._finish, ticket_of=self._ticket, on_answered=self._answered, on_bug=self._fail
        )
        while True:
            self._end_what_is_over(flows)
            self._admit(flows)
            if self._closed or not (self._active or self._waiting):
                return
            if flows.is_waiting:
                flows.collect()

    def _admit(self, flows: FlowSet) -> None:
        while True:
            with self._change:
                if self._closed or not self._waiting or len(self._active) >= self._max_active:
                    return
                job = self._waiting.popleft()
                self._active.append(job)
            if job.future.cancelled():
                self._forget(job)
            else:
                flows.advance(job)

    def _end_what_is_over(self, flows: FlowSet) -> None:
        """End cancelled requests, those past their deadline and, if the scheduler is closed, all."""
        now = time.monotonic()
        with self._change:
            jobs = [*self._active, *self._waiting]
        for job in jobs:
            error: Exception | None = job.problem
            if self._closed:
                error = RankLLMError(self._closed)
            elif job.deadline is not None and now >= job.deadline:
                error = DeadlineError(f"query {job.request.query.qid!r}: not finished before its deadline")
            if error is None and not job.future.cancelled():
                continue
            flows.drop(job)
            self._forget(job)
            if error is not None:
                _raise_in(job, error)

    def _finish(self, entry: RunningFlow) -> None:
        job = _as_job(entry)
        self._forget(job)
        if job.problem is not None:
            _raise_in(job, job.problem)
        elif job.result is not None and job.future.set_running_or_notify_cancel():
            job.future.set_result(job.result)

    def _fail(self, entry: RunningFlow, error: Exception) -> None:
        """Fail one request because of a bug in its flow, without affecting the others."""
        job = _as_job(entry)
        self._forget(job)
        _raise_in(job, error)

    def _forget(self, job: _Job) -> None:
        with self._change:
            if job in self._active:
                self._active.remove(job)
            elif job in self._waiting:
                self._waiting.remove(job)

    def _take_active(self) -> list[_Job]:
        with self._change:
            taken, self._active = self._active, []
            return taken

    def _ticket(self, entry: RunningFlow) -> int:
        job = _as_job(entry)
        job.turn = max(job.turn, self._turn) + 1
        return FIRST_TICKET + (job.turn << _TURN_BITS) + next(_NUMBERS) % (1 << _TURN_BITS)

    def _answered(self, entry: RunningFlow, ticket: int) -> None:
        self._turn = max(self._turn, (ticket - FIRST_TICKET) >> _TURN_BITS)
        job = _as_job(entry)
        if job.on_answered is not None and job.problem is None:
            try:
                job.on_answered(job.request.query.qid)
            except Exception as error:  # from one caller's callback; the others are not affected
                job.problem = error


def _as_job(entry: RunningFlow) -> _Job:
    if not isinstance(entry, _Job):
        raise TypeError(f"expected a job, found {type(entry).__name__}")
    return entry


def _raise_in(job: _Job, error: Exception) -> None:
    if job.future.set_running_or_notify_cancel():
        job.future.set_exception(error)
