"""Shares one engine between several runs: each has its own view and only receives the answers to its own prompts.

An engine returns its answers to whoever collects them. Here, one of the threads waiting for answers collects them (the
leader) and passes on those of other views; once it has an answer of its own, another thread takes over. A run that has
the engine to itself only pays for a lock, and submits exactly what it would have submitted without sharing.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Collection
from weakref import WeakValueDictionary

from rankllm_core.errors import RankLLMError
from rankllm_infer.engines.base import Answer, Engine, EngineError, Prompt

Outcome = tuple[int, Answer | EngineError]


class EngineView:
    """An engine as seen by one run: the members of `Engine`, except `close`."""

    def __init__(self, shared: SharedEngine) -> None:
        self._shared = shared
        self.name = shared.engine.name
        self.inbox: deque[Outcome] = deque()
        """Answers collected by other threads."""
        self.waiting: set[int] = set()
        """Tickets of prompts without an answer."""
        self.error: Exception | None = None
        """Why there will be no further answers."""
        self.stopped = ""
        """Why the run must stop; empty while it may continue."""

    def submit(self, ticket: int, prompt: Prompt) -> None:
        """Queue a prompt. Raises the engine's errors, and RankLLMError if the engine was closed."""
        shared = self._shared
        with shared.change:
            shared.drop_left()
            if self.error is not None:
                raise self.error
            if shared.has_leader and not shared.engine.takes_prompts_at_work:
                shared.late[ticket] = prompt
            else:
                shared.engine.submit(ticket, prompt)
            shared.owners[ticket] = (self, prompt)
            self.waiting.add(ticket)

    def collect(self) -> list[Outcome]:
        """Wait until at least one of this view's prompts is answered; return all available answers.

        The list is empty if no prompt is queued or the engine has nothing to return. Raises the engine's errors,
        whichever thread they occurred in, and RankLLMError if the engine was closed.
        """
        return self._shared.collect(self)

    def cancel(self, tickets: Collection[int]) -> None:
        """Drop prompts of this view."""
        self._shared.cancel(self, tickets)

    def wake(self) -> None:
        """Make a waiting `collect` return, possibly with an empty list."""
        self._shared.wake(self)

    def leave(self) -> None:
        """Drop all prompts of this view; safe at any time and in any thread, including during garbage collection."""
        self._shared.leave(self)


