"""A spending cap that is kept: what rows under way may cost is held back before they begin."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Protocol

__all__ = ["Budget", "Purse"]

_ROUNDING = 1e-9


class Purse(Protocol):
    """What a part asks before a row, and tells after it."""

    async def begin(self, part: int, spent: float) -> None:
        """Say what a part has cost so far; what a killed worker held for it is free again."""

    async def reserve(self, part: int, amount: float) -> bool:
        """Hold back what a row may cost at most; False where the cap leaves no room for it, or for any after."""

    async def settle(self, part: int, reserved: float, cost: float) -> None:
        """Replace what was held back by what the row did cost."""


class Budget:
    """US dollars that may be spent; belongs to one event loop.

    Args:
        cap: of all parts together, at least 0; infinity for none.
        spent: what each part has cost already.
    """

    def __init__(self, cap: float, spent: Mapping[int, float]) -> None:
        self._cap = cap
        self._spent = dict(spent)
        self._held: dict[int, float] = {}
        self._total = sum(self._spent.values())
        self._exhausted = False
        self._changed = asyncio.Condition()

    async def begin(self, part: int, spent: float) -> None:
        """Say what a part has cost so far; what a killed worker held for it is free again."""
        async with self._changed:
            self._held.pop(part, None)
            self._total += spent - self._spent.get(part, 0.0)
            self._spent[part] = spent
            self._changed.notify_all()

    async def reserve(self, part: int, amount: float) -> bool:
        """Hold back what a row may cost at most; False where the cap leaves no room for it, or for any after."""
        async with self._changed:
            # What is held for rows under way is more than they will cost: room may come free.
            while not self._exhausted and not self._fits(amount) and self._all_held() > _ROUNDING:
                await self._changed.wait()
            if self._exhausted or not self._fits(amount):
                self._exhausted = True
                self._changed.notify_all()
                return False
            self._held[part] = self._held.get(part, 0.0) + amount
            return True

    async def settle(self, part: int, reserved: float, cost: float) -> None:
        """Replace what was held back by what the row did cost."""
        async with self._changed:
            self._held[part] = max(0.0, self._held.get(part, 0.0) - reserved)
            self._spent[part] = self._spent.get(part, 0.0) + cost
            self._total += cost
            self._changed.notify_all()

    def _fits(self, amount: float) -> bool:
        return self._total + self._all_held() + amount <= self._cap + _ROUNDING

    def _all_held(self) -> float:
        return sum(self._held.values())
