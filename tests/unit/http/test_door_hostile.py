"""Whatever comes over the wire, the service answers with a 4xx at most, keeps its head, and serves the next one."""

import asyncio
import json
import logging
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.http.door import (
    QUEUED,
    Delivery,
    Door,
    batch,
    binary,
    example,
    numbered,
    problem_of,
    raw_binary,
    raw_post,
    read_answer,
    serving,
    structured,
    until,
)

BODY = binary(example()).content


async def assert_alive(door: Door) -> None:
    """The next honest event is taken."""
    assert (await door.deliver(binary(example()))).content == QUEUED


# --- no HTTP ----------------------------------------------------------------------------------------------------------

NO_HTTP = {
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    "rubbish": b"hello\r\n\r\n",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "NUL in a value": raw_post([*raw_binary(), b"ce-subject: a\0b"], BODY),
    "CR in a value": raw_post([*raw_binary(), b"ce-subject: a\rb"], BODY),
    "folded value": raw_post([*raw_binary(), b"ce-subject: a", b" b"], BODY),
    "name of no letters": raw_post([*raw_binary(), "ce-füß: x".encode()], BODY),
    "space before the colon": raw_post([*raw_binary(), b"ce-subject : x"], BODY),
    "two lengths": raw_post([*raw_binary(), b"Content-Length: 7"], BODY),
    "negative length": raw_post(raw_binary()).replace(b"Content-Length: 0", b"Content-Length: -1"),
    "length of no number": raw_post(raw_binary()).replace(b"Content-Length: 0", b"Content-Length: 0x10"),
    "length and chunks": raw_post([*raw_binary(), b"Transfer-Encoding: chunked"], BODY),
    "chunks of rubbish": raw_post([*raw_binary(), b"Transfer-Encoding: chunked"], b"zz\r\n").replace(
        b"Content-Length: 4\r\n", b""
    ),
    "two content types": raw_post([*raw_binary(), b"Content-Type: a/b", b"Content-Type: application/json"], BODY),
    "200 headers": raw_post([*raw_binary(), *(b"x-%d: x" % number for number in range(200))], BODY),
    "header of 20 kB": raw_post([*raw_binary(), b"ce-subject: " + b"a" * 20_000], BODY),
    "URL of 10 kB": raw_post(raw_binary(), BODY, path=b"/" + b"a" * 10_000),
}


@pytest.mark.parametrize("request_bytes", NO_HTTP.values(), ids=NO_HTTP)
async def test_no_http(door: Door, request_bytes: bytes) -> None:
    """What is no HTTP, or could be read in two ways (request smuggling), ends at the parser: it is no event yet."""
    answer = await door.exchange(request_bytes)
    assert (answer.status, answer.headers["content-type"]) == (400, "application/problem+json")
    assert json.loads(answer.body)["detail"].startswith("cannot be read as HTTP: ")
    assert (door.queued(), await door.letters()) == ([], [])
    await assert_alive(door)


@pytest.mark.parametrize("method", ["CONNECT", "TRACE", "PROPFIND", "LINK", "BREW", "post"])
async def test_other_methods(door: Door, method: str) -> None:
    """Those of other programs, of nobody, and in another case, which makes another method."""
    answer = await door.exchange(b"%s / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n" % method.encode())
    assert answer.status in {400, 404, 405}
    await assert_alive(door)


async def test_http_1_0(door: Door) -> None:
    """Old probes speak it."""
    answer = await door.exchange(raw_post(raw_binary(), BODY).replace(b"HTTP/1.1", b"HTTP/1.0"))
    assert (answer.status, answer.body) == (202, QUEUED)


async def test_pipelined_requests(door: Door) -> None:
    """Two requests in one write are two events."""
    requests = [raw_post(raw_binary(id=b"p-%d" % number), BODY) for number in range(2)]
    answers = await door.exchange_all(requests[0].replace(b"Connection: close\r\n", b"") + requests[1], 2)
    assert [(answer.status, answer.body) for answer in answers] == [(202, QUEUED)] * 2
    assert [event.id for event in door.queued()] == ["p-0", "p-1"]


