"""Refusals: the one form of an answer that says no."""

from __future__ import annotations

from collections.abc import Mapping


class RefusalError(Exception):
    """A request is not answered.

    Args:
        status: of HTTP.
        reason: in one line, for whoever sent the request.
        headers: of the answer.
    """

    def __init__(self, status: int, reason: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(reason)
        self.status, self.reason, self.headers = status, reason, dict(headers or {})


def refuse_full(seconds: float) -> RefusalError:
    """Refuse a request because the queue is full.

    Args:
        seconds: after which it is worth another attempt.
    """
    later = max(1, round(seconds))
    return RefusalError(429, f"too many images are waiting; try again in {later} s", {"Retry-After": str(later)})
