"""The order in which waiting items are taken. Pure: no clock, no I/O, every step O(1)."""

from bisect import insort
from collections import deque
from collections.abc import Iterator
from operator import attrgetter
from typing import Generic, Protocol, Self, TypeVar

HIGHEST, LOWEST = 1, 10
"""Priorities, 1 first."""

SHARED_TURN = 8
"""Every so many takes one goes to the priority that has been passed over the longest."""


class Waiting(Protocol):
    """Who can stand in an order, and in one at a time: it carries the link to the one that its party sent next.

    Nodes beside the items would double what a take finds far away in memory, and a deque for each party would take ten
    times the room.
    """

    following: Self | None

    @property
    def priority(self) -> int:
        """1 (first) to 10."""

    @property
    def party(self) -> str:
        """Whose turn it uses."""


T = TypeVar("T", bound=Waiting)


class _Level(Generic[T]):
    """One priority. Third parties take turns; each of them is served first in, first out.

    The parties with work stand in a ring, each with its first item. Who was served goes to its end, and so does who
    comes or comes back: nobody jumps ahead, and nobody pays for its past.
    """

    __slots__ = ("_last", "_ring", "passed_over_since", "priority")

    def __init__(self, priority: int) -> None:
        self.priority = priority
        self.passed_over_since = 0
        self._ring: deque[T] = deque()
        self._last: dict[str, T] = {}

    def __bool__(self) -> bool:
        return bool(self._ring)

    def __iter__(self) -> Iterator[T]:
        for first in self._ring:
            item: T | None = first
            while item is not None:
                yield item
                item = item.following

    def firsts(self) -> Iterator[T]:
        """The first item of each party."""
        return iter(self._ring)

    def put(self, item: T) -> None:
        party = item.party
        last = self._last.get(party)
        if last is None:
            self._ring.append(item)
        else:
            last.following = item
        self._last[party] = item

    def take(self) -> T:
        item = self._ring.popleft()
        following = item.following
        if following is None:
            del self._last[item.party]
        else:
            item.following = None
            self._ring.append(following)
        return item


class FairOrder(Generic[T]):
    """Items by priority; first in, first out inside one; third parties take turns; nothing waits for ever.

    The most urgent level is served, but every eighth take goes to the level that was passed over the longest. So a
    level with work is served at least once in ``SHARED_TURN`` takes for each level with work.
    """

    def __init__(self) -> None:
        self._levels: list[_Level[T]] = [_Level(priority) for priority in range(HIGHEST, LOWEST + 1)]
        self._waiting: list[_Level[T]] = []
        self._takes = 0
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[T]:
        """All items, each party's in their order."""
        return (item for level in self._waiting for item in level)

    def firsts(self) -> Iterator[T]:
        """The first item of each party in each priority; what stands behind it came later."""
        return (item for level in self._waiting for item in level.firsts())

    def put(self, item: T) -> None:
        """Add an item behind those of its party and priority."""
        level = self._levels[item.priority - HIGHEST]
        if not level:
            level.passed_over_since = self._takes
            insort(self._waiting, level, key=_priority)
        level.put(item)
        self._size += 1

    def take(self) -> T:
        """Remove and return the next item.

        Raises:
            IndexError: there is none.
        """
        if not self._waiting:
            msg = "take from an empty order"
            raise IndexError(msg)
        self._takes += 1
        level = self._waiting[0]
        if self._takes % SHARED_TURN == 0:
            level = min(self._waiting, key=_passed_over_since)
        level.passed_over_since = self._takes
        self._size -= 1
        item = level.take()
        if not level:
            self._waiting.remove(level)
        return item


_priority = attrgetter("priority")
_passed_over_since = attrgetter("passed_over_since")
