"""A sender's connection: plain requests are answered at once, all others by aiohttp, and nobody can tell which."""

import asyncio

import pytest

from builder.adapters.web import connection
from builder.adapters.web.connection import Connection
from tests.unit.http.door import (
    QUEUED,
    Delivery,
    Door,
    batch,
    binary,
    example,
    numbered,
    read_answer,
    serving,
    structured,
    until,
)

GET = b"GET /health/live HTTP/1.1\r\nHost: builder\r\n\r\n"


def post(delivery: Delivery, *more: bytes, path: bytes = b"/") -> bytes:
    """A request as a broker sends it over a connection that it keeps."""
    lines = [f"{name}: {value}".encode() for name, value in delivery.headers.items()]
    head = [b"POST %s HTTP/1.1" % path, b"Host: builder", *lines, *more]
    return b"\r\n".join([*head, b"Content-Length: %d" % len(delivery.content), b"", delivery.content])


def event(event_id: str) -> bytes:
    """A plain request."""
    return post(binary(example({"id": event_id})))


@pytest.fixture
def handed_over(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """What aiohttp got to read at first, for each connection that it took over."""
    seen: list[bytes] = []
    hand_over = Connection._hand_over

    def spy(self: Connection, data: bytes) -> None:
        seen.append(data)
        hand_over(self, data)

    monkeypatch.setattr(Connection, "_hand_over", spy)
    return seen


async def test_a_broker_keeps_its_connection(door: Door, handed_over: list[bytes]) -> None:
    """One plain request after the other, good and bad, to both paths: aiohttp has nothing to do."""
    async with door.connected() as (reader, writer):
        for request, status in [
            (event("e-1"), 202),
            (event("e-1"), 202),
            (post(structured(example({"id": "e-2"})), path=b"/events"), 202),
            (post(batch(example(), numbered(3))), 202),
            (post(binary(example({"data.priority": 11}))), 400),
            (event("e-4"), 202),
        ]:
            writer.write(request)
            assert (await read_answer(reader)).status == status
    assert handed_over == []
    assert sorted(one.id for one in door.queued()) == sorted(["e-1", "e-2", "e-3", "e-4"])


@pytest.mark.parametrize(
    "delivery",
    [
        binary(example()),
        binary(example({"id": ""})),
        structured(example({"data.parameters.source_url": "file:///etc/passwd"})),
        Delivery({"Content-Type": "text/plain"}, b"hello"),
        Delivery({**binary(example()).headers, "Prefer": "reply"}, binary(example()).content),
        Delivery({**binary(example()).headers, "Content-Encoding": "br"}, binary(example()).content),
    ],
)
async def test_both_roads_answer_alike(door: Door, delivery: Delivery, handed_over: list[bytes]) -> None:
    """The same request over a connection that is kept, and over one that aiohttp answers."""
    same = b"X-Correlation-ID: mine"
    ours = await door.exchange(post(delivery, same))
    assert handed_over == []
    theirs = await door.exchange(post(delivery, same, b"Connection: close"))
    assert len(handed_over) == 1
    assert (ours.status, ours.body) == (theirs.status, theirs.body)
    assert set(theirs.headers) - set(ours.headers) <= {"server", "connection", "content-type"}
    if ours.body:
        assert ours.headers["content-type"] == theirs.headers["content-type"]
    assert ours.headers["x-correlation-id"] == theirs.headers["x-correlation-id"] == "mine"


@pytest.mark.parametrize(
    "more",
    [
        [b"Prefer: wait=1", b"prefer: reply"],
        ["X-Name: Zoë".encode()],
        [b"Expect: 100-continue"],
        [b"X-%d: x" % number for number in range(64)],
    ],
    ids=["twice", "not ASCII", "unusual", "too many"],
)
async def test_unusual_headers_are_left_to_aiohttp(door: Door, more: list[bytes], handed_over: list[bytes]) -> None:
    """With all of the request; the event is taken in all the same."""
    request = post(binary(example()), *more)
    answers = await door.exchange_all(request, 2 if more == [b"Expect: 100-continue"] else 1)
    assert answers[-1].status == 202
    assert handed_over == [request]


@pytest.mark.parametrize(
    ("requests", "statuses"),
    [
        (event("e-1") + event("e-2"), [202, 202]),
        (event("e-1") + GET + event("e-2"), [202, 200, 202]),
        (GET + event("e-1"), [200, 202]),
        (b"\r\n" + event("e-1"), [202]),
        (b"nonsense\r\n\r\n", [400]),
        (event("e-1").replace(b"HTTP/1.1", b"HTTP/1.0"), [202]),
    ],
    ids=["two at once", "something else between", "something else first", "blank line first", "no HTTP", "old HTTP"],
)
async def test_whatever_comes_in_one_piece(door: Door, requests: bytes, statuses: list[int]) -> None:
    """Each request is answered once, in order."""
    assert [one.status for one in await door.exchange_all(requests, len(statuses))] == statuses


@pytest.mark.parametrize("size", [1, 7, 100, 300])
async def test_requests_in_pieces(door: Door, size: int) -> None:
    """However the bytes of three requests are cut."""
    data = event("e-1") + event("e-2") + event("e-3")
    async with door.connected() as (reader, writer):
        for at in range(0, len(data), size):
            writer.write(data[at : at + size])
            await writer.drain()
            await asyncio.sleep(0)
        assert [(await read_answer(reader)).status for _ in range(3)] == [202, 202, 202]
    assert [one.id for one in door.queued()] == ["e-1", "e-2", "e-3"]


@pytest.mark.parametrize("extra", [event("e-3")[:50], event("e-3")[:-1]], ids=["in its head", "in its body"])
async def test_a_request_and_the_beginning_of_the_next(door: Door, extra: bytes) -> None:
    """What came too early is not lost, after a plain request too."""
    async with door.connected() as (reader, writer):
        writer.write(event("e-1"))
        assert (await read_answer(reader)).status == 202
        writer.write(event("e-2") + extra)
        assert (await read_answer(reader)).status == 202
        writer.write(event("e-3")[len(extra) :])
        assert (await read_answer(reader)).status == 202
    assert [one.id for one in door.queued()] == ["e-1", "e-2", "e-3"]


async def test_the_next_request_before_the_answer() -> None:
    """A sender that does not wait gets its answers in order."""
    one_slot = serving(asyncJobCreator={"maxQueueSize": 1}, intake={"slotWait": "1m"})
    async with one_slot as door, door.connected() as (reader, writer):
        writer.write(event("e-1"))
        assert (await read_answer(reader)).status == 202
        writer.write(event("e-2"))
        await until(door.waiting_for_slot)
        writer.write(event("e-3") + GET)
        writer.write(GET)
        await door.take_one()
        assert (await read_answer(reader)).status == 202
        await until(door.waiting_for_slot)
        await door.take_one()
        assert [(await read_answer(reader)).status for _ in range(3)] == [202, 200, 200]


async def test_a_sender_that_hangs_up(door: Door) -> None:
    """Its event was taken in: only the answer is lost."""
    async with door.connected() as (_, writer):
        writer.write(event("e-1"))
        await writer.drain()
        writer.transport.abort()
    await until(door.queued)
    assert (await door.exchange(event("e-2"))).status == 202


async def test_a_silent_connection_is_closed(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    """At first, and after an answer."""
    monkeypatch.setattr(connection, "_MAX_IDLE", 0.01)
    async with door.connected() as (reader, _):
        assert await reader.read() == b""
    async with door.connected() as (reader, writer):
        writer.write(event("e-1"))
        assert b"202 Accepted" in await reader.read()


async def test_the_end_of_the_service() -> None:
    """Idle connections are closed, and who is being answered is answered."""
    async with serving(asyncJobCreator={"maxQueueSize": 1}, intake={"slotWait": "1m"}) as door:
        idle_reader, idle_writer = await asyncio.open_connection(door.client.base_url.host, door.client.base_url.port)
        reader, writer = await asyncio.open_connection(door.client.base_url.host, door.client.base_url.port)
        writer.write(event("e-1"))
        assert (await read_answer(reader)).status == 202
        writer.write(event("e-2"))
        await until(door.waiting_for_slot)
        room = asyncio.create_task(door.take_one())
    await room
    assert await idle_reader.read() == b""
    assert b"202 Accepted" in await reader.read()
    for one in (idle_writer, writer):
        one.close()
        await one.wait_closed()


async def test_a_request_that_is_larger_than_a_piece(door: Door) -> None:
    """It comes in several pieces anyway, and is aiohttp's."""
    environment = {f"V{number}": "x" * 4000 for number in range(16)}
    answer = await door.exchange(post(structured(example({"data.parameters.environment": environment}))))
    assert (answer.status, answer.body) == (202, QUEUED)
