"""What senders and tracers say beside the event: the webhook's handshake, correlation ids, traces."""

import json
from typing import Any

import pytest

from tests.unit.http.door import (
    Answer,
    Door,
    batch,
    binary,
    example,
    numbered,
    raw_binary,
    raw_post,
    serving,
    structured,
    until,
)

TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
OTHER_TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"


# --- the handshake ----------------------------------------------------------------------------------------------------


def options(*lines: bytes) -> bytes:
    """A raw OPTIONS request."""
    return b"\r\n".join([b"OPTIONS / HTTP/1.1", b"Host: builder", b"Connection: close", *lines, b"", b""])


@pytest.mark.parametrize("path", ["/", "/events"])
async def test_handshake(door: Door, path: str) -> None:
    """CloudEvents' webhook specification, section 4: may I deliver here, and how fast? Yes; a full queue says so itself."""
    asked = {"WebHook-Request-Origin": "eventemitter.example.com", "WebHook-Request-Rate": "120"}
    response = await door.client.options(path, headers=asked)
    assert (response.status_code, response.content) == (200, b"")
    said = {name: value for name, value in response.headers.items() if name.startswith("webhook") or name == "allow"}
    assert said == {
        "allow": "POST, OPTIONS",
        "webhook-allowed-origin": "eventemitter.example.com",
        "webhook-allowed-rate": "*",
    }


async def test_options_without_a_question(door: Door) -> None:
    """Nobody asked for a permission, so none is given; a probe gets its methods."""
    response = await door.client.options("/")
    assert (response.status_code, response.headers["Allow"]) == (200, "POST, OPTIONS")
    assert not [name for name in response.headers if name.startswith("webhook")]


@pytest.mark.parametrize("origin", [b"", b"\xff\xfe", "é.example".encode(), b"a\tb", "\N{ROCKET}".encode()])
async def test_handshake_with_a_strange_origin(door: Door, origin: bytes) -> None:
    """What is no DNS name gets no permission, and no bytes that a header may not hold are sent back."""
    answer = await door.exchange(options(b"WebHook-Request-Origin: " + origin))
    assert (answer.status, answer.headers["allow"]) == (200, "POST, OPTIONS")
    assert not [name for name in answer.headers if name.startswith("webhook")]


async def test_escapes_in_an_origin_stay_escapes(door: Door) -> None:
    """Nothing is decoded on its way back."""
    answer = await door.exchange(options(b"WebHook-Request-Origin: a%0d%0aSet-Cookie: x"))
    assert answer.headers["webhook-allowed-origin"] == "a%0d%0aSet-Cookie: x"
    assert "set-cookie" not in answer.headers


# --- correlation ids --------------------------------------------------------------------------------------------------


async def test_correlation_id_is_echoed(door: Door) -> None:
    """The sender's own id comes back, from every route and with every status."""
    headers = {"X-Correlation-ID": "mine 7/é".replace("é", "e")}
    answers = [
        await door.deliver(binary(example()), headers=headers),
        await door.deliver(structured({}), headers=headers),
        await door.deliver(batch(), headers=headers),
        *[await door.client.get(path, headers=headers) for path in ("/metrics", "/nowhere", "/async-jobs/x", "/")],
        await door.client.options("/", headers=headers),
    ]
    assert [answer.status_code for answer in answers] == [202, 400, 202, 200, 404, 404, 405, 200]
    assert {answer.headers["X-Correlation-ID"] for answer in answers} == {"mine 7/e"}


@pytest.mark.parametrize(
    ("changes", "correlation_id"),
    [
        ({}, "c-1"),
        ({"correlationid": "from-the-extension"}, "c-1"),
        ({"data.correlation_id": None, "correlationid": "from-the-extension"}, "from-the-extension"),
        ({"data.correlation_id": None}, "e-1"),
    ],
)
async def test_correlation_id_of_the_event(door: Door, changes: dict[str, Any], correlation_id: str) -> None:
    """Without the header: the event's own, by which its result can be asked for at once."""
    response = await door.deliver(structured(example(changes)))
    assert response.headers["X-Correlation-ID"] == correlation_id
    assert (await door.get(f"/async-jobs/{correlation_id}"))["status"] == "queued"


