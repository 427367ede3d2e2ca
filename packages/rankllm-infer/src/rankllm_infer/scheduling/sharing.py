"""One engine behind several runs: each has a view of its own, and receives the answers to its own prompts only.

An engine hands its answers to whoever collects them. Here one of the threads that wait for answers collects (the
leader) and hands on to the other views what is theirs; when it has an answer of its own, another one takes its place.
A run that has the engine to itself pays for a lock and nothing else, and asks the engine what it would have asked
without one.
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
    """The engine as one run sees it: the members of `Engine`, except `close`."""

    def __init__(self, shared: SharedEngine) -> None:
        self._shared = shared
        self.name = shared.engine.name
        self.inbox: deque[Outcome] = deque()
        """Answers that other threads have collected."""
        self.waiting: set[int] = set()
        """Tickets of prompts without an answer."""
        self.error: Exception | None = None
        """Why there will be no further answers."""
        self.stopped = ""
        """Why the run must not go on; empty while it may."""

    def submit(self, ticket: int, prompt: Prompt) -> None:
        """Queue a prompt. Raises what the engine raises, and RankLLMError where the engine was taken away."""
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
        """Wait until at least one of this view's prompts is answered; give all answers at hand.

        An empty list where none is queued, or where the engine had nothing to give. Raises what the engine raises, in
        whatever thread it did, and RankLLMError where the engine was taken away.
        """
        return self._shared.collect(self)

    def cancel(self, tickets: Collection[int]) -> None:
        """Drop prompts of this view."""
        self._shared.cancel(self, tickets)

    def wake(self) -> None:
        """Let a `collect` that waits return, perhaps with nothing."""
        self._shared.wake(self)

    def leave(self) -> None:
        """Drop all prompts of this view; safe at any time and in any thread, also while it is collected as garbage."""
        self._shared.leave(self)


class SharedEngine:
    """Routes prompts of many views to one engine, and answers back. See `shared_engine`."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        # Not reentrant: `leave` must notice that its own thread is in the middle of something.
        self.change = threading.Condition(threading.Lock())
        self.owners: dict[int, tuple[EngineView, Prompt]] = {}
        """Of each ticket that the engine holds or is about to be given."""
        self.late: dict[int, Prompt] = {}
        """Prompts that came while the engine was at work, in the order they came."""
        self._dropped: set[int] = set()
        """Tickets that were cancelled while the engine was at work."""
        self._views: list[EngineView] = []
        self._left: deque[EngineView] = deque()
        self.has_leader = False
        self._woken: set[EngineView] = set()

    def view(self) -> EngineView:
        """A new view; `leave` it when its run is over."""
        with self.change:
            self.drop_left()
            view = EngineView(self)
            self._views.append(view)
            return view

    @property
    def is_in_use(self) -> bool:
        """Whether a run on this engine was begun and neither finished nor left."""
        with self.change:
            self.drop_left()
            return bool(self._views)

    def stop(self, reason: str) -> None:
        """Have every run raise RankLLMError with this reason when it is resumed."""
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
        # A view may be left by the garbage collector, in the middle of whatever its thread does here.
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
        """Collect once for all views. Returns whether this one should wait on: others were answered, it was not."""
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
                    # What the engine was given is lost to all.
                    self._fail_others(view, failure)
                elif not self.engine.takes_prompts_at_work:
                    # This thread alone was interrupted, with a batch of others' prompts: those are submitted again. An
                    # engine that works in threads of its own keeps its answers for the next one that collects.
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
        """Tell the engine what came while it was at work."""
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
        """Forget the views that were left. The caller holds `change`."""
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
"""By `id` of the engine, which lives as long as what shares it."""
_MAKING = threading.Lock()


def shared_engine(engine: Engine) -> SharedEngine:
    """What shares an engine among its runs; the same one for the same engine while anybody holds it."""
    with _MAKING:
        found = _SHARED.get(id(engine))
        if found is None:
            found = _SHARED[id(engine)] = SharedEngine(engine)
        return found
