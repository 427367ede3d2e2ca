"""Connections that may not be held open for nothing: by half a request, or by a response that nobody reads."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

HEAD_S = 30.0
"""Seconds within which the head of a request must be there. Its body is under the request's own time limit."""


def timed_protocol(*, unread_s: float, head_s: float = HEAD_S) -> type[H11Protocol]:
    """HTTP/1.1 that closes a connection whose head does not come, or whose client reads nothing for so many seconds."""
    return type("TimedConnection", (_TimedConnection,), {"head_s": head_s, "unread_s": unread_s})


class _Alarm:
    """Calls something in a while, unless it is called off."""

    def __init__(self) -> None:
        self._timer: asyncio.TimerHandle | None = None

    def set(self, loop: asyncio.AbstractEventLoop, seconds: float, ring: Callable[[], None]) -> None:
        if self._timer is None:
            self._timer = loop.call_later(seconds, ring)

    def call_off(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class _TimedConnection(H11Protocol):
    head_s: float
    unread_s: float

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's is
        super().connection_made(transport)
        self._head, self._unread = _Alarm(), _Alarm()
        self._head.set(self.loop, self.head_s, transport.abort)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.conn.their_state is h11.IDLE:
            # A part of a head has come, at which uvicorn stops its own timer of idle connections.
            self._head.set(self.loop, self.head_s, self.transport.abort)
        else:
            self._head.call_off()

    def connection_lost(self, exc: Exception | None) -> None:
        self._head.call_off()
        self._unread.call_off()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._wait_for_reading()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._unread.call_off()

    def timeout_keep_alive_handler(self) -> None:
        super().timeout_keep_alive_handler()
        if self.transport.get_write_buffer_size():  # it is closed when that has been read
            self._wait_for_reading()

    def _wait_for_reading(self) -> None:
        left = self.transport.get_write_buffer_size()
        self._unread.set(self.loop, self.unread_s, lambda: self._abort_unless_read(left))

    def _abort_unless_read(self, left: int) -> None:
        self._unread.call_off()
        if self.transport.get_write_buffer_size() < left:
            self._wait_for_reading()
        else:
            self.transport.abort()
