"""The values that travel through the service. All frozen; none knows a transport."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Literal, NamedTuple, TypeAlias, get_args

from builder.errors import Problem

Manifest: TypeAlias = dict[str, Any]
"""A Kubernetes object as plain JSON."""


# A NamedTuple where one is made for each event: a frozen dataclass takes four times as long to make.
class Event(NamedTuple):
    """A CloudEvent 1.0 whose attributes are checked and whose data is still bytes.

    ``time`` is in UTC, or None. ``data`` is JSON text in UTF-8.
    """

    id: str
    source: str
    type: str
    subject: str | None
    time: datetime | None
    extensions: Mapping[str, str]
    data: bytes

    def attributes(self) -> dict[str, str]:
        """The attributes as text."""
        attributes = {"specversion": "1.0", "id": self.id, "source": self.source, "type": self.type}
        if self.subject is not None:
            attributes["subject"] = self.subject
        if self.time is not None:
            attributes["time"] = self.time.isoformat()
        return attributes | dict(self.extensions)

    @property
    def identity(self) -> bytes:
        """See ``identity_of``."""
        return identity_of(self.source, self.id)


def identity_of(source: str, event_id: str) -> bytes:
    """What makes two deliveries the same event: (source, id), as 16 bytes.

    https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/spec.md#id
    Neither attribute may hold a control character, so the NUL between them keeps pairs apart.
    """
    return hashlib.blake2b(f"{source}\0{event_id}".encode(), digest_size=16).digest()


class Target(NamedTuple):
    """What is built. At most one build of a target is active at any moment."""

    third_party_id: str
    parser_id: str


class BuildType(StrEnum):
    """Whose Dockerfile is built."""

    CONTAINER = "container"
    FUNCTION = "function"


class SourceKind(StrEnum):
    """How Kaniko fetches the context."""

    GIT = "git"
    ARCHIVE = "archive"
    BUCKET = "bucket"


class Source(NamedTuple):
    """Where the build context comes from.

    ``location`` is a URL without fragment. ``ref`` is ``refs/heads/x``, ``refs/tags/x``, a full commit hash, or
    None for the default branch; only Git has one. ``sub_path`` is relative and stays inside the context.
    """

    kind: SourceKind
    location: str
    ref: str | None = None
    sub_path: str | None = None

    @property
    def immutable(self) -> bool:
        """True if the same address can never give other content: a full commit hash."""
        return self.ref is not None and not self.ref.startswith("refs/")


class BuildRequest(NamedTuple):
    """A build that was asked for, checked field by field. ``build_timeout`` is in seconds.

    ``overruled_priority`` is the one in the parameters, where it is there and says otherwise.
    """

    event_id: str
    event_source: str
    requested_at: datetime
    target: Target
    correlation_id: str
    job_name: str | None
    priority: int
    build_type: BuildType
    runtime: str | None
    source: Source
    dockerfile: str | None
    build_timeout: int
    environment: Mapping[str, str]
    traceparent: str | None = None
    overruled_priority: int | None = None


Flow: TypeAlias = Literal["queue", "direct"]
"""Which road an event took (the phases of 004's migration are told apart by it).

No Enum: Python 3.11 takes a microsecond to find its member and to count by it, and every event is counted.
"""

FLOWS: tuple[Flow, ...] = get_args(Flow)


class Outcome(StrEnum):
    """How an accepted event ends. Closed: there is no fifth way."""

    CREATED = "created"
    ADOPTED = "adopted"
    SUPERSEDED = "superseded"
    FAILED = "failed"


class FailureReason(StrEnum):
    """Why an accepted event ended as a dead letter. Closed: it is a metric's label."""

    INVALID_REQUEST = "invalid_request"
    NAME_TAKEN = "name_taken"
    ACTIVE_BUILD = "active_build"
    RETRIES_EXHAUSTED = "retries_exhausted"
    QUOTA = "quota"
    UNAUTHORIZED = "unauthorized"
    FORBIDDEN = "forbidden"
    NAMESPACE_NOT_FOUND = "namespace_not_found"
    INVALID_JOB = "invalid_job"
    INTERNAL_ERROR = "internal_error"


class RejectReason(StrEnum):
    """Why an event was not accepted and never will be. Closed: it is a metric's label."""

    INVALID = "invalid"
    TOO_LARGE = "too_large"
    NOT_A_CLOUDEVENT = "not_a_cloudevent"
    DIRECT_DISABLED = "direct-disabled"
    QUEUE_DISABLED = "queue-disabled"
    UNDELIVERED = "undelivered"
    """A broker gave it up, and brought it to us to be kept."""


class Decision(StrEnum):
    """What to do about a Job that has the wanted name. Closed: it is a metric's label."""

    CREATE = "create"
    ADOPT = "adopt"
    SUPERSEDED = "superseded"
    REPLACE_FINISHED = "replace_finished"
    REPLACE_ACTIVE = "replace_active"
    WAIT_FOR_BUILD = "wait_for_build"
    WAIT_FOR_DELETION = "wait_for_deletion"
    NAME_TAKEN = "name_taken"


@dataclass(frozen=True, slots=True)
class Failure:
    """The end of an item that could not be built, in plain words."""

    reason: FailureReason
    message: str
    error: str = ""
    """The class of the error, and the API server's status where it gave one: ``Denied 403``."""


@dataclass(frozen=True, slots=True)
class Result:
    """The outcome of one accepted event, as people ask for it."""

    event_id: str
    event_source: str
    correlation_id: str
    target: Target
    outcome: Outcome
    accepted_at: datetime
    finished_at: datetime
    attempts: int
    job_name: str | None = None
    image: str | None = None
    failure: Failure | None = None


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """An event that will not become a Job, with its reason and what is left of its bytes.

    ``attributes`` are the CloudEvents attributes as far as they could be read. ``body`` is in ``content_type``: the
    event's data, or the whole message where the attributes stand in it; empty where it was too large to keep.
    ``id`` is the journal's own. One with a ``replayed_at`` was sent again, by a replay, or by the sender and with
    success, and is kept for those who look back.
    """

    reason: FailureReason | RejectReason
    message: str
    attributes: Mapping[str, str]
    content_type: str
    body: bytes
    first_at: datetime
    last_at: datetime
    attempts: int = 0
    problems: tuple[Problem, ...] = ()
    error: str = ""
    third_party_id: str | None = None
    id: int | None = None
    replayed_at: datetime | None = None

    def key(self, identity: bytes | None) -> bytes:
        """What tells this letter from others: one event has one letter, however often it fails.

        That is the ``identity`` of an accepted event. Of a rejected one it is all that came, for its attributes may be
        what is wrong with it.
        """
        if identity is not None:
            return self.key_of(identity)
        digest = hashlib.blake2b(self.body, digest_size=16)
        for name, value in sorted(self.attributes.items()):
            digest.update(f"\0{name}\0{value}".encode())
        return b"r" + digest.digest()

    @staticmethod
    def key_of(identity: bytes) -> bytes:
        """The key of an accepted event's letter."""
        return b"e" + identity

    @classmethod
    def of_failure(cls, event: Event, result: Result, failure: Failure) -> "DeadLetter":
        """The letter of an accepted event that could not be built."""
        return cls(
            reason=failure.reason,
            message=failure.message,
            attributes=event.attributes(),
            content_type="application/json",
            body=event.data,
            first_at=result.accepted_at,
            last_at=result.finished_at,
            attempts=result.attempts,
            error=failure.error,
            third_party_id=result.target.third_party_id,
        )
