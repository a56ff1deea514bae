"""Custody by the broker: a message stays with it, unacked, until the events in it have come to their end.

So a crash loses nothing: the broker gives the message to others, or to us again, and its event finds its Job.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from functools import partial

from builder.adapters.rabbitmq.delivery import Delivery
from builder.adapters.rabbitmq.undertaker import Burial
from builder.errors import HandedBack
from builder.flow.ports import Custodian, Entry, Journal, Receipt
from builder.models import DeadLetter, Event, Result

_LETTERED = 10_000
"""Messages that became dead letters are remembered, at most so many, in case their ack was lost on the way."""


class BrokerCustody:
    """The events under way that came by AMQP, and the messages that stand for them.

    The same event may come twice: both messages wait for its one end. ``journal`` tells what has ended before, or is
    in custody because it came over HTTP. ``bury`` sends dead letters.
    """

    def __init__(self, journal: Journal, bury: Callable[[Burial], None]) -> None:
        self._journal = journal
        self._bury = bury
        self._events: dict[bytes, HeldEvent] = {}
        self._ended: dict[bytes, Delivery] = {}
        self._lettered: OrderedDict[bytes, None] = OrderedDict()

    def of(self, delivery: Delivery) -> Custodian:
        """For the events of one message at the door."""
        return _AtTheDoor(self, delivery)

    def over(self, delivery: Delivery) -> bool:
        """True for a message that became a dead letter and comes again because its ack did not arrive."""
        return delivery.redelivered and bool(self._lettered) and delivery.key() in self._lettered

    def holds(self, identity: bytes) -> bool:
        """See ``Holder``: it is under way, or its ack is, and its message comes again if that is lost."""
        return identity in self._events or identity in self._ended

    def ended(self) -> dict[bytes, Delivery]:
        """The events of acked messages, each with the last of them, until ``heard``."""
        return self._ended.copy()

    def heard(self, ended: dict[bytes, Delivery]) -> None:
        """The broker has read the acks of these."""
        for identity, delivery in ended.items():
            if self._ended.get(identity) is delivery:
                del self._ended[identity]

    async def admit(self, delivery: Delivery, entry: Entry) -> Receipt | None:
        """See ``Custodian``. The message of an event that is here already joins the one that is."""
        identity = entry.event.identity
        delivery.identities.append(identity)
        if identity not in self._events and await self._journal.seen(identity):
            end = self._journal.outcome(identity)
            if end is not None:
                delivery.begin()
                end.add_done_callback(partial(self._follow, delivery))
            return None
        held = self._events.get(identity)
        if held is not None:
            held.join(delivery)
            return None
        held = self._events[identity] = HeldEvent(self, entry.event, identity)
        held.join(delivery)
        return held

    def park(self, delivery: Delivery, letter: DeadLetter) -> None:
        """A message that can never be built is acked once its dead letter is kept."""
        delivery.begin()

        def over(kept: bool) -> None:  # noqa: FBT001 -- the undertaker's answer
            delivery.lettered |= kept
            self.end(delivery)

        self._bury(Burial(letter, lambda: (delivery,), over))

    def settle(self, held: "HeldEvent", result: Result) -> None:
        """See ``Receipt``."""
        if result.failure is None:
            self._journal.remember(held.event, result)
            self._let_go(held)
        elif any(delivery.held for delivery in held.deliveries):
            letter = DeadLetter.of_failure(held.event, result, result.failure)
            self._bury(Burial(letter, lambda: held.deliveries, partial(self._buried, held)))
        else:
            del self._events[held.identity]
            msg = "the connection to the broker was lost, which gives its message to others, or to us again"
            raise HandedBack(msg)

    def end(self, delivery: Delivery) -> None:
        """One event of it has come to its end, or all have been read."""
        delivery.end()
        if not delivery.settled:
            return
        self._ended.update(dict.fromkeys(delivery.identities, delivery))
        if delivery.lettered:
            self._lettered[delivery.key()] = None
            if len(self._lettered) > _LETTERED:
                self._lettered.popitem(last=False)

    def _buried(self, held: "HeldEvent", kept: bool) -> None:  # noqa: FBT001 -- the undertaker's answer
        for delivery in held.deliveries:
            delivery.lettered |= kept
        self._let_go(held)

    def _let_go(self, held: "HeldEvent") -> None:
        del self._events[held.identity]
        for delivery in held.deliveries:
            self.end(delivery)

    def _follow(self, delivery: Delivery, end: asyncio.Future[Result]) -> None:
        """The event came over HTTP too, and has ended: well, or else it is this message's turn."""
        if end.cancelled() or end.result().failure is not None:
            delivery.hand_back()
        else:
            self.end(delivery)


class HeldEvent:
    """The receipt of one event."""

    __slots__ = ("_custody", "deliveries", "event", "identity")

    def __init__(self, custody: BrokerCustody, event: Event, identity: bytes) -> None:
        self._custody = custody
        self.event = event
        self.identity = identity
        self.deliveries: list[Delivery] = []

    def join(self, delivery: Delivery) -> None:
        """Its message, or another one with the same event. One that was lost is not waited for."""
        self.deliveries = [one for one in self.deliveries if one.held]
        self.deliveries.append(delivery)
        delivery.begin()

    def note(self, progress: str) -> None:
        """See ``Receipt``: the broker keeps messages as they are."""

    async def settle(self, result: Result) -> None:
        """See ``Receipt``."""
        self._custody.settle(self, result)


class _AtTheDoor:
    """See ``Custodian``."""

    __slots__ = ("_custody", "_delivery")

    def __init__(self, custody: BrokerCustody, delivery: Delivery) -> None:
        self._custody = custody
        self._delivery = delivery

    async def seen(self, _identity: bytes) -> bool:
        """Only ``admit`` can tell, for it lets a second message join the first."""
        return False

    async def admit(self, entry: Entry) -> Receipt | None:
        return await self._custody.admit(self._delivery, entry)

    def outcome(self, _identity: bytes) -> None:
        """Nobody waits at the door: the broker holds the message."""

    async def park(self, letter: DeadLetter) -> None:
        self._custody.park(self._delivery, letter)
