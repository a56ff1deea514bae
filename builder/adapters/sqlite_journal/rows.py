"""Values to rows and back. What is stored is what came, so that a newer version can read it anew."""

import json
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any

import orjson

from builder.errors import Problem
from builder.flow.fair_order import HIGHEST, LOWEST
from builder.models import (
    DeadLetter,
    Event,
    Failure,
    FailureReason,
    Outcome,
    RejectReason,
    Result,
    Target,
)

_NONE: Mapping[str, str] = MappingProxyType({})


def _to_json(value: object) -> str:
    return orjson.dumps(value, option=orjson.OPT_UTC_Z).decode()


def attributes_of(event: Event) -> str:
    """An event's attributes as JSON; its data is stored as it is."""
    return _to_json([event.id, event.source, event.type, event.subject, event.time, dict(event.extensions)])


def event_of(attributes: str, data: bytes) -> Event:
    """The event again. Thousands may come from one source, and are of few types: those share one string each."""
    event_id, source, kind, subject, time, extensions = json.loads(attributes)
    if not (isinstance(event_id, str) and isinstance(extensions, dict) and isinstance(data, bytes)):
        msg = "attributes or data of another type than was written"
        raise TypeError(msg)
    return Event(
        id=event_id,
        source=sys.intern(source),
        type=sys.intern(kind),
        subject=subject,
        time=None if time is None else datetime.fromisoformat(time),
        extensions=extensions or _NONE,
        data=data,
    )


def priority_of(stored: object) -> int:
    """A priority that the queue knows.

    Raises:
        ValueError: it is none.
    """
    if not isinstance(stored, int) or not HIGHEST <= stored <= LOWEST:
        msg = f"{stored!r} is no priority"
        raise ValueError(msg)
    return stored


def document_of(result: Result) -> str:
    """A result as JSON."""
    failure = None if result.failure is None else [result.failure.reason, result.failure.message]
    return _to_json(
        {
            "event_id": result.event_id,
            "event_source": result.event_source,
            "correlation_id": result.correlation_id,
            "target": list(result.target),
            "outcome": result.outcome,
            "accepted_at": result.accepted_at.timestamp(),
            "finished_at": result.finished_at.timestamp(),
            "attempts": result.attempts,
            "job_name": result.job_name,
            "image": result.image,
            "failure": failure,
        }
    )


def result_of(document: str) -> Result:
    """The result again."""
    fields: dict[str, Any] = json.loads(document)
    failure = fields.pop("failure")
    return Result(
        **fields
        | {
            "target": Target(*fields["target"]),
            "outcome": Outcome(fields["outcome"]),
            "accepted_at": moment(fields["accepted_at"]),
            "finished_at": moment(fields["finished_at"]),
            "failure": None if failure is None else Failure(FailureReason(failure[0]), failure[1]),
        }
    )


LETTER_COLUMNS = (
    "identity, reason, error, message, problems, attributes, type, third_party_id, content_type, attempts, "
    "first_at, last_at, replayed_at, bytes, body"
)


def letter_row(letter: DeadLetter, identity: bytes) -> tuple[Any, ...]:
    """The values of ``LETTER_COLUMNS``."""
    attributes = _to_json(dict(letter.attributes))
    problems = _to_json([[problem.field, problem.message] for problem in letter.problems])
    return (
        identity,
        letter.reason.value,
        letter.error,
        letter.message,
        problems,
        attributes,
        letter.attributes.get("type"),
        letter.third_party_id,
        letter.content_type,
        letter.attempts,
        letter.first_at.timestamp(),
        letter.last_at.timestamp(),
        None if letter.replayed_at is None else letter.replayed_at.timestamp(),
        len(letter.message) + len(problems) + len(attributes) + len(letter.body),
        letter.body,
    )


UNREADABLE = (ValueError, TypeError, LookupError, ArithmeticError, OSError, RecursionError)
"""What reading a row may raise whose bytes the disk has changed. Bad rows must not keep people from the good ones."""


def unreadable(body: object, at: datetime, exc: Exception, letter_id: int | None = None) -> DeadLetter:
    """What is left of an event whose row is not what was written."""
    return DeadLetter(
        reason=FailureReason.INTERNAL_ERROR,
        message="its row in the journal could not be read back: the disk changed it",
        attributes={},
        content_type="application/json",
        body=body if isinstance(body, bytes) else str(body).encode(),
        first_at=at,
        last_at=at,
        error=type(exc).__name__,
        id=letter_id,
    )


def letter_of(row: Mapping[str, Any]) -> DeadLetter:
    """The letter again, from a row with its columns' names."""
    try:
        return _letter_of(row)
    except UNREADABLE as exc:
        return unreadable(row["body"], moment(0), exc, row["id"])


def _letter_of(row: Mapping[str, Any]) -> DeadLetter:
    reason = row["reason"]
    return DeadLetter(
        reason=FailureReason(reason) if reason in set(FailureReason) else RejectReason(reason),
        message=row["message"],
        attributes=json.loads(row["attributes"]),
        content_type=row["content_type"],
        body=row["body"],
        first_at=moment(row["first_at"]),
        last_at=moment(row["last_at"]),
        attempts=row["attempts"],
        problems=tuple(Problem(field, message) for field, message in json.loads(row["problems"])),
        error=row["error"],
        third_party_id=row["third_party_id"],
        id=row["id"],
        replayed_at=None if row["replayed_at"] is None else moment(row["replayed_at"]),
    )


def moment(seconds: float) -> datetime:
    """A time of day from seconds since 1970."""
    return datetime.fromtimestamp(seconds, UTC)
