"""The bounded queue between the door and the workers."""

import asyncio
from collections import deque
from collections.abc import Iterator
from operator import attrgetter

from builder.errors import QueueFull
from builder.flow.fair_order import FairOrder
from builder.flow.items import Item


class BuildQueue:
    """Items in fair order, at most ``capacity`` of them let in from outside.

    A slot is reserved *before* an event is taken into custody, so that a full queue refuses what nobody holds yet.
    Items that come back from being set aside need no slot: they were let in once.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._order: FairOrder[Item] = FairOrder()
        self._reserved = 0
        self._for_slot: deque[asyncio.Future[None]] = deque()
        self._for_item: deque[asyncio.Future[None]] = deque()

    def __len__(self) -> int:
        return len(self._order)

    def __iter__(self) -> Iterator[Item]:
        """The queued items, by priority, and each party's in their order."""
        return iter(self._order)

    def oldest(self) -> Item | None:
        """Of those whose party's turn it is next, the one accepted first. O(parties)."""
        return min(self._order.firsts(), key=_accepted, default=None)

    @property
    def full(self) -> bool:
        """True if there is no slot for one more."""
        return len(self._order) + self._reserved >= self.capacity

    def try_reserve(self) -> bool:
        """Hold a slot for one ``put`` if one is free and nobody waits for it."""
        if self._for_slot or len(self._order) + self._reserved >= self.capacity:
            return False
        self._reserved += 1
        return True

    async def reserve(self, patience: float | None) -> None:
        """Hold a slot for one ``put``, waiting at most ``patience`` seconds, or for ever. First come, first served.

        Raises:
            QueueFull: no slot became free in that time.
        """
        if self.try_reserve():
            return
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._for_slot.append(waiter)
        granted = False
        try:
            async with asyncio.timeout(patience):
                await waiter
            granted = True
        except TimeoutError:
            msg = f"the queue of {self.capacity} is full"
            raise QueueFull(msg, retry_after=max(1.0, patience or 0.0)) from None
        finally:
            if not granted:
                self._give_up(waiter)

    def release(self) -> None:
        """Give a reserved slot back, unused."""
        self._reserved -= 1
        self._offer_slots()

    def put(self, item: Item) -> None:
        """Add an item into the slot that was reserved for it."""
        self._reserved -= 1
        self.put_back(item)

    def put_back(self, item: Item) -> None:
        """Add an item that was let in before."""
        item.state = "queued"
        self._order.put(item)
        _wake_one(self._for_item)

    async def take(self) -> Item:
        """Remove and return the next item; wait for one where there is none."""
        while not self._order:
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._for_item.append(waiter)
            try:
                await waiter
            except asyncio.CancelledError:
                # Woken and cancelled in one turn of the loop: the wake-up belongs to the next in line.
                if waiter.done() and not waiter.cancelled() and self._order:
                    _wake_one(self._for_item)
                raise
        item = self._order.take()
        self._offer_slots()
        return item

    def _offer_slots(self) -> None:
        """Give free slots to those who wait. The slot is theirs at once, so that no newcomer gets in between."""
        while self._for_slot and not self.full and (waiter := _next_waiting(self._for_slot)) is not None:
            self._reserved += 1
            waiter.set_result(None)

    def _give_up(self, waiter: asyncio.Future[None]) -> None:
        if waiter.done() and not waiter.cancelled():
            self.release()  # the slot came in the very moment of giving up: hand it on
        elif waiter in self._for_slot:  # or it was passed over when a slot came between the time-out and this line
            self._for_slot.remove(waiter)


def _next_waiting(waiters: deque[asyncio.Future[None]]) -> asyncio.Future[None] | None:
    while waiters:
        waiter = waiters.popleft()
        if not waiter.done():
            return waiter
    return None


def _wake_one(waiters: deque[asyncio.Future[None]]) -> None:
    waiter = _next_waiting(waiters)
    if waiter is not None:
        waiter.set_result(None)


_accepted = attrgetter("accepted")
