"""Work on items ahead of whoever takes the results: in threads, in order, and only so far."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import NamedTuple, TypeVar

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")

_MOST_THREADS = 4
"""Decoding images in more of them takes cores from the network, and memory for images that wait for it."""


class ReadAhead(NamedTuple):
    """Limits of what is worked on ahead.

    Args:
        threads: that work at once; with 0, each item is worked on when its result is taken.
        items: that may be worked on, or be done, beside the one whose result is taken.
    """

    threads: int
    items: int


IN_TURN = ReadAhead(0, 0)


def plan_read_ahead(num_items: int | None, at_once: int = 1) -> ReadAhead:
    """Choose how far to read images ahead on this machine.

    Args:
        num_items: how many there are; None where nobody knows, as of a camera: each is then read when it is needed.
        at_once: images that are taken together, as in a batch.
    """
    if num_items is None or num_items < 2:
        return IN_TURN
    threads = min(_MOST_THREADS, _count_cores(), num_items)
    return ReadAhead(threads, threads + at_once)


def _count_cores() -> int:
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # but on Linux
        return os.cpu_count() or 1


def map_ahead(
    work: Callable[[int, _Item], _Result],
    items: Iterable[_Item],
    ahead: ReadAhead,
    *,
    in_thread: Callable[[_Item], bool],
) -> Generator[tuple[_Item, Callable[[], _Result]]]:
    """Give each item, in order, with a function that returns its result or raises the error of the work.

    The threads end with the iterator, also where it is closed early; what runs by then is waited for.

    Args:
        work: called with the index and the item, from threads at once.
        items: taken as far as ``ahead`` goes.
        ahead: how far that is.
        in_thread: tells whether an item may be worked on in a thread; another one is when its result is taken.
    """
    if ahead.threads == 0:
        for index, item in enumerate(items):
            yield item, partial(work, index, item)
        return
    waiting: deque[tuple[_Item, Callable[[], _Result]]] = deque()
    pool = ThreadPoolExecutor(ahead.threads, thread_name_prefix="read-ahead")
    try:
        for index, item in enumerate(items):
            call = pool.submit(work, index, item).result if in_thread(item) else partial(work, index, item)
            waiting.append((item, call))
            if len(waiting) > ahead.items:
                yield waiting.popleft()
        while waiting:
            yield waiting.popleft()
    finally:
        pool.shutdown(cancel_futures=True)
