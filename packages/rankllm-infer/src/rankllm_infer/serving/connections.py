"""Deadlines for clients that send incomplete requests or do not read their responses.

uvicorn only closes connections that are idle between requests, so its protocol class is extended here. The time for
reading and ranking a request is limited by `--request-timeout`.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol


class BoundedProtocol(H11Protocol):
    """Connection with deadlines for its client."""

    request_s = 10.0
    """Seconds for the head of a request to arrive, and for the rest of a body that has already been answered."""
    stalled_s = 60.0
    """Seconds after which a client that does not read its response is disconnected."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._until_request: asyncio.TimerHandle | None = None
        self._until_read: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start waiting for a request."""
        super().connection_made(transport)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """Cancel all deadlines."""
        self._cancel()
        self.resume_writing()
        super().connection_lost(exc)

    def handle_events(self) -> None:
        """Handle received events."""
        super().handle_events()
        self._watch()

    def on_response_complete(self) -> None:
        """Wait for the rest of the request, or for the next one."""
        super().on_response_complete()
        self._watch()

    def pause_writing(self) -> None:
        """Start the deadline for a client that does not read."""
        super().pause_writing()
        self._wait_for_reading()

    def resume_writing(self) -> None:
        """Cancel the deadline: the client is reading."""
        super().resume_writing()
        if self._until_read is not None:
            self._until_read.cancel()
            self._until_read = None

    def timeout_keep_alive_handler(self) -> None:
        """Close an idle connection, which waits until the client has read the last response."""
        super().timeout_keep_alive_handler()
        if self.transport.get_write_buffer_size():
            self._wait_for_reading()

    def send_400_response(self, msg: str) -> None:
        """Respond to invalid HTTP once: the application may already be responding if the body is invalid."""
        if self.cycle is not None:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            super().send_400_response(msg)
        else:
            self.transport.close()

    def _wait_for_reading(self) -> None:
        if self._until_read is None:
            unread = self.transport.get_write_buffer_size()
            self._until_read = self.loop.call_later(self.stalled_s, self._abort_unless_read, unread)

    def _abort_unless_read(self, unread: int) -> None:
        self._until_read = None
        if self.transport.get_write_buffer_size() < unread:
            self._wait_for_reading()
        else:
            self.transport.abort()

    def _watch(self) -> None:
        """Start the deadline if it is the client's turn, else cancel it."""
        state = self.conn.their_state
        is_answered = state is h11.SEND_BODY and self.conn.our_state is h11.DONE
        # Between two requests, uvicorn's own shorter deadline is active.
        is_between = self.timeout_keep_alive_task is not None
        if self.transport.is_closing() or not (is_answered or (state is h11.IDLE and not is_between)):
            self._cancel()
        elif self._until_request is None:
            self._until_request = self.loop.call_later(self.request_s, self._give_up)

    def _cancel(self) -> None:
        if self._until_request is not None:
            self._until_request.cancel()
            self._until_request = None

    def _give_up(self) -> None:
        if not self.transport.is_closing():
            with suppress(h11.LocalProtocolError):
                self.conn.send(h11.ConnectionClosed())
            self.transport.close()
