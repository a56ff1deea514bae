"""What a sender sees of an event that is taken in, in each of the modes of the HTTP binding."""

import asyncio
import base64
import json
from collections.abc import Callable
from typing import Any

import pytest

from builder.models import Event
from tests import building
from tests.unit.http.door import (
    LEFT_OUT,
    QUEUED,
    Delivery,
    Document,
    Door,
    batch,
    binary,
    example,
    numbered,
    raw_binary,
    raw_post,
    serving,
    structured,
)

EXAMPLE_EVENT = Event(
    id="e-1",
    source="network.notifi.kaniko-jobs",
    type="network.notifi.lambda.job.start",
    subject="parser-id",
    time=building.NOON.replace(hour=0),
    extensions={},
    data=b"",
)
"""004's example but for its data, whose spacing is the sender's own."""


def without_data(event: Event) -> tuple[Event, Any]:
    """The attributes, and the data as a value."""
    bare = Event(event.id, event.source, event.type, event.subject, event.time, event.extensions, b"")
    return bare, json.loads(event.data)


@pytest.mark.parametrize("path", ["/", "/events"])
@pytest.mark.parametrize("encode", [binary, structured])
async def test_example_of_004(door: Door, encode: Callable[[Document], Delivery], path: str) -> None:
    """Answered at once with the body that 004 promises, and queued with all that it said."""
    response = await door.deliver(encode(example()), path)
    assert (response.status_code, response.content) == (202, QUEUED)
    assert response.headers["Content-Type"] == "application/json"
    assert [without_data(event) for event in door.queued()] == [(EXAMPLE_EVENT, building.EXAMPLE["data"])]


@pytest.mark.parametrize("path", ["/", "/events"])
async def test_batch(door: Door, path: str) -> None:
    """A batch says what became of each event, in the batch's order."""
    response = await door.deliver(batch(example(), numbered(2)), path)
    assert (response.status_code, response.headers["Content-Type"]) == (202, "application/json")
    assert response.json() == {
        "status": "queued",
        "events": [{"id": "e-1", "status": "queued"}, {"id": "e-2", "status": "queued"}],
    }
    first, second = door.queued()
    assert without_data(first) == (EXAMPLE_EVENT, building.EXAMPLE["data"])
    assert second.id == "e-2"


async def test_no_answer_at_all_looks_like_an_event(door: Door) -> None:
    """A broker would publish it. ``serving`` checks each answer of every test here; this one gives it something to see."""
    ce = {"ce-type": "x", "Ce-Id": "y", "CE-SOURCE": "z"}
    for method, path in [("POST", "/"), ("GET", "/metrics"), ("GET", "/nowhere"), ("PUT", "/"), ("OPTIONS", "/")]:
        response = await door.client.request(method, path, headers=ce)
        assert not [name for name in response.headers if name.startswith("ce-")]


# --- how attributes may be written ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content_type",
    [
        None,
        "application/json",
        "Application/JSON; charset=UTF-8",
        'application/json; charset="utf-8"',
        "text/json",
        "application/vnd.notifi.job+json",
    ],
)
async def test_content_types_of_binary_mode(door: Door, content_type: str | None) -> None:
    """JSON under any of its names; none at all is what Knative sends for an event without ``datacontenttype``."""
    response = await door.deliver(binary(example(), content_type))
    assert (response.status_code, response.content) == (202, QUEUED)


@pytest.mark.parametrize(
    "content_type", ["application/cloudevents+json; charset=utf-8", "APPLICATION/CloudEvents+JSON"]
)
async def test_content_types_of_structured_mode(door: Door, content_type: str) -> None:
    """Media types have no case, and parameters are allowed."""
    response = await door.deliver(structured(example()), headers={"Content-Type": content_type})
    assert response.status_code == 202


async def test_content_type_decides_the_mode(door: Door) -> None:
    """A stray ``ce-`` header over a structured body is the broker's, and not the event's."""
    response = await door.deliver(structured(example()), headers={"ce-id": "stray", "ce-specversion": "0.3"})
    assert response.status_code == 202
    assert [event.id for event in door.queued()] == ["e-1"]


@pytest.mark.parametrize("prefix", ["ce-", "Ce-", "CE-", "cE-"])
async def test_header_names_in_any_case(door: Door, prefix: str) -> None:
    """HTTP's header names have no case, and Go writes ``Ce-Id``."""
    headers = {
        f"{prefix}{name.upper() if prefix.isupper() else name.title()}": str(building.EXAMPLE[name])
        for name in ("specversion", "id", "source", "type")
    }
    lines = [f"{name}: {value}".encode() for name, value in headers.items()]
    answer = await door.exchange(raw_post(lines, binary(example()).content))
    assert (answer.status, answer.body) == (202, QUEUED)
    assert [event.id for event in door.queued()] == ["e-1"]


@pytest.mark.parametrize(
    ("sent", "read"),
    [
        ("Zürich-7".encode(), "Zürich-7"),
        ("火-🚀".encode(), "火-🚀"),
        (b"Z%C3%BCrich%20%F0%9F%9A%80", "Zürich 🚀"),
        (b'"in quotes, \\" too"', 'in quotes, " too'),
        (b"100%", "100%"),
        (b"50%2525", "50%25"),
        (b"   padded\t ", "padded"),
    ],
    ids=lambda value: repr(value) if isinstance(value, str) else "",
)
async def test_attribute_values(door: Door, sent: bytes, read: str) -> None:
    """Raw UTF-8 (Knative), percent-encoded once (the specification), quoted, or plain."""
    answer = await door.exchange(raw_post(raw_binary(id=sent, subject=sent), binary(example()).content))
    assert (answer.status, answer.body) == (202, QUEUED)
    assert [(event.id, event.subject) for event in door.queued()] == [(read, read)]


