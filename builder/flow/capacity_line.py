"""Items that a quota keeps out. One of them asks for room on behalf of all, so that thousands cost no more than one."""

import asyncio
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from builder.flow.fair_order import FairOrder
from builder.flow.items import Item
from builder.retry import Backoff

ASKING = Backoff(base=0.5, cap=5.0)
"""How often one asks while there is no room."""

AT_ONCE = 16
"""So many ask at the same time, once there is room."""


@dataclass(slots=True, eq=False)
class _Place:
    """Of an item in the line. It stays when the item leaves before its turn, and is passed over then."""

    item: Item
    following: "_Place | None" = None

    @property
    def priority(self) -> int:
        return self.item.priority

    @property
    def party(self) -> str:
        return self.item.party


class CapacityLine:
    """Who waits for room in the namespace, in the fair order of the queue.

    After a pause the first in line is called, which means that ``call`` gets it, and tries to create its Job. If it is
    refused, it stays the first. If it finds room, two more are called, and so on: a few Jobs or thousands, the line is
    worked off as fast as there is room, and asks for little when there is none.
    """

    def __init__(self, call: Callable[[Item], None], draw: Callable[[], float] = random.random) -> None:
        self._call = call
        self._draw = draw
        self._order: FairOrder[_Place] = FairOrder()
        self._refused: deque[_Place] = deque()
        self._here: dict[Item, _Place] = {}
        self._called: dict[Item, _Place] = {}
        self._refusals = 0
        self._timer: asyncio.TimerHandle | None = None
        self._words = ""

    def __len__(self) -> int:
        return len(self._here)

    @property
    def refusal(self) -> str | None:
        """What the API server said last to those who wait, the quota's name included; None if nobody does."""
        return self._words if self._here or self._called else None

    def before(self, item: Item) -> str | None:
        """Take ``item`` out of the line, for it is about to be tried.

        Returns the refusal that counts for it too, as long as others wait and it was not called: who comes anew would
        otherwise take the room that others wait for.
        """
        self._here.pop(item, None)
        return None if item in self._called else self.refusal

    def join(self, item: Item, refusal: str) -> None:
        """Add ``item``, which was refused: at the end of the line, or where it was if it had been called."""
        self._words = refusal
        place = self._called.pop(item, None)
        if place is not None:
            self._refused.append(place)
            self._refusals += 1
        else:
            place = _Place(item)
            self._order.put(place)
        self._here[item] = place
        self._ask_later()

    def passed(self, item: Item, *, found_room: bool) -> None:
        """``item`` was tried and not refused for want of room. If it was called, others follow."""
        self._here.pop(item, None)
        if self._called.pop(item, None) is None:
            return
        if found_room:
            self._refusals = 0
            self._call_next()
            self._call_next()
        self._ask_later()

    def close(self) -> None:
        """Stop the timer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _ask_later(self) -> None:
        if self._here and not self._called and self._timer is None:
            delay = ASKING.delay(min(self._refusals, 8), self._draw, floor=0.1)
            self._timer = asyncio.get_running_loop().call_later(delay, self._ask)

    def _ask(self) -> None:
        self._timer = None
        self._call_next()

    def _call_next(self) -> None:
        """Call the first in line. Who left it meanwhile, for its time was up, is passed over."""
        while len(self._called) < AT_ONCE and (self._refused or self._order):
            place = self._refused.popleft() if self._refused else self._order.take()
            if self._here.get(place.item) is place:
                self._called[place.item] = self._here.pop(place.item)
                self._call(place.item)
                return
