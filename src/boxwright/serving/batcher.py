"""Batches of images that come from anywhere at any time: equal sizes go through the model together."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from boxwright_runtime import Detections
from boxwright_runtime.streaming import PredictPrepared, PreparedImage

NoteBatch = Callable[[int, float], None]
"""Called after each batch with the number of its images and the seconds that it took."""


@dataclass(eq=False)
class _Waiting:
    prepared: PreparedImage
    answer: asyncio.Future[Detections]


class Batcher:
    """Predicts images in batches of equal shape, in one thread; the image that waits longest comes first.

    An image waits only while others are on their way, and not for long; one that nobody asks for any more is left out.

    Args:
        predict: detections of the contents of prepared images.
        batch_size: images of a batch, at most.
        wait: seconds that an image waits for others, at most.
        note_batch: called after each batch, in the event loop.
    """

    def __init__(
        self, predict: PredictPrepared, *, batch_size: int, wait: float, note_batch: NoteBatch = lambda *_: None
    ) -> None:
        self._predict, self._batch_size, self._wait, self._note_batch = predict, batch_size, wait, note_batch
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="model")
        self._waiting: list[_Waiting] = []
        self._on_the_way = 0
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        """Count the images that wait."""
        return len(self._waiting)

    def start(self) -> None:
        """Begin to make batches, in the running event loop."""
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """End once the batch that is in the model is done."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
        await asyncio.to_thread(self._thread.shutdown)

    @contextmanager
    def expect(self) -> Iterator[None]:
        """Tell that an image is on its way, for as long as this context: others may wait for it."""
        self._on_the_way += 1
        try:
            yield
        finally:
            self._on_the_way -= 1
            self._changed.set()

    async def predict(self, prepared: PreparedImage) -> Detections:
        """Predict one image, in a batch with others.

        Raises:
            ValueError: the model fails on it.
        """
        one = _Waiting(prepared, asyncio.get_running_loop().create_future())
        self._waiting.append(one)
        self._changed.set()
        return await one.answer

    async def _run(self) -> None:
        while True:
            await self._run_batch(await self._collect())

    async def _run_batch(self, batch: Sequence[_Waiting]) -> None:
        start = time.perf_counter()
        contents = [one.prepared.content for one in batch]
        loop = asyncio.get_running_loop()
        results = await loop.run_in_executor(self._thread, _predict_each, self._predict, contents)
        self._note_batch(len(batch), time.perf_counter() - start)
        for one, result in zip(batch, results, strict=True):
            if one.answer.done():
                continue
            if isinstance(result, Exception):
                one.answer.set_exception(result)
            else:
                one.answer.set_result(result)

    async def _collect(self) -> list[_Waiting]:
        """Wait for the next batch, and take it out of those that wait."""
        loop = asyncio.get_running_loop()
        until = left = None
        while True:
            self._changed.clear()
            if batch := self._next_batch():
                until = until or loop.time() + self._wait
                left = until - loop.time()
                if len(batch) == self._batch_size or not self._on_the_way or left <= 0:
                    self._waiting = [one for one in self._waiting if one not in batch]
                    return batch
            else:
                until = left = None
            with suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), left)

    def _next_batch(self) -> list[_Waiting]:
        """Return those of the shape that waits longest, without those that nobody asks for any more."""
        self._waiting = [one for one in self._waiting if not one.answer.done()]
        like_first = [one for one in self._waiting if one.prepared.shape == self._waiting[0].prepared.shape]
        return like_first[: self._batch_size]


def _predict_each(predict: PredictPrepared, contents: Sequence[Any]) -> list[Detections | Exception]:
    """Predict a batch; where it fails, each image by itself, so that one does not spoil the others."""
    try:
        return list(predict(contents))
    except Exception as error:  # whatever libraries raise
        if len(contents) == 1:
            return [error]
    return [_predict_each(predict, [content])[0] for content in contents]
