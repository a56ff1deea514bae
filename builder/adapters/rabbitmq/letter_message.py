"""What a dead letter in the broker looks like: the message as it came, and headers that say why it is there."""

import json
import struct
from datetime import datetime
from typing import Any

from pamqp.commands import Basic
from pamqp.header import ContentHeader

from builder.adapters.rabbitmq.delivery import Delivery
from builder.events.amqp import content_type_of
from builder.events.parsing import STRUCTURED_TYPE
from builder.flow.letter_headers import LetterNote, write_note
from builder.models import DeadLetter, FailureReason

_LARGEST_HEAD = 100 * 2**10
"""Bytes. All properties must fit into one frame, of which brokers take 128 KiB; a larger one ends the connection."""
_KEPT = ("content_type", "content_encoding", "correlation_id", "message_id", "timestamp", "message_type", "app_id")
"""Not its expiration, or the letter would expire; nor its user, who the broker demands to be ours."""


def letter_message(delivery: Delivery, letter: DeadLetter) -> tuple[bytes, Basic.Properties]:
    """Body and properties of a letter. Of a batch it holds the one event, in structured mode."""
    note = write_note(LetterNote.of(letter, delivery.exchange, delivery.routing_key))
    properties = {name: getattr(delivery.properties, name) for name in _KEPT}
    if not delivery.batch:
        headers = {name: value for name, value in delivery.headers.items() if name != "x-delivery-count"}
        return delivery.body, _fitting(properties, headers, note)
    properties["content_type"] = letter.content_type
    body = letter.body
    if letter.content_type == "application/json" and letter.attributes:
        properties["content_type"], body = STRUCTURED_TYPE, _structured(letter)
    return body, _fitting(properties, {}, note)


def crashed(delivery: Delivery, exc: Exception, at: datetime) -> DeadLetter:
    """The letter of a message on which a bug of ours was met."""
    return DeadLetter(
        reason=FailureReason.INTERNAL_ERROR,
        message=f"a bug of this service: {type(exc).__name__}: {exc}",
        attributes={},
        content_type=content_type_of(delivery.properties.content_type, delivery.headers),
        body=delivery.body,
        first_at=at,
        last_at=at,
        error=type(exc).__name__,
    )


def _structured(letter: DeadLetter) -> bytes:
    """The event whole: its data is JSON already."""
    attributes = json.dumps({**letter.attributes, "datacontenttype": "application/json"}, ensure_ascii=False).encode()
    return attributes[:-1] + b',"data":' + letter.body + b"}" if letter.body else attributes


def _fitting(properties: dict[str, Any], headers: dict[str, Any], note: dict[str, str | int]) -> Basic.Properties:
    """With all headers, or, where that would be too much or cannot be said, with the short texts among them."""
    whole = Basic.Properties(headers={**headers, **note}, delivery_mode=2, **properties)
    try:
        if len(ContentHeader(properties=whole).marshal()) <= _LARGEST_HEAD:
            return whole
    except (TypeError, ValueError, struct.error):  # a value that pamqp reads but cannot write
        pass
    texts = {name: value for name, value in headers.items() if isinstance(value, str) and len(value) <= 256}  # noqa: PLR2004 -- short
    few = dict(list(texts.items())[:50])
    return Basic.Properties(headers={**few, **note}, delivery_mode=2, **properties)
