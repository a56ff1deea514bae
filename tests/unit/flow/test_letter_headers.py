"""The headers of a dead letter in the broker: what is written can be read, and what is not ours does no harm."""

from datetime import UTC, datetime

from builder.errors import Problem
from builder.flow.letter_headers import (
    BrokerNote,
    LetterKind,
    LetterNote,
    original_headers,
    read_deaths,
    read_note,
    write_note,
)
from builder.models import DeadLetter, RejectReason
from tests import building

NOTE = LetterNote(
    kind=LetterKind.FAILED,
    reason="forbidden",
    message='jobs.batch is forbidden: User "x" cannot create',
    error="Denied 403",
    attempts=2,
    first_at=building.NOON,
    last_at=datetime(2024, 1, 1, 13, 0, 0, 250_000, tzinfo=UTC),
    exchange="cloud-events",
    routing_key="network.notifi.lambda.job.start",
)
DEATH = {
    "reason": "expired",
    "count": 2,
    "queue": "kaniko-jobs",
    "time": building.NOON,
    "exchange": "cloud-events",
    "routing-keys": ["network.notifi.lambda.job.start"],
}


def test_what_is_written_can_be_read() -> None:
    """As text and as bytes, for senders and brokers differ."""
    headers = write_note(NOTE)
    assert headers["dead-letter-attempts"] == 2
    assert headers["dead-letter-first-at"] == "2024-01-01T12:00:00+00:00"
    assert read_note(headers) == NOTE
    as_bytes = {name: value.encode() if isinstance(value, str) else value for name, value in headers.items()}
    assert read_note(as_bytes) == NOTE


def test_a_rejected_event_has_its_fields() -> None:
    letter = DeadLetter(
        reason=RejectReason.INVALID,
        message="data.priority: must be less",
        attributes={},
        content_type="application/json",
        body=b"{}",
        first_at=building.NOON,
        last_at=building.NOON,
        problems=(Problem("data.priority", "must be less"),),
    )
    note = LetterNote.of(letter, "", "kaniko-jobs")
    assert (note.kind, note.reason, note.routing_key) == (LetterKind.REJECTED, "invalid", "kaniko-jobs")
    assert read_note(write_note(note)) == note


def test_headers_fit_into_a_frame() -> None:
    """A message of any length is cut: the broker would close the connection."""
    problems = tuple(Problem(f"f{number}", "x" * 3000) for number in range(100))
    headers = write_note(
        LetterNote(LetterKind.REJECTED, "invalid", "y" * 10**6, "", 0, NOTE.first_at, NOTE.last_at, "", "", problems)
    )
    assert sum(len(str(value)) for value in headers.values()) < 10_000
    read = read_note(headers)
    assert read is not None
    assert read.problems == problems[:1]


def test_no_note_of_ours() -> None:
    """Nothing there, or nonsense in its place."""
    assert read_note({}) is None
    assert read_note({**write_note(NOTE), "dead-letter-kind": "tired"}) is None
    assert read_note({**write_note(NOTE), "dead-letter-detail": "[1]"}) is None
    assert read_deaths({}) == ()
    assert read_deaths({"x-death": "soon"}) == ()


def test_what_the_broker_notes() -> None:
    (note,) = read_deaths({"x-death": [DEATH]})
    expected = BrokerNote("expired", "kaniko-jobs", 2, building.NOON, "cloud-events", "network.notifi.lambda.job.start")
    assert note == expected


def test_original_headers() -> None:
    """Sent again, a message has what it had at first, and nothing of its death."""
    headers = {
        "ce-id": "1",
        "x-tenant": b"acme",
        "x-death": [DEATH],
        "x-first-death-queue": "kaniko-jobs",
        "x-delivery-count": 3,
    }
    assert original_headers({**headers, **write_note(NOTE)}) == {"ce-id": "1", "x-tenant": b"acme"}
