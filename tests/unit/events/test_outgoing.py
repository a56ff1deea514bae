"""What the publisher sends is what the service takes, in every mode."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builder.build_settings import Build
from builder.events.outgoing import encode_batch, encode_binary, encode_structured, job_start_event
from builder.events.parsing import Mode, parse_http
from builder.events.request import build_request
from builder.events.routing import UseCase, flow_of, route
from builder.models import Event
from builder.settings import Intake


def parse(headers: dict[str, str], body: bytes) -> list[Event]:
    """The way of a request through a server: header names in lower case, values as they are."""
    items = parse_http(headers["content-type"], headers.items(), body).items
    events = [item for item in items if isinstance(item, Event)]
    assert events == items
    return events


def test_the_event_is_004s(example: dict[str, Any]) -> None:
    """Envelope and data have 004's fields; ids and time are new each time."""
    began = datetime.now(UTC)
    data = example["data"]
    event = job_start_event(
        third_party_id=data["third_party_id"],
        parser_id=data["parser_id"],
        parameters=data["parameters"],
        priority=data["priority"],
        job_name=data["job_name"],
    )
    correlation_id = event.get_extension("correlationid")
    assert event.get_data() == {**data, "correlation_id": correlation_id}
    assert {name: event.get_attributes()[name] for name in ("specversion", "source", "type", "datacontenttype")} == {
        name: example[name] for name in ("specversion", "source", "type", "datacontenttype")
    }
    assert event.get_subject() == data["parser_id"]
    assert UUID(event.get_id()) != UUID(correlation_id)
    time = event.get_time()
    assert time is not None
    assert began <= time < began + timedelta(minutes=1)


def test_every_mode_brings_the_same_event() -> None:
    """Through the SDK's encoders and our parser, and on to a build request."""
    sent = job_start_event(
        third_party_id="t", parser_id="p", parameters={"source_url": "https://github.com/o/r"}, correlation_id="c"
    )
    received = [
        *parse(*encode_binary(sent)),
        *parse(*encode_structured(sent)),
        *parse(*encode_batch([sent, sent])),
    ]
    assert len(received) == 4
    for event in received:
        assert json.loads(event.data) == sent.get_data()
        assert (event.id, event.time, event.extensions) == (sent.get_id(), sent.get_time(), {"correlationid": "c"})
        assert (route(event), flow_of(event)) == (UseCase.BUILD_START, "queue")
        request = build_request(event, datetime.now(UTC), Build(), Intake())
        assert (request.correlation_id, request.job_name, request.priority) == ("c", None, 5)


@pytest.mark.parametrize(
    ("encode", "content_type"),
    [(encode_binary, "application/json"), (encode_structured, "application/cloudevents+json")],
)
def test_content_types(encode: Any, content_type: str) -> None:
    """The mode is said by nothing else."""
    headers, _ = encode(job_start_event(third_party_id="t", parser_id="p", parameters={}))
    assert headers["content-type"] == content_type


def test_an_empty_batch() -> None:
    """Legal, and nothing."""
    headers, body = encode_batch([])
    assert parse_http(headers["content-type"], [], body) == (Mode.BATCH, [])


attributes = st.text(
    st.characters(codec="utf-8", exclude_categories=["Cc", "Cs", "Cn"]), min_size=1, max_size=50
).filter(lambda text: text == text.strip())


@given(attributes, st.dictionaries(st.text(), st.text()))
def test_any_text_survives_the_round_trip(subject: str, environment: dict[str, str]) -> None:
    """Percent-encoding of the SDK and decoding of ours are each other's reverse."""
    sent = job_start_event(third_party_id="t", parser_id=subject, parameters={"environment": environment})
    for event in (*parse(*encode_binary(sent)), *parse(*encode_structured(sent)), *parse(*encode_batch([sent]))):
        assert event.subject == subject
        assert json.loads(event.data) == sent.get_data()
