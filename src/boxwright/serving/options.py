"""Options of a service: its bounds, and its answers where a request does not say more."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

LARGEST_QUEUE = 10_000

TOLD_BOUNDS = ("max_bytes", "max_pixels", "queue", "deadline")
"""Options that clients may know."""


@dataclass(frozen=True, kw_only=True)
class ServingOptions:
    """Bounds and defaults of a service; each of its processes has bounds of its own.

    Args:
        threshold: least score of detections where a request gives none; ``tuned`` takes that of each class.
        key: clients send it as ``Authorization: Bearer KEY``; anybody may ask where None.
        max_bytes: of the body of one request.
        max_pixels: of one image, by its header, before it is decoded.
        queue: images that are taken at a time; more are refused until one is done.
        deadline: seconds from the beginning of a request to its answer.
        batch_size: images that go through the model together, at most: only equal sizes do.
        batch_wait: milliseconds that an image waits for others which are being decoded.

    Raises:
        ValueError: one of them is out of range.
    """

    threshold: float | Literal["tuned"] = 0.3
    key: str | None = field(default=None, repr=False)
    max_bytes: int = 32 * 2**20
    max_pixels: int = 50_000_000
    queue: int = 64
    deadline: float = 30.0
    batch_size: int = 4
    batch_wait: float = 5.0

    def __post_init__(self) -> None:
        if self.threshold != "tuned" and (isinstance(self.threshold, str) or not 0 <= self.threshold <= 1):
            raise ValueError(f"threshold is between 0 and 1, or tuned, not {self.threshold}")
        if self.key is not None and not (self.key and self.key.isascii() and self.key.isprintable()):
            raise ValueError("a key has visible letters of ASCII alone, for it travels in a header")
        if self.key is not None and self.key != self.key.strip():
            raise ValueError("a key neither begins nor ends with a space: headers lose them")
        for name, value, most in (
            ("max_bytes", self.max_bytes, 2**31),
            ("max_pixels", self.max_pixels, 178_956_970),
            ("queue", self.queue, LARGEST_QUEUE),
            ("batch_size", self.batch_size, 1024),
        ):
            if not 1 <= value <= most:
                raise ValueError(f"{name} is from 1 to {most:,}, not {value:,}")
        if not 0 < self.deadline <= 3600:
            raise ValueError(f"deadline is above 0 and at most 3,600 seconds, not {self.deadline:g}")
        if not 0 <= self.batch_wait <= 1000:
            raise ValueError(f"batch_wait is from 0 to 1,000 milliseconds, not {self.batch_wait:g}")
