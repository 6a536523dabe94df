"""Drawings that are made and written in threads, behind whoever has the detections."""

from __future__ import annotations

import os
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType

import numpy as np
from jaxtyping import UInt8

from boxwright.drawing.detections import draw_detections
from boxwright.drawing.saving import save_drawing
from boxwright.drawing.style import AUTOMATIC, DrawingStyle
from boxwright_runtime.detections import Detections
from boxwright_runtime.image_file import describe_error
from boxwright_runtime.printable_names import printable

_MOST_THREADS = 2
"""Drawing itself needs the interpreter, of which there is one; compression does not."""

_WAITING = 4
"""Images that may wait for a thread; more would only fill the memory."""


class DrawingQueue:
    """Draws detections and writes the drawings into files, a few of them at once, while others are predicted.

    As a context, it waits for all drawings at its end; where an error ends it, for those that were handed over.

    Args:
        style: of the drawings.
    """

    def __init__(self, style: DrawingStyle = AUTOMATIC) -> None:
        self.style = style
        self._pool = ThreadPoolExecutor(min(_MOST_THREADS, os.cpu_count() or 1), thread_name_prefix="drawing")
        self._waiting: deque[Future[None]] = deque()

    def __enter__(self) -> DrawingQueue:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            while kind is None and self._waiting:
                self._waiting.popleft().result()
        finally:
            self._pool.shutdown()

    def __len__(self) -> int:
        """Count the drawings that are waited for."""
        return len(self._waiting)

    def draw(self, image: UInt8[np.ndarray, "h w 3"], detections: Detections, target: Path) -> None:
        """Draw detections on an image into a file, whose folder is made; wait where too many drawings do.

        Raises:
            ValueError: this drawing, or one before it, cannot be written.
        """
        self._waiting.append(self._pool.submit(self._draw, image, detections, target))
        while len(self._waiting) > _WAITING or (self._waiting and self._waiting[0].done()):
            self._waiting.popleft().result()

    def _draw(self, image: UInt8[np.ndarray, "h w 3"], detections: Detections, target: Path) -> None:
        drawing = draw_detections(image, detections, detections.categories, threshold=0.0, style=self.style)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            save_drawing(drawing, target)
        except OSError as error:
            raise ValueError(f"{printable(target)} cannot be written: {describe_error(error)}") from error
