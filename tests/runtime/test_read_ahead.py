"""Work on items ahead: in order, only so far, with every error in its place, and no thread that stays."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Generator, Iterator

import pytest

from boxwright_runtime.read_ahead import IN_TURN, ReadAhead, map_ahead, plan_read_ahead
from live_threads import list_threads

Outcomes = Generator[tuple[int, Callable[[], int]]]


def start(work: Callable[[int, int], int]) -> Outcomes:
    return map_ahead(work, range(20), ReadAhead(2, 5), in_thread=lambda _: True)


def test_results_come_in_order_whichever_is_done_first() -> None:
    def slow_at_first(index: int, item: int) -> int:
        time.sleep(0.02 if index % 4 == 0 else 0)
        return index * 10 + item

    assert [(item, take()) for item, take in start(slow_at_first)] == [(i, 11 * i) for i in range(20)]
    assert not list_threads("read-ahead")


def test_so_many_are_ahead_and_no_more() -> None:
    begun: list[int] = []
    most = 0
    for index, (_, take) in enumerate(start(lambda index, _: begun.append(index) or index)):
        assert take() == index
        most = max(most, len(begun) - index)
    assert 1 < most <= 6


def test_items_are_worked_on_in_threads_only_where_they_may() -> None:
    def who(_: int, __: int) -> int:
        return threading.get_ident()

    both = map_ahead(who, range(10), ReadAhead(1, 3), in_thread=lambda item: item % 2 == 0)
    own = [take() == threading.get_ident() for _, take in both]
    assert own == [False, True] * 5
    assert all(take() == threading.get_ident() for _, take in map_ahead(who, range(3), IN_TURN, in_thread=bool))


def test_in_turn_nothing_is_ahead() -> None:
    taken: list[int] = []

    def items() -> Iterator[int]:
        for i in range(3):
            taken.append(i)
            yield i

    for index, (_, take) in enumerate(map_ahead(lambda i, _: i, items(), IN_TURN, in_thread=lambda _: True)):
        assert taken == list(range(index + 1))
        assert take() == index


def test_an_error_comes_where_its_result_would() -> None:
    def fail_at_three(index: int, _: int) -> int:
        if index == 3:
            raise ValueError("three")
        return index

    results = start(fail_at_three)
    assert [take() for _, take in (next(results), next(results), next(results))] == [0, 1, 2]
    with pytest.raises(ValueError, match=r"^three$"):
        next(results)[1]()
    assert next(results)[1]() == 4
    results.close()
    assert not list_threads("read-ahead")


@pytest.mark.parametrize("end", ["close", "drop", "interrupt"])
def test_an_early_end_leaves_no_thread(end: str) -> None:
    running = threading.Event()

    def work(_: int, item: int) -> int:
        running.set()
        time.sleep(0.01)
        return item

    results = start(work)
    next(results)
    running.wait()
    if end == "close":
        results.close()
    elif end == "interrupt":
        with pytest.raises(KeyboardInterrupt):
            results.throw(KeyboardInterrupt())
    del results
    assert not list_threads("read-ahead")


def test_the_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1}, raising=False)
    assert plan_read_ahead(None) == plan_read_ahead(1) == plan_read_ahead(0) == IN_TURN
    assert plan_read_ahead(100) == ReadAhead(2, 3)
    assert plan_read_ahead(100, at_once=8) == ReadAhead(2, 10)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)), raising=False)
    assert plan_read_ahead(100) == ReadAhead(4, 5)
    assert plan_read_ahead(3) == ReadAhead(3, 4)
