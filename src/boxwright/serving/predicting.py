"""``POST /predict``: a body to an answer, within the deadline and for as long as the client waits."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine, Sequence
from typing import Any

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from boxwright.serving.answers import answer_coco, answer_image, answer_json
from boxwright.serving.question import Question, read_question
from boxwright.serving.refusal import RefusalError
from boxwright.serving.service import Service
from boxwright.serving.uploads import UploadedImage, is_received, receive_images

_ANSWERS = {"json": answer_json, "coco": answer_coco, "image": answer_image}

_GONE = 499


async def answer_predict(request: Request, service: Service) -> Response:
    """Answer a request for detections.

    Raises:
        RefusalError: it cannot be answered.
    """
    start, status = time.perf_counter(), 500
    try:
        response = await _predict_in_time(request, service)
        status = response.status_code
        return response
    except RefusalError as error:
        status = error.status
        raise
    except ClientDisconnect:
        status = _GONE
        return Response(status_code=_GONE)
    finally:
        service.metrics.note_request(status, time.perf_counter() - start)


async def _predict_in_time(request: Request, service: Service) -> Response:
    options = service.options
    question = read_question(request.query_params, service.model, options.threshold)
    service.refuse_where_full()
    try:
        async with (
            asyncio.timeout(options.deadline),
            receive_images(request, options.max_bytes, options.queue, service.bodies) as images,
        ):
            service.note_bodies(sum(len(one.data) for one in images))
            return await _while_connected(request, _detect_and_answer(service, images, question))
    except TimeoutError:
        if is_received(request):
            raise RefusalError(504, f"no answer within {options.deadline:g} s", {"Retry-After": "1"}) from None
        reason = f"the body did not arrive within {options.deadline:g} s"
        raise RefusalError(408, reason, {"Connection": "close"}) from None
    finally:
        service.note_bodies(0)


async def _detect_and_answer(service: Service, images: Sequence[UploadedImage], question: Question) -> Response:
    seen = await service.detect(images, question)
    return await service.in_thread(_ANSWERS[question.form], seen)


async def _while_connected(request: Request, work: Coroutine[Any, Any, Response]) -> Response:
    """Do some work for as long as the client waits for it.

    Raises:
        ClientDisconnect: it went away.
    """
    task, gone = asyncio.ensure_future(work), asyncio.ensure_future(_wait_until_gone(request))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientDisconnect
        return task.result()
    finally:
        task.cancel()
        gone.cancel()
        await asyncio.gather(task, gone, return_exceptions=True)


async def _wait_until_gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
