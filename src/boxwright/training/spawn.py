"""Processes that train together where torchrun has started none: the first starts the others."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from typing import NamedTuple

import torch
from torch._C._distributed_c10d import TCPStore

from boxwright.cpu_quota import THREADS
from boxwright.training.distributed import leave_processes
from boxwright.training.failures import OTHER_ENDED, describe_failure
from boxwright.training.interrupt import SIGNALS, Interrupted

SECONDS_TO_END = 10.0
"""Seconds that others have to end by themselves, once the first has ended."""

_HOST = "127.0.0.1"

# Heard by the whole group of a terminal: the first process tells the others, between two steps.
_OF_TERMINAL = tuple(number for number in SIGNALS if number != signal.SIGTERM)


class _Other(NamedTuple):
    process: SpawnProcess
    heard: Connection


@contextmanager
def start_processes(count: int, work: Callable[[], object]) -> Iterator[None]:
    """Let this process be the first of ``count`` that train together, and start the others.

    Each computes with its part of the threads that this one has. Nothing happens where one is enough, or where this
    process is one of several already, which torchrun has started.

    Args:
        count: number of processes, all on this machine.
        work: what the others do meanwhile. They get it by ``pickle``, and import the main module of this process anew,
            which therefore has to start its work under ``if __name__ == "__main__"``.

    Raises:
        ValueError: another process cannot be started, or has ended too early.
    """
    if count == 1 or int(os.environ.get("WORLD_SIZE", "1")) > 1:
        yield
        return
    store = TCPStore(_HOST, 0, is_master=True, wait_for_workers=False)
    threads, others = torch.get_num_threads(), list[_Other]()
    own = max(1, threads // count)
    try:
        for rank in range(1, count):
            with _environment({**_describe(rank, count, store.port), THREADS: str(own)}):
                others.append(_start(work))
        for other in others:
            _wait_for(other)
        torch.set_num_threads(own)
        with _environment(_describe(0, count, store.port)):
            yield
    except Interrupted:  # between two steps, which the others have heard of
        raise
    except KeyboardInterrupt:
        _kill(others)
        raise
    except Exception as error:
        named = _name_reason(error, others)
        if named is error:
            raise
        raise named from error
    finally:
        torch.set_num_threads(threads)
        leave_processes()
        _end(others)


def _describe(rank: int, count: int, port: int) -> dict[str, str]:
    """Describe a process to itself, as torchrun does in the environment."""
    return {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(count),
        "LOCAL_WORLD_SIZE": str(count),
        "MASTER_ADDR": _HOST,
        "MASTER_PORT": str(port),
        # The store is there already, so that no other program can take its port meanwhile.
        "TORCHELASTIC_USE_AGENT_STORE": "True",
    }


@contextmanager
def _environment(changes: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in changes}
    os.environ.update(changes)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _start(work: Callable[[], object]) -> _Other:
    context = multiprocessing.get_context("spawn")
    heard, told = context.Pipe(duplex=False)
    process = context.Process(target=_take_part, args=(work, told))
    try:
        with _deaf():
            process.start()
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise ValueError(
            f"train.runtime.processes: other processes get data and transforms by pickle, which cannot store one of "
            f"them: {error}; take torchrun, or one process"
        ) from error
    told.close()
    return _Other(process, heard)


@contextmanager
def _deaf() -> Iterator[None]:
    """Let no signal of the terminal come here, nor to a process that is started here, which inherits that."""
    if os.name != "posix":
        yield
        return
    resource_tracker.ensure_running()  # which would end this, where it starts
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _OF_TERMINAL)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _wait_for(other: _Other) -> None:
    """Wait until another process has imported what it needs.

    Raises:
        ValueError: it ended before; what it wrote to standard error says why.
    """
    try:
        other.heard.recv()
    except EOFError:
        other.process.join()
        raise ValueError(
            f"train.runtime.processes: another process could not be started (exit status {other.process.exitcode}); "
            'a script that trains with several has to do it under if __name__ == "__main__":'
        ) from None


def _take_part(work: Callable[[], object], told: Connection) -> None:
    """Do the work of another process; what goes wrong in it is told to the first one, which speaks."""
    for number in _OF_TERMINAL:
        signal.signal(number, signal.SIG_IGN)
    told.send("")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            work()
        except Interrupted as stopped:
            _tell(told, f"asked to stop by signal {stopped.number}")
        except Exception as error:
            _tell(told, describe_failure(error) or f"{type(error).__name__}: {error}")
        finally:
            leave_processes()


def _tell(told: Connection, reason: str) -> None:
    with suppress(BrokenPipeError):  # the first process has ended, and nobody else listens
        told.send(reason)


def _name_reason(error: Exception, others: list[_Other]) -> Exception:
    """Return the error, with the reason for which another process has ended where it is about that."""
    message = describe_failure(error)
    if message is None or OTHER_ENDED not in message:
        return error
    reason = next((text for other in others if (text := _hear_reason(other)) and OTHER_ENDED not in text), None)
    return ValueError(message if reason is None else message.replace(OTHER_ENDED, f"{OTHER_ENDED} ({reason})", 1))


def _hear_reason(other: _Other) -> str | None:
    other.process.join(SECONDS_TO_END)
    with suppress(EOFError, OSError):
        if other.heard.poll():
            return str(other.heard.recv())
    code = other.process.exitcode
    return f"by signal {-code}" if code is not None and code < 0 else None


def _end(others: list[_Other]) -> None:
    """See that the other processes end, which they do by themselves unless something went wrong."""
    try:
        for process, _ in others:
            process.join(SECONDS_TO_END)
    finally:
        _kill(others)
        for _, heard in others:
            heard.close()


def _kill(others: list[_Other]) -> None:
    for process, _ in others:
        process.kill()
