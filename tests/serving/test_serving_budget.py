"""Budgets: in turn, never more than there is, and nothing lost with whoever gives up."""

from __future__ import annotations

import asyncio

from hypothesis import given, settings
from hypothesis import strategies as st

from boxwright.serving.budget import Budget


def test_in_turn() -> None:
    """A small part does not overtake a large one that waits, which would never come."""

    async def run() -> list[str]:
        budget, order = Budget(10), []

        async def hold(name: str, amount: int) -> None:
            async with budget.hold(amount):
                order.append(name)
                await asyncio.sleep(0.01)

        assert budget.try_take(8)
        tasks = [asyncio.create_task(hold("large", 9)), asyncio.create_task(hold("small", 1))]
        await asyncio.sleep(0)
        assert not budget.try_take(1)
        budget.give_back(8)
        await asyncio.gather(*tasks)
        assert budget.held == 0
        return order

    assert asyncio.run(run()) == ["large", "small"]


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 7), st.integers(0, 6), st.integers(0, 6), st.booleans()), min_size=2, max_size=12)
)
def test_whatever_is_held_comes_back(plan: list[tuple[int, int, int, bool]]) -> None:
    """Tasks that begin, end and give up in any order."""

    async def run() -> None:
        budget = Budget(7)

        async def hold(amount: int, start: int, length: int) -> None:
            for _ in range(start):
                await asyncio.sleep(0)
            async with budget.hold(amount):
                assert budget.held <= 7
                for _ in range(length):
                    await asyncio.sleep(0)

        tasks = [asyncio.create_task(hold(*one[:3])) for one in plan]
        for step in range(8):
            await asyncio.sleep(0)
            for task, (amount, *_, gives_up) in zip(tasks, plan, strict=True):
                if gives_up and amount % 8 == step:
                    task.cancel()
        await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 5)
        assert budget.held == 0
        assert budget.try_take(7)

    asyncio.run(run())


def test_a_part_that_comes_as_its_task_gives_up() -> None:
    async def run() -> int:
        budget = Budget(4)

        async def hold() -> None:
            async with budget.hold(3):
                raise AssertionError("it has given up")

        assert budget.try_take(2)
        task = asyncio.create_task(hold())
        await asyncio.sleep(0)
        budget.give_back(2)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        return budget.held

    assert asyncio.run(run()) == 0
