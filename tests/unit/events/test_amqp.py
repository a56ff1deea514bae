"""From AMQP messages to events: every encoding that real senders use, and the same problems as over HTTP."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import pytest
from cloudevents.core.bindings.amqp import to_binary_event as to_amqp_binary
from cloudevents.core.bindings.rabbitmq import to_binary_event as to_rabbitmq_binary
from cloudevents.core.v1.event import CloudEvent
from hypothesis import given
from hypothesis import strategies as st

from builder.errors import Problem
from builder.events.amqp import parse_amqp
from builder.events.parsing import BATCH_TYPE, STRUCTURED_TYPE, Item, Mode, Parsed, Rejected, parse_http
from builder.models import Event

MINIMUM = {"specversion": "1.0", "id": "1", "source": "/s", "type": "t"}
MINIMUM_EVENT = Event("1", "/s", "t", None, None, {}, b"{}")
TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def one(headers: Mapping[str, object], data: bytes = b"{}", content_type: str | None = "application/json") -> Item:
    """The event of a message in binary mode."""
    mode, (item,) = parse_amqp(content_type, headers, data)
    assert mode is Mode.BINARY
    return item


def bare(**headers: object) -> Item:
    """Knative's names, with the minimum."""
    return one({**MINIMUM, **headers})


def prefixed(prefix: str = "ce-", **headers: object) -> Item:
    """The names of a binding with a prefix, with the minimum."""
    return one({f"{prefix}{name}": value for name, value in {**MINIMUM, **headers}.items()})


def problems(item: Item) -> tuple[Problem, ...]:
    assert isinstance(item, Rejected)
    return item.problems


class TestTheExample:
    """004's event is the same event in every encoding."""

    @pytest.fixture
    def data(self, example: dict[str, Any]) -> bytes:
        return json.dumps(example["data"], separators=(",", ":")).encode()

    @pytest.fixture
    def attributes(self, example: dict[str, Any]) -> dict[str, str]:
        return {name: value for name, value in example.items() if name not in {"data", "datacontenttype"}}

    def test_structured(self, example: dict[str, Any], event: Event) -> None:
        body = json.dumps(example, indent=2).encode()
        assert parse_amqp(STRUCTURED_TYPE, None, body) == Parsed(Mode.STRUCTURED, [event])

    def test_structured_by_a_header(self, example: dict[str, Any], event: Event) -> None:
        """Knative writes the content type among the headers."""
        body = json.dumps(example).encode()
        assert parse_amqp(None, {"content-type": STRUCTURED_TYPE}, body) == Parsed(Mode.STRUCTURED, [event])

    def test_batch(self, example: dict[str, Any], event: Event) -> None:
        body = json.dumps([example, example]).encode()
        assert parse_amqp(BATCH_TYPE, {}, body) == Parsed(Mode.BATCH, [event, event])

    def test_bare_names(self, attributes: dict[str, str], data: bytes, event: Event) -> None:
        """As Knative's RabbitMQ broker publishes it, beside whatever else stands among the headers."""
        others = {"content-type": "application/json", "x-death": [{"count": 1}], "x-delivery-count": 2}
        assert one({**attributes, **others}, data, None) == event

    @pytest.mark.parametrize("prefix", ["ce-", "Ce-", "cloudEvents:", "cloudEvents_", "cloudevents_"])
    def test_prefixes(self, prefix: str, attributes: dict[str, str], data: bytes, event: Event) -> None:
        headers = {f"{prefix}{name}": value for name, value in attributes.items()}
        assert one({**headers, "x-death": [], "id": "not this one"}, data) == event

    def test_the_sdks_rabbitmq_binding(self, example: dict[str, Any]) -> None:
        message = to_rabbitmq_binary(sdk_event(example))
        event = one(message.headers, message.body, message.content_type)
        assert isinstance(event, Event)
        assert event._replace(data=b"") == expected(example)

    def test_the_sdks_amqp_binding(self, example: dict[str, Any]) -> None:
        """Its times are milliseconds since 1970."""
        message = to_amqp_binary(sdk_event(example))
        event = one(message.application_properties, message.application_data, message.properties["content-type"])
        assert isinstance(event, Event)
        assert event._replace(data=b"") == expected(example)


def sdk_event(example: dict[str, Any]) -> CloudEvent:
    """The example as the SDK holds it."""
    attributes = {name: value for name, value in example.items() if name != "data"}
    return CloudEvent({**attributes, "time": datetime(2024, 1, 1, tzinfo=UTC), "attempt": 3}, example["data"])


def expected(example: dict[str, Any]) -> Event:
    """Its attributes as we hold them."""
    time = datetime(2024, 1, 1, tzinfo=UTC)
    return Event(example["id"], example["source"], example["type"], example["subject"], time, {"attempt": "3"}, b"")


