"""The messages of the broker's dead letter queue, as people see them and as they are sent again.

What our own consumer wrote has its note among the headers; of what the broker itself dead-lettered (it expired, was
over the bound, or was rejected by somebody else's consumer) only ``x-death`` tells.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any

from builder.events.amqp import content_type_of, parse_amqp
from builder.flow.dead_letters import legible
from builder.flow.letter_document import masked
from builder.flow.letter_headers import BrokerNote, LetterNote, original_headers, read_deaths, read_note
from builder.flow.ports import LetterFilter
from builder.models import Event

BROKERS_REASONS: Mapping[str, str] = {
    "expired": "nobody took it before its time to live was over",
    "maxlen": "the queue was full, and it was the oldest",
    "delivery_limit": "it was given back too often",
    "rejected": "a consumer, not of this service, rejected it",
}
"""RabbitMQ's reasons, and what they mean."""


@dataclass(frozen=True)
class BrokerLetter:
    """One message of the dead letter queue."""

    body: bytes
    content_type: str | None
    message_id: str | None
    headers: Mapping[str, object]

    @cached_property
    def id(self) -> str:
        """Tells this message from others, however often it is looked at; not from a copy of it."""
        lasting = {name: value for name, value in self.headers.items() if name != "x-delivery-count"}
        known_by = self.message_id, self.content_type, sorted(lasting.items(), key=str)
        return hashlib.blake2b(self.body + repr(known_by).encode("utf-8", "replace"), digest_size=6).hexdigest()

    @cached_property
    def note(self) -> LetterNote | None:
        """What our consumer wrote."""
        return read_note(self.headers)

    @cached_property
    def deaths(self) -> tuple[BrokerNote, ...]:
        """What the broker wrote, the latest first."""
        return read_deaths(self.headers)

    @property
    def reason(self) -> str:
        """In one word; ``unknown`` where nothing says."""
        if self.note is not None:
            return self.note.reason
        return self.deaths[0].reason if self.deaths else "unknown"

    @property
    def last_at(self) -> datetime | None:
        """When it came here; None where nothing says."""
        if self.note is not None:
            return self.note.last_at
        return self.deaths[0].at if self.deaths else None

    @property
    def route(self) -> tuple[str, str] | None:
        """Exchange and routing key that it was first published with; None where nothing says."""
        first = self.note if self.note is not None else self.deaths[-1] if self.deaths else None
        return None if first is None else (first.exchange, first.routing_key)

    @cached_property
    def event(self) -> tuple[Mapping[str, str], str | None]:
        """The attributes as far as they can be read, and the third party."""
        items = parse_amqp(self.content_type, original_headers(self.headers), self.body).items
        if not items:  # an empty batch
            return {}, None
        item = items[0]
        attributes = item.attributes() if isinstance(item, Event) else item.attributes
        return attributes, None if item.data is None else legible(item.data).third_party_id

    def is_wanted(self, wanted: LetterFilter) -> bool:
        """True if the filter admits it. One of an unknown time is as old as can be."""
        attributes, third_party_id = self.event
        return (
            wanted.reason in (None, self.reason)
            and wanted.type in (None, attributes.get("type"))
            and wanted.third_party_id in (None, third_party_id)
            and (wanted.since is None or (self.last_at is not None and self.last_at >= wanted.since))
            and (wanted.until is None or self.last_at is None or self.last_at < wanted.until)
        )

    def document(self, *, with_data: bool = False) -> dict[str, Any]:
        """As JSON, like the journal's dead letters, and how the broker has it."""
        note, (attributes, third_party_id) = self.note, self.event
        route = self.route
        shown = {
            "id": self.id,
            "reason": self.reason,
            "error": note.error if note is not None and note.error else None,
            "message": note.message if note is not None else BROKERS_REASONS.get(self.reason, "nothing says why"),
            "errors": [] if note is None else [{"field": one.field, "message": one.message} for one in note.problems],
            "event": dict(attributes),
            "third_party_id": third_party_id,
            "attempts": 0 if note is None else note.attempts,
            "first_at": _text(note.first_at if note is not None else None),
            "last_at": _text(self.last_at),
            "replayed_at": None,
            "content_type": content_type_of(self.content_type, self.headers),
            "body_bytes": len(self.body),
            "exchange": None if route is None else route[0],
            "routing_key": None if route is None else route[1],
            "deaths": [{"reason": one.reason, "queue": one.queue, "count": one.count} for one in self.deaths],
        }
        return shown | {"data": masked(self.body)} if with_data else shown


def _text(at: datetime | None) -> str | None:
    return None if at is None else at.isoformat()