async def test_longest_legal_attribute(door: Door) -> None:
    """1024 characters of four bytes, percent-encoded, are 12 KiB of header, and no program's limit may be in the way."""
    answer = await door.exchange(raw_post(raw_binary(subject=b"%F0%9F%9A%80" * 1024), binary(example()).content))
    assert (answer.status, answer.body) == (202, QUEUED)
    assert [event.subject for event in door.queued()] == ["🚀" * 1024]


@pytest.mark.parametrize("encode", [binary, structured])
async def test_extensions(door: Door, encode: Callable[[Document], Delivery]) -> None:
    """What brokers and tracers add goes along."""
    event = example({"knativeerrorcode": "500", "partitionkey": "a/b c", "correlationid": "from-the-extension"})
    assert (await door.deliver(encode(event))).status_code == 202
    assert [event.extensions for event in door.queued()] == [
        {"knativeerrorcode": "500", "partitionkey": "a/b c", "correlationid": "from-the-extension"}
    ]


async def test_extensions_of_other_types(door: Door) -> None:
    """The JSON format's numbers and booleans have one text each; null is the same as left out."""
    event = example({"attempt": 3, "urgent": True, "nothing": None})
    assert (await door.deliver(structured(event))).status_code == 202
    assert [event.extensions for event in door.queued()] == [{"attempt": "3", "urgent": "true"}]


async def test_data_base64(door: Door) -> None:
    """The JSON format's other way to carry data."""
    encoded = base64.b64encode(json.dumps(building.EXAMPLE["data"]).encode()).decode()
    response = await door.deliver(structured(example({"data": LEFT_OUT, "data_base64": encoded})))
    assert (response.status_code, response.content) == (202, QUEUED)
    assert [without_data(event) for event in door.queued()] == [(EXAMPLE_EVENT, building.EXAMPLE["data"])]


async def test_newer_senders(door: Door) -> None:
    """A field that we do not know is not ours to refuse."""
    event = example({"data.team": "blue", "data.parameters.cpu": {"cores": 4}})
    assert (await door.deliver(structured(event))).status_code == 202


# --- the body of the answer -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prefer", "body"),
    [
        (None, QUEUED),
        ("reply", b""),
        ("Reply", b""),
        ("respond-async, reply", b""),
        ("reply; foo=bar", b""),
        ("noreply", QUEUED),
        ("handling=lenient", QUEUED),
        ('return="reply to me"', QUEUED),
    ],
)
async def test_prefer_reply(door: Door, prefer: str | None, body: bytes) -> None:
    """Brokers that would take any body for an event say ``Prefer: reply`` (RFC 7240), and get none."""
    response = await door.deliver(binary(example()), headers={} if prefer is None else {"Prefer": prefer})
    assert (response.status_code, response.content) == (202, body)
    assert ("Content-Type" in response.headers) == bool(body)


async def test_prefer_in_several_headers(door: Door) -> None:
    """Two headers are one list."""
    lines = [*raw_binary(), b"Prefer: respond-async", b"Prefer: reply"]
    answer = await door.exchange(raw_post(lines, binary(example()).content))
    assert (answer.status, answer.body) == (202, b"")


@pytest.mark.parametrize(("reply", "body"), [("body", QUEUED), ("empty", b"")])
@pytest.mark.parametrize("headers", [{}, {"Prefer": "reply"}])
async def test_reply_is_forced(reply: str, body: bytes, headers: dict[str, str]) -> None:
    """``intake.reply`` settles it, whatever the sender says."""
    async with serving(intake={"reply": reply}) as door:
        response = await door.deliver(binary(example()), headers=headers)
        assert (response.status_code, response.content) == (202, body)


async def test_empty_reply_to_a_batch(door: Door) -> None:
    """The same holds for a batch."""
    response = await door.deliver(batch(example()), headers={"Prefer": "reply"})
    assert (response.status_code, response.content) == (202, b"")


# --- once only --------------------------------------------------------------------------------------------------------


async def test_duplicate(door: Door) -> None:
    """A redelivery, in whatever mode, gets the answer of the first, and makes no second item."""
    answers = [await door.deliver(encode(example())) for encode in (binary, structured, binary)]
    assert [(answer.status_code, answer.content) for answer in answers] == [(202, QUEUED)] * 3
    assert len({answer.headers["X-Correlation-ID"] for answer in answers}) == 1
    assert len(door.queued()) == 1
    assert (await door.get("/async-jobs/stats"))["duplicates"] == {"queue": 2, "direct": 0}


async def test_twenty_deliveries_at_once(door: Door) -> None:
    """A sender that times out sends again while the first is on its way."""
    answers = await asyncio.gather(*(door.deliver(binary(example())) for _ in range(20)))
    assert {(answer.status_code, answer.content) for answer in answers} == {(202, QUEUED)}
    assert len(door.queued()) == 1


@pytest.mark.parametrize(
    ("change", "items"),
    [({"time": "2030-01-01T00:00:00Z"}, 1), ({"subject": "other"}, 1), ({"id": "e-2"}, 2), ({"source": "other"}, 2)],
)
async def test_what_makes_an_event_the_same(door: Door, change: dict[str, str], items: int) -> None:
    """``source`` and ``id``, and nothing else: a dispatcher may invent a new ``time`` at each delivery."""
    for event in (example(), example(change)):
        assert (await door.deliver(binary(event))).status_code == 202
    assert len(door.queued()) == items