class TestValues:
    """What AMQP can say in a header."""

    @pytest.mark.parametrize(
        ("value", "text"),
        [
            ("text", "text"),
            (b"text", "text"),
            (bytearray(b"text"), "text"),
            ("ünï%20code", "ünï%20code"),
            ("ü".encode(), "ü"),
            (7, "7"),
            (True, "true"),
            (False, "false"),
            (datetime(2024, 1, 1, tzinfo=UTC), "2024-01-01T00:00:00+00:00"),
            (datetime(2024, 1, 1), "2024-01-01T00:00:00+00:00"),  # noqa: DTZ001 -- as some clients decode it
        ],
    )
    @pytest.mark.parametrize("make", [bare, prefixed])
    def test_texts(self, make: Any, value: object, text: str) -> None:
        """Nothing is percent-decoded: AMQP's texts are texts."""
        assert make(extension=value) == MINIMUM_EVENT._replace(extensions={"extension": text})

    @pytest.mark.parametrize("value", [1.5, ["x"], {"a": 1}])
    def test_no_texts(self, value: object) -> None:
        """With a prefix it is meant for us; without one it may be anything of anybody's."""
        message = "must be a string, a boolean or a whole number"
        assert problems(prefixed(extension=value)) == (Problem("extension", message),)
        assert problems(bare(subject=value)) == (Problem("subject", message),)
        assert bare(extension=value) == MINIMUM_EVENT

    def test_null_is_unset(self) -> None:
        assert prefixed(extension=None) == bare(subject=None) == MINIMUM_EVENT

    def test_no_utf_8(self) -> None:
        """Told as over HTTP."""
        (problem,) = problems(prefixed(subject=b"a\xffb"))
        assert problem == Problem("subject", "must be UTF-8: header ce-subject")

    @pytest.mark.parametrize("time", ["2024-01-01T00:00:00Z", datetime(2024, 1, 1, tzinfo=UTC), 1704067200000])
    def test_times(self, time: object) -> None:
        """Text, AMQP's timestamp, and the AMQP binding's milliseconds."""
        noon = datetime(2024, 1, 1, tzinfo=UTC)
        assert prefixed("cloudEvents:", time=time) == MINIMUM_EVENT._replace(time=noon)

    @pytest.mark.parametrize(("prefix", "time"), [("cloudEvents:", 10**30), ("ce-", 1704067200000)])
    def test_no_times(self, prefix: str, time: int) -> None:
        (problem,) = problems(prefixed(prefix, time=time))
        assert problem.field == "time"


class TestProblems:
    """The same texts as over HTTP, for one program reads both."""

    def test_an_attribute_twice(self) -> None:
        message = 'must not be sent twice: header "cloudEvents:id"'
        headers = {f"ce-{name}": value for name, value in MINIMUM.items()} | {"cloudEvents:id": "2"}
        assert problems(one(headers)) == (Problem("id", message),)

    def test_plain_json_is_no_event(self) -> None:
        """As over HTTP, and nothing of foreign headers is looked at."""
        nothing: list[dict[str, object]] = [{}, {"subject": 1.5}, {"x-death": []}]
        for headers in nothing:
            assert parse_amqp("application/json", headers, b"{}") == parse_http("application/json", [], b"{}")

    def test_another_type(self) -> None:
        headers = {f"ce-{name}": value for name, value in MINIMUM.items()}
        assert parse_amqp("text/plain", headers, b"x") == parse_http("text/plain", headers.items(), b"x")

    def test_traceparent(self) -> None:
        """An extension among bare names, the hop's own beside a prefix or a body."""
        body = json.dumps({**MINIMUM, "data": {}}).encode()
        with_trace = MINIMUM_EVENT._replace(extensions={"traceparent": TRACE})
        headers = {f"ce-{name}": value for name, value in MINIMUM.items()} | {"traceparent": TRACE}
        assert bare(traceparent=TRACE) == one(headers) == with_trace
        assert parse_amqp(STRUCTURED_TYPE, {"traceparent": TRACE}, body).items == [with_trace]


AMQP_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary() | st.datetimes(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
NAMES = st.sampled_from([*MINIMUM, "time", "subject", "data", "datacontenttype", "ce-id", "CE-ID", "cloudEvents_time"])


@given(
    st.none() | st.sampled_from([STRUCTURED_TYPE, BATCH_TYPE, "application/json", "text/plain"]) | st.text(),
    st.dictionaries(NAMES | st.text(), AMQP_VALUES, max_size=8),
    st.binary() | st.sampled_from([b"{}", b"[]", json.dumps([MINIMUM]).encode(), json.dumps(MINIMUM).encode()]),
)
def test_never_raises(content_type: str | None, headers: dict[str, object], body: bytes) -> None:
    """Whatever comes, there is an answer, and nothing is invented."""
    for item in parse_amqp(content_type, headers, body).items:
        assert isinstance(item, Rejected) or item.id