# --- half requests ----------------------------------------------------------------------------------------------------

HALVES = {
    "nothing": b"",
    "half a line": b"POS",
    "half the headers": raw_post(raw_binary(), BODY)[:80],
    "half the body": raw_post(raw_binary(), BODY)[:-100],
    "half a chunk": raw_post([*raw_binary(), b"Transfer-Encoding: chunked"], b"ff\r\nabc").replace(
        b"Content-Length: 7\r\n", b""
    ),
}


@pytest.mark.parametrize("half", HALVES.values(), ids=HALVES)
@pytest.mark.parametrize("abort", [False, True])
async def test_sender_hangs_up(door: Door, half: bytes, caplog: pytest.LogCaptureFixture, *, abort: bool) -> None:
    """Half an event is none: not queued, not kept, no stack trace in the log. The sender will come again."""
    for _ in range(3):
        _, writer = await asyncio.open_connection(door.client.base_url.host, door.client.base_url.port)
        writer.write(half)
        await writer.drain()
        if abort:
            writer.transport.abort()
        writer.close()
    if half.startswith(b"POST") and b"\r\n\r\n" in half:
        await until(lambda: door.parts.stats.answers["4xx"] == 3)
    await assert_alive(door)
    assert (len(door.queued()), await door.letters()) == (1, [])
    assert [record.message for record in caplog.records if record.levelno >= logging.WARNING] == []


async def test_sender_does_not_wait_for_its_answer() -> None:
    """An event that came whole is taken, even if its sender is gone by then: its redelivery is a duplicate."""
    async with serving(asyncJobCreator={"maxQueueSize": 1}, intake={"slotWait": "1h"}) as door:
        await door.deliver(binary(numbered(0)))
        _, writer = await asyncio.open_connection(door.client.base_url.host, door.client.base_url.port)
        writer.write(raw_post(raw_binary(), BODY))
        await until(door.waiting_for_slot)
        writer.transport.abort()
        writer.close()
        await door.take_one()
        await until(lambda: [event.id for event in door.queued()] == ["e-1"])
        await assert_alive(door)


# --- injection --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "line",
    [
        b"X-Correlation-ID: a%0d%0aCe-Type: evil",
        b"X-Correlation-ID: a\\r\\nCe-Type: evil",
        b"Prefer: reply\x0bCe-Type: evil",
        b"ce-correlationid: a%0d%0aCe-Type: evil",
        b"WebHook-Request-Origin: a%0d%0aCe-Type: evil",
    ],
)
async def test_header_injection(door: Door, line: bytes) -> None:
    """No header of ours comes from inside a value of theirs."""
    for request in (raw_post([*raw_binary(), line], BODY), raw_post([line])):
        answer = await door.exchange(request)
        assert answer.status in {202, 400}
        assert not any(name in answer.headers for name in ("ce-type", "set-cookie"))


@pytest.mark.parametrize(
    "text", ["<script>alert(1)</script>", "\N{RIGHT-TO-LEFT OVERRIDE}", "\x1b[31mred", '"},{"x":"']
)
async def test_answers_are_data(door: Door, text: str) -> None:
    """What a sender wrote comes back inside JSON text in ASCII, under a type that no browser renders."""
    responses = [
        await door.deliver(structured(example({"type": text, "data.parameters.runtime": text}))),
        await door.client.get("/async-jobs/dead-letters"),
        await door.client.get(f"/async-jobs/{quote(text, safe='')}"),
    ]
    for response in responses:
        assert response.headers["Content-Type"] in {"application/problem+json", "application/json"}
        assert response.content.isascii()
        assert not any(byte < 0x20 for byte in response.content.rstrip(b"\n"))
        response.json()


async def test_expect_continue(door: Door) -> None:
    """As curl does, a sender asks before it sends much; whoever expects something else gets a 417."""
    head, body = raw_post([*raw_binary(), b"Expect: 100-continue"], BODY).split(b"\r\n\r\n")
    async with door.connected() as (reader, writer):
        writer.write(head + b"\r\n\r\n")
        assert (await read_answer(reader)).status == 100
        writer.write(body)
        assert (await read_answer(reader)).status == 202
    head, _ = raw_post([*raw_binary(), b"Expect: cake"], BODY).split(b"\r\n\r\n")
    assert (await door.exchange(head + b"\r\n\r\n")).status == 417
    await assert_alive(door)


