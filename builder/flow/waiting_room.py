"""Items that are set aside: they hold no worker, and come back to the queue when their time has come."""

import asyncio
import heapq
from collections import Counter
from collections.abc import Callable, Iterator
from typing import TypeAlias

from builder.flow.items import Again, Item, Wait
from builder.models import Target

_Place: TypeAlias = tuple[str, Target]
"""A Job's name, and what is to be built there."""


class WaitingRoom:
    """Items by the time when they are due. One timer for all; entering and leaving cost O(log n).

    Of each target at most one item waits for another build to end under each Job name: the one requested last.
    """

    def __init__(self, bring_back: Callable[[Item], None]) -> None:
        self._bring_back = bring_back
        self._heap: list[tuple[float, int, Item]] = []
        self._entries = 0
        self._here: dict[Item, tuple[Wait, int]] = {}
        self._for_build: dict[_Place, Item] = {}
        self._place_of: dict[Item, _Place] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0  # uvloop's handles do not tell
        self.waiting: Counter[Wait] = Counter(dict.fromkeys(Wait, 0))

    def __len__(self) -> int:
        return len(self._here)

    def __iter__(self) -> Iterator[Item]:
        return iter(self._here)

    def enter(self, item: Item, again: Again, job_name: str | None) -> Item | None:
        """Set ``item`` aside for ``again.delay`` seconds.

        Returns the item that must give way, if this makes two waiting for the same: the one that was
        requested earlier, be it the newcomer or the one that was here. It is not in the room (any more).
        """
        loser = None
        if again.wait is Wait.ACTIVE_BUILD and job_name is not None:
            place = job_name, item.target
            rival = self._for_build.get(place)
            if rival is not None and rival.requested_at > item.requested_at:
                return item
            if rival is not None:
                self._leave(rival)
                loser = rival
            self._for_build[place] = item
            self._place_of[item] = place
        item.state = f"waiting: {again.message}"
        self._entries += 1
        self._here[item] = again.wait, self._entries
        self.waiting[again.wait] += 1
        heapq.heappush(self._heap, (asyncio.get_running_loop().time() + again.delay, self._entries, item))
        self._set_timer()
        return loser

    def earliest(self) -> float | None:
        """When the next item is due, in the loop's time; None if nobody waits."""
        while self._heap and not self._is_here(*self._heap[0][1:]):
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def release(self, item: Item) -> None:
        """Bring ``item`` back before its time, unless that was over already."""
        if item in self._here:
            self._leave(item)
            self._bring_back(item)

    def close(self) -> None:
        """Stop the timer. Who is here stays here."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _is_here(self, entry: int, item: Item) -> bool:
        """True of the entry of an item that has not left since, be it that it came again."""
        return item in self._here and self._here[item][1] == entry

    def _leave(self, item: Item) -> None:
        wait, _ = self._here.pop(item)
        self.waiting[wait] -= 1
        if (place := self._place_of.pop(item, None)) is not None:
            del self._for_build[place]

    def _set_timer(self) -> None:
        due = self.earliest()
        if self._timer is not None:
            if due is not None and self._timer_at <= due:
                return
            self._timer.cancel()
            self._timer = None
        if due is not None:
            self._timer, self._timer_at = asyncio.get_running_loop().call_at(due, self._open_door), due

    def _open_door(self) -> None:
        self._timer = None
        now = asyncio.get_running_loop().time()
        while (due := self.earliest()) is not None and due <= now:
            _, _, item = heapq.heappop(self._heap)
            self._leave(item)
            self._bring_back(item)
        self._set_timer()
