"""What the door refuses for its size, its kind, its moment, and how little that costs."""

import asyncio
import gzip
import json
import tracemalloc
import zlib
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

import pytest
from aiohttp import web
from aiohttp.http_exceptions import TransferEncodingError

from tests.unit.http.door import (
    PROBLEM,
    QUEUED,
    Delivery,
    Door,
    batch,
    binary,
    example,
    fields_of,
    numbered,
    problem_of,
    raw_binary,
    raw_post,
    serving,
    structured,
    until,
)

MIB = 2**20
SMALL = {"maxBodySize": 4096}
GZIP = {"Content-Encoding": "gzip"}


def padded(size: int) -> Delivery:
    """The example in binary mode, its data of exactly so many bytes."""
    delivery = binary(example())
    return delivery._replace(content=delivery.content.ljust(size))


@contextmanager
def little_memory(at_most: int = 16 * MIB) -> Iterator[None]:
    """Sender and service together never hold more than this at any moment."""
    tracemalloc.start()
    try:
        yield
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < at_most


# --- too large --------------------------------------------------------------------------------------------------------


async def test_the_limit_itself() -> None:
    """The last byte that fits, and the first that does not."""
    async with serving(intake=SMALL) as door:
        assert (await door.deliver(padded(4096))).status_code == 202
        response = await door.deliver(padded(4097))
        message = "must not be larger than 4096 bytes (setting intake.maxBodySize)"
        assert response.status_code == 413
        assert problem_of(response) == {
            "title": "Request Entity Too Large",
            "status": 413,
            "detail": f"body: {message}",
            "errors": [{"field": "body", "message": message}],
        }


@pytest.mark.parametrize("delivery", [padded(8192), structured(example({"data.x": "y" * 8192})), batch("y" * 8192)])
async def test_too_large_is_a_dead_letter(delivery: Delivery) -> None:
    """The attributes are kept as far as headers had them, the body is not; the event may come again, smaller."""
    async with serving(intake=SMALL) as door:
        response = await door.deliver(delivery)
        assert (response.status_code, fields_of(response)) == (413, ["body"])
        (letter,) = await door.letters()
        known = "e-1" if "ce-id" in delivery.headers else None
        assert (letter["reason"], letter["event"].get("id"), letter["body_bytes"]) == ("too_large", known, 0)
        assert door.queued() == []
        assert (await door.deliver(binary(example()))).content == QUEUED


async def test_announced_size_is_enough(door: Door) -> None:
    """Nothing of a body needs to arrive to be too large."""
    head = raw_post(raw_binary()).replace(b"Content-Length: 0", b"Content-Length: 1000000000000")
    answer = await door.exchange(head)
    assert (answer.status, answer.headers["content-type"]) == (413, PROBLEM)


