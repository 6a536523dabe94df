"""Processes of a service: one, or several that are forked after the model was loaded."""

from __future__ import annotations

import asyncio
import math
import multiprocessing
import os
import signal
import socket
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import wait
from multiprocessing.context import ForkProcess
from types import FrameType

import uvicorn
from starlette.middleware.trustedhost import TrustedHostMiddleware

from boxwright.serving.application import make_application
from boxwright.serving.header_deadline import bound_headers
from boxwright.serving.listening import address_of, is_loopback
from boxwright.serving.metrics import CountTable, Metrics, clear_gauges, make_counts
from boxwright.serving.options import ServingOptions
from boxwright.serving.served_model import ServedModel
from boxwright.serving.service import Service
from boxwright.workflows.observer import Observer

_LOCAL_NAMES = ["localhost", "127.0.0.1", "[::1]", "::1"]
"""Names by which pages of this machine call a service that only it can reach: others are of a stranger's page whose
name was made to lead here."""

_MOST_CONNECTIONS = 1024

_SIGNALS = (signal.SIGTERM, signal.SIGINT)

_GRACE = 5
"""Seconds for answers after the last deadline."""


def run_alone(model: ServedModel, options: ServingOptions, listener: socket.socket, observer: Observer) -> None:
    """Serve in this process until a signal.

    Raises:
        ValueError: the model cannot predict.
    """
    service = Service(model, options)

    async def announce() -> None:
        await service.start()
        _announce(listener, observer, 1)

    _run(service, listener, announce)


def run_workers(
    model: ServedModel, options: ServingOptions, listener: socket.socket, observer: Observer, workers: int
) -> None:
    """Serve in several processes, forked from this one, until a signal; one that dies is replaced.

    Raises:
        ValueError: a process ends before it was ready.
    """
    table = make_counts(workers)
    supervisor = _Supervisor(model, options, listener, table)
    with _on_signals(supervisor.stop):
        supervisor.run(lambda: _announce(listener, observer, workers))


class _Supervisor:
    """Starts processes, and replaces those that die."""

    def __init__(self, model: ServedModel, options: ServingOptions, listener: socket.socket, table: CountTable) -> None:
        self._service_of = lambda row: Service(model, options, Metrics(table, row))
        self._listener, self._table = listener, table
        self._processes: dict[int, ForkProcess] = {}
        self._is_stopping = False
        self._failure: str | None = None

    def stop(self, *_: object) -> None:
        """Begin to end; a signal may call it at any moment."""
        self._is_stopping = True

    def run(self, announce: Callable[[], None]) -> None:
        """Keep all processes alive until the signal.

        Raises:
            ValueError: one ends before it was ready.
        """
        is_announced = False
        ready = Metrics(self._table)
        for row in range(len(self._table)):
            self._start(row)
        while self._processes:
            if self._is_stopping:
                # Again and again: one that was just forked may not listen yet.
                for process in self._processes.values():
                    process.terminate()
            wait([process.sentinel for process in self._processes.values()], timeout=0.2)
            if not is_announced and ready["ready"] == len(self._table):
                is_announced = True
                announce()
            for row, process in list(self._processes.items()):
                if not process.is_alive():
                    self._replace(row, process)
        if self._failure is not None:
            raise ValueError(self._failure)

    def _start(self, row: int) -> None:
        if self._is_stopping:
            return
        process = multiprocessing.get_context("fork").Process(target=self._work, args=(row, os.getpid()))
        process.start()
        self._processes[row] = process

    def _replace(self, row: int, process: ForkProcess) -> None:
        was_ready = Metrics(self._table[row : row + 1])["ready"] > 0
        clear_gauges(self._table, row)
        process.join()
        del self._processes[row]
        if not was_ready and not self._is_stopping:
            self._failure = f"a process of the service ended with status {process.exitcode} before it was ready"
            self.stop()
        self._start(row)

    def _work(self, row: int, parent: int) -> None:
        for number in _SIGNALS:
            signal.signal(number, signal.SIG_DFL)
        service = self._service_of(row)
        _run(service, self._listener, service.start, parent=parent)


def _run(
    service: Service, listener: socket.socket, begin: Callable[[], Awaitable[None]], parent: int | None = None
) -> None:
    """Serve in this process until a signal, or until the parent is gone."""
    application = make_application(service)
    if is_loopback(listener):
        application.add_middleware(TrustedHostMiddleware, allowed_hosts=_LOCAL_NAMES, www_redirect=False)
    config = uvicorn.Config(
        application,
        log_config=None,
        log_level="warning",
        access_log=False,
        server_header=False,
        http=bound_headers(service.options.deadline),
        ws="none",
        loop="asyncio",
        limit_concurrency=_MOST_CONNECTIONS,
        timeout_graceful_shutdown=math.ceil(service.options.deadline) + _GRACE,
    )
    server = uvicorn.Server(config)
    failures: list[BaseException] = []

    async def run() -> None:
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        beginning = asyncio.create_task(_begin(begin, server, failures))
        watching = asyncio.create_task(_watch(parent, server))
        try:
            await serving
        finally:
            beginning.cancel()
            watching.cancel()

    def end(*_: object) -> None:
        """End where uvicorn does not listen to signals yet; it raises them again once it has finished."""
        server.should_exit = True

    with _on_signals(end):
        asyncio.run(run())
    if failures:
        raise ValueError(f"the model cannot predict: {failures[0]}") from failures[0]


async def _begin(begin: Callable[[], Awaitable[None]], server: uvicorn.Server, failures: list[BaseException]) -> None:
    try:
        await begin()
    except Exception as error:  # whatever libraries raise
        failures.append(error)
        server.should_exit = True


async def _watch(parent: int | None, server: uvicorn.Server) -> None:
    """End a process whose parent was killed."""
    while parent is not None:
        await asyncio.sleep(1)
        if os.getppid() != parent:
            server.should_exit = True
            return


@contextmanager
def _on_signals(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Handle the signals that end a service, where this is the main thread, and restore their handlers at the end."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handler) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)


def _announce(listener: socket.socket, observer: Observer, workers: int) -> None:
    processes = "" if workers == 1 else f", {workers} processes"
    observer.announce(f"ready at {address_of(listener)}{processes}; Ctrl-C ends it")
