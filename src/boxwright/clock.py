"""Durations as a clock shows them."""

from __future__ import annotations


def format_clock(seconds: float) -> str:
    """Write a duration as minutes and seconds, with hours before them where there are any: 0:10, 1:02:05."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
