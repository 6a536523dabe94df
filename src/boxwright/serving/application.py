"""The ASGI application: addresses, keys, and one form for all that goes wrong."""

from __future__ import annotations

import hmac
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from boxwright.serving.openapi import describe_api
from boxwright.serving.options import TOLD_BOUNDS, ServingOptions
from boxwright.serving.page import page_headers, page_text
from boxwright.serving.predicting import answer_predict
from boxwright.serving.refusal import RefusalError
from boxwright.serving.served_model import ServedModel, open_model
from boxwright.serving.service import Service
from boxwright.serving.uploads import drop_rest, is_received

if TYPE_CHECKING:
    from boxwright.detector import Detector
    from boxwright_runtime import Runtime

_Answer = Callable[[Request], Awaitable[Response]]

_HEADERS = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}


def app(model: str | Path | Detector | Runtime | ServedModel, options: ServingOptions | None = None) -> Starlette:
    """Make an ASGI application that serves a model, to run by itself or to mount in another.

    Args:
        model: any source that ``boxwright.load`` takes, a detector, an exported file or a ``Runtime``.
        options: bounds and defaults.

    Raises:
        FileNotFoundError: there is no such model.
        ValueError: it is no model, or is damaged; or tuned thresholds are asked of one that has none.
    """
    served = model if isinstance(model, ServedModel) else open_model(model)
    return make_application(Service(served, options or ServingOptions()))


def make_application(service: Service) -> Starlette:
    """Make the application of a service, which starts with it, or with its first request where it is mounted."""

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        service.start()
        try:
            yield
        finally:
            await service.stop()

    routes = [Route(path, _guard(_tell(path, service), service, path in _OPEN)) for path in _TOLD]
    predict = _guard(lambda request: answer_predict(request, service), service, False)
    return Starlette(
        routes=[*routes, Route("/predict", predict, methods=["POST"])],
        lifespan=lifespan,
        exception_handlers={HTTPException: _answer_http_error, Exception: _answer_fault},
    )


def _guard(answer: _Answer, service: Service, is_open: bool) -> _Answer:
    """Check the key, and turn refusals into answers."""

    async def respond(request: Request) -> Response:
        service.start()
        try:
            if not is_open:
                _check_key(request, service.options.key)
            response = await answer(request)
        except RefusalError as error:
            if not is_received(request):
                await drop_rest(request)
            response = JSONResponse({"error": " ".join(error.reason.split())}, error.status, error.headers)
        response.headers.update(_HEADERS)
        return response

    return respond


def _check_key(request: Request, key: str | None) -> None:
    if key is None:
        return
    sent = request.headers.get("authorization", "").encode("latin-1", "replace")
    # In constant time: how many letters are right must not show in how long the answer takes.
    if not hmac.compare_digest(sent, f"Bearer {key}".encode()):
        reason = "this service needs its key, as Authorization: Bearer KEY"
        raise RefusalError(401, reason, {"WWW-Authenticate": "Bearer"})


def _tell(path: str, service: Service) -> _Answer:
    async def tell(_: Request) -> Response:
        return _TOLD[path](service)

    return tell


def _show_page(_: Service) -> Response:
    return HTMLResponse(page_text(), headers=page_headers())


def _tell_health(_: Service) -> Response:
    return JSONResponse({"status": "alive"})


def _tell_ready(service: Service) -> Response:
    if service.failure is not None:
        raise RefusalError(503, "the model cannot predict; the log of the service says why")
    if not service.is_ready:
        raise RefusalError(503, "the model is warming up", {"Retry-After": "1"})
    return JSONResponse({"status": "ready"})


def _tell_metrics(service: Service) -> Response:
    return PlainTextResponse(service.metrics.to_text(), media_type="text/plain; version=0.0.4")


def _tell_model(service: Service) -> Response:
    bounds = {name: getattr(service.options, name) for name in TOLD_BOUNDS}
    return JSONResponse({**service.model.describe(), "threshold": service.options.threshold, "bounds": bounds})


def _tell_api(service: Service) -> Response:
    return JSONResponse(describe_api(service.model, service.options))


_TOLD: dict[str, Callable[[Service], Response]] = {
    "/": _show_page,
    "/health": _tell_health,
    "/ready": _tell_ready,
    "/metrics": _tell_metrics,
    "/model": _tell_model,
    "/openapi.json": _tell_api,
}

_OPEN = ("/", "/health", "/ready", "/openapi.json")
"""Addresses without a key: probes have none, and the page asks for it."""


async def _answer_http_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": error.detail}, error.status_code, dict(error.headers or {}) | _HEADERS)


async def _answer_fault(*_: object) -> Response:
    """Answer where we, or the model, failed: the reason is for those who run the service, in its log."""
    return JSONResponse({"error": "the service failed on this request; its log says why"}, 500, _HEADERS)
