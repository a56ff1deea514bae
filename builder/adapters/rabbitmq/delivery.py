"""A message in our hands. The broker keeps it until it hears of it, and gives it to others if our channel ends."""

from collections.abc import Mapping
from hashlib import blake2b
from typing import Protocol

from aiormq.abc import DeliveredMessage
from pamqp.commands import Basic


class Answering(Protocol):
    """Where a message came from and its answer goes: one channel's life."""

    def ack(self, delivery: "Delivery") -> None:
        """It is settled: the broker may forget it."""

    def hand_back(self, delivery: "Delivery") -> None:
        """Somebody else may have it, or we again."""


class Delivery:
    """One message, and how many of the events in it have not come to their end. With the last of them it is acked.

    ``tag`` is its number on its own channel. ``since`` is the loop's time at which it came. ``held`` until it is
    answered or its channel ends. ``identities`` are of its events, as far as they were taken in; ``lettered`` says that
    one of them became a dead letter.
    """

    __slots__ = (
        "_by",
        "_open",
        "batch",
        "body",
        "exchange",
        "held",
        "identities",
        "lettered",
        "properties",
        "redelivered",
        "routing_key",
        "since",
        "tag",
    )

    def __init__(self, by: Answering, message: DeliveredMessage, since: float) -> None:
        self._by = by
        self._open = 1
        self.tag = message.delivery_tag or 0
        self.body = message.body
        self.properties: Basic.Properties = message.header.properties or Basic.Properties()
        self.exchange = message.exchange or ""
        self.routing_key = message.routing_key or ""
        self.redelivered = bool(message.redelivered)
        self.since = since
        self.held = True
        self.batch = False
        self.identities: list[bytes] = []
        self.lettered = False

    @property
    def headers(self) -> Mapping[str, object]:
        """Its headers, whatever is in them."""
        headers: Mapping[str, object] | None = self.properties.headers
        return {} if headers is None else headers

    @property
    def settled(self) -> bool:
        """True once all of it has come to its end."""
        return self._open == 0

    def begin(self) -> None:
        """One more event of it is under way."""
        self._open += 1

    def end(self) -> None:
        """One of them has come to its end, or all of them have been read."""
        self._open -= 1
        if self._open == 0:
            self._by.ack(self)

    def hand_back(self) -> None:
        """Let the broker have it again."""
        self._by.hand_back(self)

    def key(self) -> bytes:
        """Tells the same message, when it comes again, from any other; one that was replayed is another."""
        headers = {name: value for name, value in self.headers.items() if name != "x-delivery-count"}
        known_by = self.properties.message_id, self.properties.content_type, sorted(headers.items(), key=str)
        return blake2b(self.body + repr(known_by).encode("utf-8", "replace"), digest_size=16).digest()