async def test_correlation_id_is_made(door: Door) -> None:
    """Where there is none: 128 random bits, never the same twice."""
    made = [(await door.client.get("/health/live")).headers["X-Correlation-ID"] for _ in range(10)]
    assert len(set(made)) == 10
    assert all(len(bytes.fromhex(text)) == 16 for text in made)


HOSTILE = {
    "empty": b"",
    "too long": b"a" * 257,
    "much too long": b"a" * 8000,
    "tab": b"a\tb",
    "no UTF-8": b"a\xffb",
    "UTF-8": "é".encode(),
    "C1 control": b"a\xc2\x9bb",
    "bidi": "a\N{RIGHT-TO-LEFT OVERRIDE}b".encode(),
}


@pytest.mark.parametrize("sent", HOSTILE.values(), ids=HOSTILE)
async def test_hostile_correlation_id(door: Door, sent: bytes) -> None:
    """What a terminal, a log or a proxy might trip over is not sent back: the event's own id stands in."""
    answer = await door.exchange(raw_post([*raw_binary(), b"X-Correlation-ID: " + sent], binary(example()).content))
    assert (answer.status, answer.headers["x-correlation-id"]) == (202, "c-1")


async def test_escapes_stay_escapes(door: Door) -> None:
    """Nothing is decoded on its way back."""
    sent = b"a%0d%0aSet-Cookie: x=%00"
    answer = await door.exchange(raw_post([*raw_binary(), b"X-Correlation-ID: " + sent], binary(example()).content))
    assert (answer.headers["x-correlation-id"], "set-cookie" in answer.headers) == (sent.decode(), False)


async def test_event_id_that_fits_no_header(door: Door) -> None:
    """An event without correlation id is followed by its id, which may hold what a header may not."""
    response = await door.deliver(structured(example({"id": "é\N{ROCKET}", "data.correlation_id": None})))
    assert response.status_code == 202
    assert len(response.headers["X-Correlation-ID"]) == 32
    assert (await door.get("/async-jobs/é\N{ROCKET}"))["event"]["id"] == "é\N{ROCKET}"


# --- traces -----------------------------------------------------------------------------------------------------------


async def annotation(door: Door) -> str | None:
    """The trace of the one Job."""
    await door.work()
    (job,) = door.cluster.jobs()
    trace: str | None = job["metadata"]["annotations"].get("build.notifi.network/traceparent")
    return trace


@pytest.mark.parametrize("encode", [binary, structured, batch])
async def test_trace_goes_to_the_job(door: Door, encode: Any) -> None:
    """Who follows a trace finds the Job at its end."""
    await door.deliver(encode(example()), headers={"Traceparent": TRACE, "tracestate": "vendor=1"})
    assert await annotation(door) == TRACE


@pytest.mark.parametrize("encode", [binary, structured])
async def test_trace_of_the_event_wins(door: Door, encode: Any) -> None:
    """The extension is the sender's; the header is the last hop's."""
    await door.deliver(encode(example({"traceparent": TRACE})), headers={"traceparent": OTHER_TRACE})
    assert await annotation(door) == TRACE


@pytest.mark.parametrize("trace", ["", "rubbish", TRACE.upper(), TRACE + "-x", "00-" + "0" * 32 + TRACE[35:], "é" * 9])
async def test_broken_trace(door: Door, trace: str) -> None:
    """A broken trace is no fault of the event: the Job has none."""
    answer: Answer = await door.exchange(
        raw_post([*raw_binary(), b"traceparent: " + trace.encode()], json.dumps(example()["data"]).encode())
    )
    assert answer.status == 202
    assert await annotation(door) is None


async def test_no_trace(door: Door) -> None:
    """Nothing is made up."""
    await door.deliver(binary(example()))
    assert await annotation(door) is None


async def test_each_event_has_its_own() -> None:
    """Many in one go do not share their annotations."""
    async with serving() as door:
        for number in range(10):
            await door.deliver(binary(numbered(number)), headers={"traceparent": f"{TRACE[:-3]}-{number:02x}"})
        async with door.working():
            await until(lambda: not door.queued())
        traces = {
            job["metadata"]["annotations"]["build.notifi.network/traceparent"]: job["metadata"]["name"][-1]
            for job in door.cluster.jobs()
        }
        assert traces == {f"{TRACE[:-3]}-{number:02x}": str(number) for number in range(10)}