async def test_a_body_that_does_not_come() -> None:
    """Who holds a connection and sends nothing is not waited for."""
    async with serving(intake={"bodyTimeout": "10ms"}) as door:
        answer = await door.exchange(raw_post(raw_binary(), BODY)[:-1])
        assert (answer.status, door.queued()) == (408, [])
        await assert_alive(door)


# --- a thousand bodies ------------------------------------------------------------------------------------------------

TOKENS = [b'"', b"\\", b"{", b"}", b"[", b"]", b":", b",", b"\0", b"\xff", b"null", b"NaN", b"1e400", b"-0", b"\\ud800", b"9" * 400]  # fmt: skip
PATHS = [
    *("id", "source", "type", "specversion", "subject", "time", "data", "data_base64", "dataschema", "datacontenttype"),
    *(
        f"data.{name}"
        for name in ("third_party_id", "parser_id", "correlation_id", "job_name", "priority", "parameters")
    ),
    *(f"data.parameters.{name}" for name in ("priority", "build_type", "runtime", "source_url", "build_timeout")),
    *(f"data.parameters.{name}" for name in ("environment", "ref", "sub_path", "dockerfile", "unknown")),
    *("data.parameters.environment.NODE_ENV", "extension", "traceparent", "knativeerrordata"),
]
TYPES = ["application/json", "application/cloudevents+json", "application/cloudevents-batch+json", "text/plain", "%"]
HONEST = [structured(example()), binary(example()), batch(example(), numbered(2))]

scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
patches = st.lists(
    st.tuples(st.integers(0, 999), st.sampled_from(TOKENS) | st.binary(max_size=4), st.integers(0, 8)),
    min_size=1,
    max_size=3,
)


def replaced(number: int, path: str, value: object) -> list[Delivery]:
    """An event with any JSON in place of a member, five ways."""
    event = numbered(number, {path: value})
    last = binary(event) if path.startswith("data.") else structured({"data": event})
    return [structured(event), batch(event), batch(event, event), structured([event]), last]


def mutated(edits: list[tuple[int, bytes, int]], content_type: str) -> list[Delivery]:
    """Five honest deliveries with some bytes changed, two of them under another type."""
    deliveries = []
    for headers, honest in HONEST:
        content = honest
        for permille, patch, length in edits:
            start = len(content) * permille // 1000
            content = content[:start] + patch + content[start + length :]
        deliveries.append(Delivery(headers, content))
    renamed = [Delivery({**headers, "Content-Type": content_type}, content) for headers, content in deliveries[:2]]
    return [*deliveries, *renamed]


async def test_a_thousand_bodies() -> None:
    """Never a 5xx; what got a 202 can be built; the service is alive after all of them."""
    loop = asyncio.get_running_loop()

    async def deliver_all(deliveries: list[Delivery]) -> None:
        for response in await asyncio.gather(*map(door.deliver, deliveries)):
            assert response.status_code in {202, 400, 415}
            assert response.status_code == 202 or problem_of(response)

    @settings(max_examples=200, deadline=None)
    @given(
        deliveries=st.builds(replaced, st.integers(0, 999), st.sampled_from(PATHS), values)
        | st.builds(mutated, patches, st.sampled_from(TYPES))
    )
    def deliver(deliveries: list[Delivery]) -> None:
        asyncio.run_coroutine_threadsafe(deliver_all(deliveries), loop).result()

    async with serving(asyncJobCreator={"maxQueueSize": 2000}, intake={"slotWait": "0ms"}) as door:
        await asyncio.to_thread(deliver)  # hypothesis is not asynchronous, and one service shall see it all
        for item in door.parts.pool.unfinished():
            door.parts.pool._wanted(item)
        await assert_alive(door)
        assert door.parts.stats.answers.total() > 1000
        assert door.parts.stats.answers["5xx"] == 0
