"""Services around stand-ins: exported files of a few nodes, and models that wait for a gate."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, TypeVar

import numpy as np

from asgi_requests import Answered, Request
from boxwright.serving.application import make_application
from boxwright.serving.options import ServingOptions
from boxwright.serving.served_model import ServedModel
from boxwright.serving.service import Service
from boxwright_runtime import Category, Detections
from boxwright_runtime.input_format import InputFormat
from boxwright_runtime.streaming import PreparedImage

Result = TypeVar("Result")


class GatedModel:
    """A model that predicts once its gate is open; it notes the batches that went through.

    The score of an image is its first level by 255; of level ``fails_on``, it fails.
    """

    def __init__(self) -> None:
        self.gate, self.entered = threading.Event(), threading.Event()
        self.batches: list[int] = []
        self.fails_on = 13
        self.gate.set()

    def serve(self, **options: Any) -> ServedModel:
        """The model as services take it."""
        return ServedModel(
            task="detection",
            categories=(Category(7, "thing"),),
            input_format=InputFormat(image_size=32),
            thresholds=None,
            has_masks=False,
            facts={},
            prepare=lambda rgb: PreparedImage(rgb.shape[:2], rgb),
            predict=self._predict,
            **options,
        )

    def _predict(self, images: Sequence[Any]) -> list[Detections]:
        self.entered.set()
        assert self.gate.wait(30)
        self.batches.append(len(images))
        levels = np.array([image[0, 0, 0] for image in images])
        if (levels == self.fails_on).any():
            raise ValueError(f"fails on {self.fails_on}")
        box = np.array([[0.0, 0.0, 4.0, 4.0]])
        return [
            Detections(box, np.array([level / 255]), np.array([0]), None, (Category(7, "thing"),)) for level in levels
        ]


class Client:
    """Sends requests to a service."""

    def __init__(self, service: Service) -> None:
        self.service, self.application = service, make_application(service)

    async def ask(self, path: str, body: bytes | Sequence[bytes] = b"", **options: Any) -> Answered:
        """Send a request, and return the answer."""
        chunks = [body] if isinstance(body, bytes) and body else body
        return await Request(path, chunks, **options).send_to(self.application)


def run_service(
    model: ServedModel, test: Callable[[Client], Awaitable[Result]], options: ServingOptions | None = None
) -> Result:
    """Run a test in the event loop of a service, which ends with it."""

    async def run() -> Result:
        service = Service(model, options or ServingOptions())
        await service.start()
        try:
            return await asyncio.wait_for(test(Client(service)), 30)
        finally:
            await service.stop()

    coroutine: Coroutine[Any, Any, Result] = run()
    return asyncio.run(coroutine)
