"""Events that we send, written by the CloudEvents SDK: what the publisher of 004 puts on its way.

https://github.com/cloudevents/sdk-python (2.x, ``cloudevents.core``)
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeAlias
from uuid import uuid4

from cloudevents.core.bindings.http import to_binary_event, to_structured_event
from cloudevents.core.v1.event import CloudEvent

from builder.events.parsing import BATCH_TYPE
from builder.events.routing import JOB_START, QUEUE_SOURCE

Message: TypeAlias = tuple[dict[str, str], bytes]
"""Headers and body of an HTTP request."""


@dataclass(frozen=True, slots=True)
class Sent:
    """What came back. ``status`` is of HTTP, or a word of AMQP; ``answer`` the JSON document, a text, or None.

    ``accepted`` if the receiver answers for the event now.
    """

    event_id: str
    correlation_id: str
    status: int | str
    answer: Any
    accepted: bool


@dataclass(frozen=True, slots=True)
class Outgoing:
    """One event on its way: ``headers`` and ``body`` are the whole HTTP message."""

    event_id: str
    correlation_id: str
    type: str
    headers: dict[str, str]
    body: bytes

    def answered(self, status: int | str, answer: Any, *, accepted: bool) -> Sent:
        """What came back for it."""
        return Sent(self.event_id, self.correlation_id, status, answer, accepted)


def job_start_event(
    *,
    third_party_id: str,
    parser_id: str,
    parameters: Mapping[str, object],
    priority: int | None = None,
    correlation_id: str | None = None,
    job_name: str | None = None,
) -> CloudEvent:
    """A new job start event (004: Job Start Event Data) with an id of its own, as of now.

    Nothing is checked but the envelope: a publisher must be able to send what the service has to refuse.
    ``correlation_id`` left out is a new one; it stands in the data, as 004 has it, and in the extension
    ``correlationid``, which Knative carries on.
    """
    correlation_id = str(uuid4()) if correlation_id is None else correlation_id
    optional = {"job_name": job_name, "priority": priority}
    return CloudEvent(
        attributes={
            "specversion": "1.0",
            "id": str(uuid4()),
            "source": QUEUE_SOURCE,
            "subject": parser_id,
            "type": JOB_START,
            "time": datetime.now(UTC),
            "datacontenttype": "application/json",
            "correlationid": correlation_id,
        },
        data={
            "third_party_id": third_party_id,
            "parser_id": parser_id,
            "correlation_id": correlation_id,
            **{name: value for name, value in optional.items() if value is not None},
            "parameters": dict(parameters),
        },
    )


def encode_binary(event: CloudEvent) -> Message:
    """One event, its attributes in ``ce-`` headers."""
    message = to_binary_event(event)
    return message.headers, message.body


def encode_structured(event: CloudEvent) -> Message:
    """One event, whole in a JSON body."""
    message = to_structured_event(event)
    return message.headers, message.body


def encode_batch(events: Sequence[CloudEvent]) -> Message:
    """Several events in one JSON array, for which the SDK has nothing (JSON format, section 4)."""
    return {"content-type": BATCH_TYPE}, b"[" + b",".join(encode_structured(event)[1] for event in events) + b"]"
