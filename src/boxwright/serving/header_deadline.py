"""Connections whose headers must come in time: uvicorn itself waits for them for ever."""

from __future__ import annotations

import asyncio

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol


class HeaderDeadlineProtocol(H11Protocol):
    """Connection that is closed where a request has begun, or could, and its headers are not complete in time.

    Between requests, uvicorn closes it after a shorter time.
    """

    header_seconds = 30.0

    _closing: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as in H11Protocol
        """Begin to wait for the first request."""
        super().connection_made(transport)
        self._wait_for_headers()

    def data_received(self, data: bytes) -> None:
        """Take bytes, and see whether they end or begin the headers of a request."""
        super().data_received(data)
        self._wait_for_headers()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait for nothing more."""
        self._stop_waiting()
        super().connection_lost(exc)

    def _wait_for_headers(self) -> None:
        # The rest of a body that was answered before its end may come for ever, too.
        is_answered = self.cycle is not None and self.cycle.response_complete
        if self.conn.their_state is not h11.IDLE and not is_answered:
            self._stop_waiting()
        elif self._closing is None:
            self._closing = self.loop.call_later(self.header_seconds, self.transport.close)

    def _stop_waiting(self) -> None:
        if self._closing is not None:
            self._closing.cancel()
            self._closing = None


def bound_headers(seconds: float) -> type[HeaderDeadlineProtocol]:
    """Make a protocol for ``uvicorn.Config`` with a deadline for headers."""
    return type("BoundHeaders", (HeaderDeadlineProtocol,), {"header_seconds": seconds})
