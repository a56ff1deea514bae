"""A dead letter in the broker: the message as it came, and headers that say why it is there.

Those that we write begin with ``dead-letter-``. What the broker dead-letters by itself (expired, over the bound, tried
too often, rejected by somebody else's consumer) has only RabbitMQ's ``x-death``:
https://www.rabbitmq.com/docs/dlx#effects
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from builder.errors import Problem
from builder.models import DeadLetter, RejectReason

KIND = "dead-letter-kind"
REASON = "dead-letter-reason"
MESSAGE = "dead-letter-message"
ERROR = "dead-letter-error"
DETAIL = "dead-letter-detail"
ATTEMPTS = "dead-letter-attempts"
FIRST_AT = "dead-letter-first-at"
LAST_AT = "dead-letter-last-at"
EXCHANGE = "dead-letter-exchange"
ROUTING_KEY = "dead-letter-routing-key"

REPLAYED = "replayed"
"""The header, and the CloudEvents attribute, that marks a message as sent again."""

_OURS = "dead-letter-"
_BROKERS = ("x-death", "x-first-death-", "x-last-death-", "x-delivery-count")
_LONGEST = 4096
"""Characters of one text: all headers together must fit into one frame of 128 KiB."""
_MOST_PROBLEMS = 20


class LetterKind(StrEnum):
    """Whether the event was refused at the door, or failed at work."""

    REJECTED = "rejected"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class LetterNote:
    """Why a message is a dead letter, and where it came from. ``error`` is the class and status of the error.

    ``problems`` name the fields of a rejected event. ``exchange`` and ``routing_key`` are what it was published with.
    """

    kind: LetterKind
    reason: str
    message: str
    error: str
    attempts: int
    first_at: datetime
    last_at: datetime
    exchange: str
    routing_key: str
    problems: tuple[Problem, ...] = ()

    @classmethod
    def of(cls, letter: DeadLetter, exchange: str, routing_key: str) -> "LetterNote":
        """What a letter's message is sent with."""
        return cls(
            kind=LetterKind.REJECTED if isinstance(letter.reason, RejectReason) else LetterKind.FAILED,
            reason=letter.reason.value,
            message=letter.message,
            error=letter.error,
            attempts=letter.attempts,
            first_at=letter.first_at,
            last_at=letter.last_at,
            exchange=exchange,
            routing_key=routing_key,
            problems=letter.problems,
        )


@dataclass(frozen=True, slots=True)
class BrokerNote:
    """Why the broker itself dead-lettered a message: ``expired``, ``maxlen``, ``delivery_limit`` or ``rejected``."""

    reason: str
    queue: str
    count: int
    at: datetime | None
    exchange: str
    routing_key: str


def write_note(note: LetterNote) -> dict[str, str | int]:
    """The headers; they stand beside those that the message came with."""
    return {
        KIND: note.kind.value,
        REASON: note.reason,
        MESSAGE: note.message[:_LONGEST],
        ERROR: note.error[:_LONGEST],
        DETAIL: _problems_text(note.problems),
        ATTEMPTS: note.attempts,
        FIRST_AT: note.first_at.isoformat(),
        LAST_AT: note.last_at.isoformat(),
        EXCHANGE: note.exchange,
        ROUTING_KEY: note.routing_key,
    }


def read_note(headers: Mapping[str, object]) -> LetterNote | None:
    """The note that we wrote; None where there is none, or none that can be read."""
    try:
        return LetterNote(
            kind=LetterKind(_text(headers[KIND])),
            reason=_text(headers[REASON]),
            message=_text(headers[MESSAGE]),
            error=_text(headers[ERROR]),
            attempts=int(_text(headers[ATTEMPTS])),
            first_at=datetime.fromisoformat(_text(headers[FIRST_AT])),
            last_at=datetime.fromisoformat(_text(headers[LAST_AT])),
            exchange=_text(headers[EXCHANGE]),
            routing_key=_text(headers[ROUTING_KEY]),
            problems=tuple(Problem(one["field"], one["message"]) for one in json.loads(_text(headers[DETAIL]))),
        )
    except (KeyError, TypeError, ValueError):
        return None


def read_deaths(headers: Mapping[str, object]) -> tuple[BrokerNote, ...]:
    """What the broker noted, the latest first; each entry counts one queue and reason."""
    deaths = headers.get("x-death")
    return tuple(_death(one) for one in deaths if isinstance(one, Mapping)) if isinstance(deaths, list) else ()


def original_headers(headers: Mapping[str, Any]) -> dict[str, Any]:
    """The headers without all that tells of a death: what the message was first published with."""
    return {name: value for name, value in headers.items() if not name.startswith((_OURS, *_BROKERS))}


def _death(entry: Mapping[str, object]) -> BrokerNote:
    keys, at, count = entry.get("routing-keys"), entry.get("time"), entry.get("count")
    return BrokerNote(
        reason=_text(entry.get("reason", "")),
        queue=_text(entry.get("queue", "")),
        count=count if isinstance(count, int) else 1,
        at=_aware(at) if isinstance(at, datetime) else None,
        exchange=_text(entry.get("exchange", "")),
        routing_key=_text(keys[0]) if isinstance(keys, list) and keys else "",
    )


def _problems_text(problems: Sequence[Problem]) -> str:
    """As JSON; the last ones are left out where all would be too long."""
    shown = [{"field": one.field, "message": one.message} for one in problems[:_MOST_PROBLEMS]]
    while len(text := json.dumps(shown)) > _LONGEST:
        shown.pop()
    return text


def _text(value: object) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes | bytearray) else str(value)


def _aware(at: datetime) -> datetime:
    return at if at.tzinfo is not None else at.replace(tzinfo=UTC)
