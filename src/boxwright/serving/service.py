"""The service behind the application: images in, detections out, within bounds of memory and time."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

import numpy as np

from boxwright.serving.answers import SeenImage, draw_image
from boxwright.serving.batcher import Batcher
from boxwright.serving.budget import Budget
from boxwright.serving.image_bytes import read_header_size, read_pixels
from boxwright.serving.metrics import Metrics
from boxwright.serving.options import ServingOptions
from boxwright.serving.question import Question, read_thresholds
from boxwright.serving.refusal import RefusalError, refuse_full
from boxwright.serving.served_model import ServedModel
from boxwright.serving.uploads import UploadedImage
from boxwright_runtime import Detections
from boxwright_runtime.answers import select_answered, select_drawn
from boxwright_runtime.streaming import PreparedImage

_log = logging.getLogger("boxwright.serving")

Result = TypeVar("Result")

_BODIES = 8
"""Bodies of the largest size that are in memory at a time; smaller ones are more."""

_DECODED = 2
"""Images of the largest size that are decoded at a time: one in the model, and one for after it."""

_MOST_THREADS = 4


class Service:
    """One process of a service, in one event loop.

    ``is_ready`` is True once it has predicted an image, and ``failure`` is the reason why it could not.

    Args:
        model: that predicts.
        options: bounds and defaults.
        metrics: counts of this process.

    Raises:
        ValueError: the thresholds are to be the tuned ones, and there are none.
    """

    def __init__(self, model: ServedModel, options: ServingOptions, metrics: Metrics | None = None) -> None:
        self.model, self.options, self.metrics = model, options, metrics or Metrics()
        try:
            read_thresholds(options.threshold, model)
        except RefusalError as error:
            raise ValueError(error.reason) from None
        self.queue, self.bodies = Budget(options.queue), Budget(_BODIES * options.max_bytes)
        self._pixels = Budget(_DECODED * options.max_pixels)
        self._started: asyncio.Task[None] | None = None
        self.is_ready = False
        self.failure: str | None = None

    def start(self) -> asyncio.Task[None]:
        """Warm up in the running event loop, unless that was begun; return the task, which ends when it is ready."""
        if self._started is None:
            threads = min(_MOST_THREADS, os.cpu_count() or 1)
            self._pool = ThreadPoolExecutor(threads, thread_name_prefix="images")
            self._batcher = Batcher(
                self.model.predict,
                batch_size=self.options.batch_size,
                wait=self.options.batch_wait / 1000,
                note_batch=self._note_batch,
            )
            self._batcher.start()
            self._started = asyncio.create_task(self._warm_up())
        return self._started

    async def stop(self) -> None:
        """End all threads."""
        if self._started is not None:
            self._started.cancel()
            await self._batcher.stop()
            await asyncio.to_thread(self._pool.shutdown)
            self.metrics.set("ready", 0)

    def note_bodies(self, num_bytes: int) -> None:
        """Count the bytes of a body that has arrived, and look at how many are in memory."""
        self.metrics.add("received_bytes_total", num_bytes)
        self.metrics.set("body_bytes_in_memory", self.bodies.held)

    def refuse_where_full(self) -> None:
        """Raise ``RefusalError`` where no image more is taken, before its body is read."""
        if self.queue.held >= self.queue.total:
            raise refuse_full(self._seconds_to_wait())

    async def detect(self, images: Sequence[UploadedImage], question: Question) -> list[SeenImage]:
        """Detect objects in all images of a request.

        Raises:
            RefusalError: one of them cannot be read, or too many wait.
        """
        if question.form == "image" and len(images) > 1:
            raise RefusalError(400, f"the drawn image is of one, not of {len(images)}: ask for json or coco")
        if not self.queue.try_take(len(images)):
            raise refuse_full(self._seconds_to_wait())
        self.metrics.set("images_in_work", self.queue.held)
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(self._detect_in(one, question)) for one in images]
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from None
        finally:
            self.queue.give_back(len(images))
            self.metrics.set("images_in_work", self.queue.held)
        return [task.result() for task in tasks]

    async def _detect_in(self, image: UploadedImage, question: Question) -> SeenImage:
        try:
            height, width = await self.in_thread(read_header_size, image.data, self.options.max_pixels)
            async with self._pixels.hold(height * width):
                return await self._detect_decoded(image, question)
        except RefusalError as error:
            if not image.name:
                raise
            raise RefusalError(error.status, f"{image.name}: {error.reason}", error.headers) from None

    async def _detect_decoded(self, image: UploadedImage, question: Question) -> SeenImage:
        with self._batcher.expect():
            rgb, prepared = await self.in_thread(self._prepare, image.data)
        size = rgb.shape[:2]
        kept = rgb if question.form == "image" else None
        del rgb
        detections = select(await self._batcher.predict(prepared), question, self.model)
        self.metrics.add("detections_total", len(detections))
        drawing = None
        if kept is not None:
            drawing = await self.in_thread(draw_image, kept, select_drawn(detections, self.model.task))
        return SeenImage(image.name, (size[0], size[1]), detections, drawing)

    def _prepare(self, data: bytearray) -> tuple[np.ndarray, PreparedImage]:
        rgb = read_pixels(data)
        return rgb, self.model.prepare(rgb)

    async def in_thread(self, function: Callable[..., Result], *arguments: object) -> Result:
        """Run a function in one of the threads for images."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, partial(function, *arguments))

    async def _warm_up(self) -> None:
        side = self.model.input_format.image_size
        try:
            prepared = await self.in_thread(self.model.prepare, np.zeros((side, side, 3), dtype=np.uint8))
            await self._batcher.predict(prepared)
        except Exception as error:  # whatever libraries raise
            self.failure = " ".join(str(error).split())
            _log.error("the model cannot predict: %s", self.failure)
            raise
        self.is_ready = True
        self.metrics.set("ready", 1)

    def _note_batch(self, num_images: int, seconds: float) -> None:
        self.metrics.add("batches_total")
        self.metrics.add("images_total", num_images)
        self.metrics.add("model_seconds_total", seconds)

    def _seconds_to_wait(self) -> float:
        return self.queue.held * self.metrics.seconds_per_image()


def select(detections: Detections, question: Question, model: ServedModel) -> Detections:
    """Select the detections that a question is about, of all in an image."""
    if question.labels is not None:
        detections = detections[[label in question.labels for label in detections.labels.tolist()]]
    return select_answered(detections, question.thresholds, model.task)
