"""Budgets of memory: so much of something is held at a time, and whoever wants more waits or is refused."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass


@dataclass(eq=False)
class _Turn:
    amount: int
    begins: asyncio.Future[None]
    is_granted: bool = False


class Budget:
    """An amount that tasks of one event loop hold parts of, in the order in which they ask.

    Args:
        total: that is held at a time, at most.
    """

    def __init__(self, total: int) -> None:
        self.total, self.held = total, 0
        self._waiting: deque[_Turn] = deque()

    def try_take(self, amount: int) -> bool:
        """Take a part at once, and tell whether that was possible."""
        if self._waiting or self.held + amount > self.total:
            return False
        self.held += amount
        return True

    def give_back(self, amount: int) -> None:
        """Give a part back, to those that wait."""
        self.held -= amount
        while self._waiting:
            turn = self._waiting[0]
            if not turn.begins.done():  # else nobody waits for it any more
                if self.held + turn.amount > self.total:
                    return
                self.held += turn.amount
                turn.is_granted = True
                turn.begins.set_result(None)
            self._waiting.popleft()

    @asynccontextmanager
    async def hold(self, amount: int) -> AsyncIterator[None]:
        """Wait for a part, and hold it for as long as this context."""
        await self._take(amount)
        try:
            yield
        finally:
            self.give_back(amount)

    async def _take(self, amount: int) -> None:
        assert amount <= self.total
        if self.try_take(amount):
            return
        turn = _Turn(amount, asyncio.get_running_loop().create_future())
        self._waiting.append(turn)
        try:
            await turn.begins
        except asyncio.CancelledError:
            # Its part may have come in the moment in which it gave up; and those behind it may fit where it did not.
            self.give_back(amount if turn.is_granted else 0)
            raise