class SharedEngine:
    """Routes prompts of many views to one engine, and answers back. See `shared_engine`."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        # Not reentrant: `leave` must detect that its own thread is in the middle of an operation.
        self.change = threading.Condition(threading.Lock())
        self.owners: dict[int, tuple[EngineView, Prompt]] = {}
        """Owner of each ticket that the engine has or is about to receive."""
        self.late: dict[int, Prompt] = {}
        """Prompts submitted while the engine was working, in order."""
        self._dropped: set[int] = set()
        """Tickets cancelled while the engine was working."""
        self._views: list[EngineView] = []
        self._left: deque[EngineView] = deque()
        self.has_leader = False
        self._woken: set[EngineView] = set()

    def view(self) -> EngineView:
        """Return a new view; call its `leave` when the run is over."""
        with self.change:
            self.drop_left()
            view = EngineView(self)
            self._views.append(view)
            return view

    @property
    def is_in_use(self) -> bool:
        """True if a run on this engine was started and has neither finished nor left."""
        with self.change:
            self.drop_left()
            return bool(self._views)

    def stop(self, reason: str) -> None:
        """Make every run raise RankLLMError with this reason when it continues."""
        with self.change:
            self.drop_left()
            for view in self._views:
                view.stopped, view.error = reason, RankLLMError(reason)
            self._wake_up()

    def cancel(self, view: EngineView, tickets: Collection[int]) -> None:
        """See `EngineView.cancel`."""
        with self.change:
            self.drop_left()
            self._cancel(view, tickets)

    def collect(self, view: EngineView) -> list[Outcome]:
        """See `EngineView.collect`."""
        while True:
            with self.change:
                self.drop_left()
                while self.has_leader and not self._is_served(view):
                    self.change.wait()
                if view.inbox:
                    return self._take(view)
                if view.error is not None:
                    raise view.error
                if view in self._woken or not view.waiting:
                    self._woken.discard(view)
                    return []
                self.has_leader = True
            if not self._lead(view):
                return self._take(view)

    def wake(self, view: EngineView) -> None:
        """See `EngineView.wake`."""
        with self.change:
            self._woken.add(view)
            self._wake_up()

    def leave(self, view: EngineView) -> None:
        """See `EngineView.leave`."""
        # The garbage collector may call this while the same thread is in the middle of another operation here.
        self._left.append(view)
        if self.change.acquire(blocking=False):
            try:
                self.drop_left()
            finally:
                self.change.release()

    def _is_served(self, view: EngineView) -> bool:
        return bool(view.inbox) or view.error is not None or view in self._woken or not view.waiting

    def _take(self, view: EngineView) -> list[Outcome]:
        taken = [view.inbox.popleft() for _ in range(len(view.inbox))]
        view.waiting.difference_update(ticket for ticket, _ in taken)
        return taken

    def _lead(self, view: EngineView) -> bool:
        """Collect once for all views. Returns True if this view got no answer and should continue waiting."""
        collected: list[Outcome] | None = None
        failure: Exception | None = None
        try:
            collected = self.engine.collect()
        except Exception as error:
            failure = error
            raise
        finally:
            with self.change:
                if collected is not None:
                    self._route(collected)
                elif failure is not None:
                    # All prompts in the engine are lost.
                    self._fail_others(view, failure)
                elif not self.engine.takes_prompts_at_work:
                    # Only this thread was interrupted, with a batch of prompts from other views: resubmit those. An
                    # engine with its own threads keeps its answers for the next collector.
                    self._ask_again(view)
                self.has_leader = False
                self._flush()
                self.change.notify_all()
        return bool(collected) and not self._is_served(view)

    def _route(self, collected: Collection[Outcome]) -> None:
        for ticket, outcome in collected:
            view, _ = self.owners.pop(ticket, (None, None))
            if view is not None and ticket not in self._dropped:
                view.inbox.append((ticket, outcome))

    def _fail_others(self, leader: EngineView, error: Exception) -> None:
        for view in self._views:
            if view is not leader and view.waiting:
                view.error = error

    def _ask_again(self, leader: EngineView) -> None:
        lost = [(t, prompt) for t, (view, prompt) in self.owners.items() if view is not leader and t not in self.late]
        self.engine.cancel([ticket for ticket, _ in lost])
        for ticket, prompt in lost:
            self.engine.submit(ticket, prompt)

    def _flush(self) -> None:
        """Pass on to the engine what arrived while it was working."""
        dropped, self._dropped = self._dropped, set()
        late, self.late = self.late, {}
        if dropped:
            self.engine.cancel(dropped)
        for ticket, prompt in late.items():
            self.engine.submit(ticket, prompt)

    def _cancel(self, view: EngineView, tickets: Collection[int]) -> None:
        dropped = {ticket for ticket in tickets if ticket in view.waiting}
        view.waiting -= dropped
        view.inbox = deque(item for item in view.inbox if item[0] not in dropped)
        held = [ticket for ticket in dropped if self.owners.pop(ticket, None) is not None]
        given = [ticket for ticket in held if self.late.pop(ticket, None) is None]
        if self.has_leader and not self.engine.takes_prompts_at_work:
            self._dropped.update(given)
        elif given:
            self.engine.cancel(given)

    def drop_left(self) -> None:
        """Remove the views that were left. The caller holds `change`."""
        while self._left:
            view = self._left.popleft()
            if view in self._views:
                self._views.remove(view)
                self._woken.discard(view)
                self._cancel(view, list(view.waiting))

    def _wake_up(self) -> None:
        if self.has_leader:
            self.engine.wake()
        self.change.notify_all()


_SHARED: WeakValueDictionary[int, SharedEngine] = WeakValueDictionary()
"""SharedEngine by `id` of its engine; entries live as long as the shared engine is used."""
_MAKING = threading.Lock()


def shared_engine(engine: Engine) -> SharedEngine:
    """Return the object that shares an engine between its runs; the same one per engine while it is in use."""
    with _MAKING:
        found = _SHARED.get(id(engine))
        if found is None:
            found = _SHARED[id(engine)] = SharedEngine(engine)
        return found
