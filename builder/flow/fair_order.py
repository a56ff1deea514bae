"""The order in which waiting items are taken. Pure: no clock, no I/O, every step O(log n)."""

import heapq
from typing import Generic, TypeVar

T = TypeVar("T")

HIGHEST, LOWEST = 1, 10
"""Priorities, 1 first."""

SHARED_TURN = 8
"""Every so many takes one goes to the priority that has been passed over the longest."""


class _Level(Generic[T]):
    """One priority. Third parties take turns; each of them is served first in, first out.

    A heap by (turn, arrival): each item gets the turn after its party's last one, but none before the turn that is
    being served now, so that a party that comes back neither jumps ahead nor pays for its past (start-time fair
    queueing with items of equal cost, https://doi.org/10.1145/248156.248171).
    """

    __slots__ = ("_arrivals", "_heap", "_last_turn", "_now", "passed_over_since")

    def __init__(self) -> None:
        self._heap: list[tuple[int, int, str, T]] = []
        self._last_turn: dict[str, int] = {}
        self._now = 0
        self._arrivals = 0
        self.passed_over_since = 0

    def __len__(self) -> int:
        return len(self._heap)

    def put(self, party: str, item: T) -> None:
        turn = max(self._last_turn.get(party, 0), self._now) + 1
        self._last_turn[party] = turn
        self._arrivals += 1
        heapq.heappush(self._heap, (turn, self._arrivals, party, item))

    def take(self) -> T:
        turn, _, party, item = heapq.heappop(self._heap)
        self._now = turn
        if self._last_turn[party] == turn:
            del self._last_turn[party]
        return item


class FairOrder(Generic[T]):
    """Items by priority; first in, first out inside one; third parties take turns; nothing waits for ever.

    The most urgent level is served, but every eighth take goes to the level that was passed over the longest. So a
    level with work is served at least once in ``SHARED_TURN`` takes for each level with work.
    """

    def __init__(self) -> None:
        self._levels: list[_Level[T]] = [_Level() for _ in range(HIGHEST, LOWEST + 1)]
        self._takes = 0
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def put(self, priority: int, party: str, item: T) -> None:
        """Add an item behind those of its party and priority. ``priority`` is 1 (first) to 10."""
        level = self._levels[priority - HIGHEST]
        if not level:
            level.passed_over_since = self._takes
        level.put(party, item)
        self._size += 1

    def take(self) -> T:
        """Remove and return the next item.

        Raises:
            IndexError: there is none.
        """
        waiting = [level for level in self._levels if level]
        if not waiting:
            msg = "take from an empty order"
            raise IndexError(msg)
        self._takes += 1
        level = waiting[0]
        if self._takes % SHARED_TURN == 0:
            level = min(waiting, key=lambda one: one.passed_over_since)
        level.passed_over_since = self._takes
        self._size -= 1
        return level.take()