async def test_64_mib_in_chunks(door: Door) -> None:
    """Without an announced size the count is of what comes, and what comes is not kept."""
    chunk = b" " * 2**16

    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(64 * MIB // len(chunk)):
            yield chunk

    with little_memory():
        response = await door.client.post("/", content=chunks(), headers=binary(example()).headers)
    assert (response.status_code, fields_of(response)) == (413, ["body"])
    assert (await door.deliver(binary(example()))).content == QUEUED


async def test_chunks_below_the_limit(door: Door) -> None:
    """Chunks are no fault in themselves."""
    headers, content = binary(example())

    async def chunks() -> AsyncIterator[bytes]:
        for at in range(0, len(content), 7):
            yield content[at : at + 7]

    response = await door.client.post("/", content=chunks(), headers=headers)
    assert (response.status_code, response.content) == (202, QUEUED)


@pytest.mark.parametrize("error", [web.RequestPayloadError("broken"), TransferEncodingError("broken")])
async def test_broken_framing(door: Door, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    """What aiohttp may find in the middle of a body is the sender's fault as well."""

    async def read(_: web.BaseRequest) -> bytes:
        raise error

    monkeypatch.setattr(web.BaseRequest, "read", read)
    answer = await door.exchange(raw_post(raw_binary(), binary(example()).content)[:-1])
    assert (answer.status, [error["field"] for error in json.loads(answer.body)["errors"]]) == (400, ["body"])
    assert [letter["event"]["id"] for letter in await door.letters()] == ["e-1"]


# --- compressed -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("coding", ["gzip", "GZip", "x-gzip"])
async def test_compressed_body(door: Door, coding: str) -> None:
    """Some senders compress."""
    headers, content = binary(example())
    response = await door.deliver(Delivery(headers, gzip.compress(content)), headers={"Content-Encoding": coding})
    assert (response.status_code, response.content) == (202, QUEUED)


async def test_limit_of_a_compressed_body() -> None:
    """It is the size after decompression that counts, to the byte."""
    async with serving(intake=SMALL) as door:
        for size, status in [(4096, 202), (4097, 413)]:
            headers, content = padded(size)
            assert (await door.deliver(Delivery(headers, gzip.compress(content)), headers=GZIP)).status_code == status


async def test_64_mib_in_64_kib(door: Door) -> None:
    """A bomb is stopped before it is in memory."""
    bomb = gzip.compress(b" " * (64 * MIB), 1)
    with little_memory():
        response = await door.deliver(Delivery(binary(example()).headers, bomb), headers=GZIP)
    assert (response.status_code, fields_of(response)) == (413, ["body"])


@pytest.mark.parametrize(
    "content",
    [
        b"{}",
        b"",
        binary(example()).content,
        gzip.compress(b"{}")[:-9],
        gzip.compress(binary(example()).content)[:-1],
        gzip.compress(b"{}")[:10],
        gzip.compress(b"{}")[:-8] + b"checksum",
        gzip.compress(b"{}") + b"rubbish",
        zlib.compress(b"{}"),
    ],
    ids=["plain", "empty", "an event", "cut", "all but a byte", "header", "wrong sum", "rubbish behind", "deflate"],
)
async def test_not_what_its_encoding_says(door: Door, content: bytes) -> None:
    """The sender's fault, so a 4xx: a broker would repeat a 5xx for ever. And so it is kept."""
    response = await door.deliver(Delivery(binary(example()).headers, content), headers=GZIP)
    assert (response.status_code, fields_of(response)) == (400, ["body"])
    (letter,) = await door.letters()
    assert (letter["reason"], letter["event"]["id"]) == ("invalid", "e-1")
    assert (await door.deliver(binary(example()))).content == QUEUED


@pytest.mark.parametrize("coding", ["br", "zstd", "deflate", "compress", "gzip, gzip", "nonsense", "*"])
async def test_coding_that_we_do_not_take(door: Door, coding: str) -> None:
    """415 says what would do, and whatever is installed beside us changes nothing."""
    response = await door.deliver(binary(example()), headers={"Content-Encoding": coding})
    message = f'"{coding}" is not taken; send gzip or none'
    assert response.status_code == 415
    assert problem_of(response)["errors"] == [{"field": "Content-Encoding", "message": message}]
    assert [letter["event"]["id"] for letter in await door.letters()] == ["e-1"]
    assert (await door.deliver(binary(example()), headers={"Content-Encoding": "identity"})).content == QUEUED


# --- of another kind --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content_type",
    [
        "text/plain",
        "application/xml",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "application/octet-stream",
        "application/json; charset=latin-1",
        "application/cloudevents",
        "application/cloudevents+xml",
        "application/cloudevents+avro",
        "application/cloudevents+json; charset=utf-16",
        "nonsense",
    ],
)
async def test_no_content_type_of_ours(door: Door, content_type: str) -> None:
    """415, and a dead letter: the broker drops it."""
    response = await door.deliver(binary(example()), headers={"Content-Type": content_type})
    assert (response.status_code, fields_of(response)) == (415, ["Content-Type"])
    (letter,) = await door.letters()
    assert letter["reason"] == "not_a_cloudevent"
    assert door.queued() == []
    assert (await door.deliver(binary(example()))).content == QUEUED


@pytest.mark.parametrize(
    "content_type", ["application/cloudevents-batch+xml", "application/cloudevents-batch+json; charset=latin-1"]
)
async def test_no_batch_of_ours(door: Door, content_type: str) -> None:
    """A batch that cannot be read is of no other kind than an event that cannot."""
    response = await door.deliver(batch(example()), headers={"Content-Type": content_type})
    assert response.status_code == 415
    problem_of(response)
    assert [letter["reason"] for letter in await door.letters()] == ["not_a_cloudevent"]


async def test_data_of_another_kind(door: Door) -> None:
    """The envelope is ours, what it carries is not."""
    response = await door.deliver(structured(example({"datacontenttype": "text/xml", "data": "<a/>"})))
    assert (response.status_code, fields_of(response)) == (415, ["datacontenttype"])


@pytest.mark.parametrize(
    ("path", "method", "allow"),
    [
        *(("/", method, {"OPTIONS", "POST"}) for method in ("GET", "HEAD", "PUT", "PATCH", "DELETE", "TRACE")),
        ("/events", "GET", {"OPTIONS", "POST"}),
        *(
            (path, "POST", {"GET", "HEAD"})
            for path in ("/async-jobs/stats", "/async-jobs/c-1", "/health/ready", "/metrics")
        ),
        ("/async-jobs/dead-letters", "DELETE", {"GET", "HEAD"}),
    ],
)
async def test_method_not_allowed(door: Door, path: str, method: str, allow: set[str]) -> None:
    """405 says which methods there are."""
    response = await door.client.request(method, path)
    assert (response.status_code, set(response.headers["Allow"].split(","))) == (405, allow)
    assert response.headers["Content-Type"] == PROBLEM
    if method != "HEAD":
        document = problem_of(response)
        assert document == {"title": "Method Not Allowed", "status": 405, "detail": "Method Not Allowed"}


@pytest.mark.parametrize(
    "path", ["/nowhere", "/events/", "//", "/async-jobs", "/async-jobs/", "/..%2f", "/%00", "/%ff", "/health"]
)
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_not_found(door: Door, path: str, method: str) -> None:
    """404 as a problem."""
    answer = await door.exchange(raw_post([], path=path.encode()).replace(b"POST", method.encode()))
    assert (answer.status, answer.headers["content-type"]) == (404, PROBLEM)
    assert json.loads(answer.body) == {"title": "Not Found", "status": 404, "detail": "Not Found"}


# --- at another moment ------------------------------------------------------------------------------------------------


async def test_full() -> None:
    """After a short wait for a slot, 429; nothing is kept, so the event may come again."""
    async with serving(asyncJobCreator={"maxQueueSize": 2}, intake={"slotWait": "10ms"}) as door:
        for number in range(2):
            assert (await door.deliver(binary(numbered(number)))).status_code == 202
        response = await door.deliver(binary(numbered(2)))
        assert (response.status_code, response.headers["Retry-After"]) == (429, "1")
        assert problem_of(response) == {"title": "Too Many Requests", "status": 429, "detail": "the queue of 2 is full"}
        assert (await door.letters(), len(door.queued())) == ([], 2)
        await door.take_one()
        assert (await door.deliver(binary(numbered(2)))).content == QUEUED


async def test_no_wait_at_all() -> None:
    """``slotWait: 0ms``: who finds no slot is sent away at once, and is not asked to be back at once."""
    async with serving(asyncJobCreator={"maxQueueSize": 1}, intake={"slotWait": "0ms"}) as door:
        assert (await door.deliver(binary(numbered(0)))).status_code == 202
        response = await door.deliver(binary(numbered(1)))
        assert (response.status_code, response.headers["Retry-After"]) == (429, "1")


async def test_a_slot_that_becomes_free() -> None:
    """The wait is worth it: the slot goes to those who stand at the door, in their order."""
    async with serving(asyncJobCreator={"maxQueueSize": 1}, intake={"slotWait": "1h"}) as door:
        assert (await door.deliver(binary(numbered(0)))).status_code == 202
        waiting = []
        for number in (1, 2):
            waiting.append(asyncio.create_task(door.deliver(binary(numbered(number)))))
            await until(lambda: door.waiting_for_slot() == len(waiting))
        assert not any(task.done() for task in waiting)
        for task in waiting:
            await door.take_one()
            response = await task
            assert (response.status_code, response.content) == (202, QUEUED)
        assert [event.id for event in door.queued()] == ["e-2"]


async def test_full_is_no_excuse() -> None:
    """Bad events get their 400 and duplicates their 202 from a full queue too: neither needs a slot."""
    async with serving(asyncJobCreator={"maxQueueSize": 1}, intake={"slotWait": "1h"}) as door:
        assert (await door.deliver(binary(numbered(0)))).status_code == 202
        assert (await door.deliver(binary(numbered(0)))).content == QUEUED
        assert (await door.deliver(binary(numbered(1, {"data.priority": 0})))).status_code == 400


async def test_many_for_few_slots() -> None:
    """50 senders, 10 slots: 10 are taken and 40 come again, none of both and none of neither."""
    async with serving(asyncJobCreator={"maxQueueSize": 10}, intake={"slotWait": "10ms"}) as door:
        answers = await asyncio.gather(*(door.deliver(binary(numbered(number))) for number in range(50)))
        taken = {f"e-{number}" for number, answer in enumerate(answers) if answer.status_code == 202}
        assert sorted(answer.status_code for answer in answers) == [202] * 10 + [429] * 40
        assert {event.id for event in door.queued()} == taken
        stats = await door.get("/async-jobs/stats")
        assert (stats["accepted"], stats["refused"]) == (
            {"queue": 10, "direct": 0},
            {"queue_full": 40, "draining": 0, "http_off": 0, "journal": 0},
        )


async def test_draining(door: Door) -> None:
    """Nothing more is taken, good, bad or known; what is in stays in."""
    await door.deliver(binary(numbered(0)))
    door.parts.intake.close()
    for delivery in (binary(numbered(1)), binary(numbered(0)), structured({}), batch(numbered(2)), padded(2 * MIB)):
        response = await door.deliver(delivery)
        assert (response.status_code, response.headers["Retry-After"]) == (503, "1")
        assert problem_of(response)["title"] == "Service Unavailable"
    assert ([event.id for event in door.queued()], await door.letters()) == (["e-0"], [])
    assert problem_of(await door.deliver(binary(numbered(1)))) == {
        "title": "Service Unavailable",
        "status": 503,
        "detail": "shutting down",
    }
