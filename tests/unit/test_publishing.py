"""``publish``: how long it tries, and how it follows what it sent."""

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from builder.adapters.http_publisher import HttpPublisher
from builder.events.outgoing import Outgoing

pytestmark = pytest.mark.looptime


def events(count: int) -> list[Outgoing]:
    return [Outgoing(f"e-{number}", f"c-{number}", "a.type", {}, b"{}") for number in range(count)]


def publisher(answer: Callable[[httpx.Request], httpx.Response]) -> HttpPublisher:
    """Of a receiver that answers so."""
    return HttpPublisher(httpx.AsyncClient(base_url="http://builder", transport=httpx.MockTransport(answer)))


async def statuses(sender: HttpPublisher, count: int, patience: float) -> Counter[int | str]:
    return Counter([sent.status async for sent in sender.send_all(events(count), patience)])


async def test_a_service_that_never_takes_anything() -> None:
    """It is given up once for all, not for each event anew; the last answer is what is told of each."""
    sender = publisher(lambda _: httpx.Response(503, headers={"Retry-After": "5"}))
    assert await statuses(sender, 1000, 60) == {503: 1000}
    assert 50 <= asyncio.get_running_loop().time() <= 60


async def test_a_service_that_is_slow_but_goes_on() -> None:
    """As long as something goes through, patience does not end: this takes sixteen times as long as it."""
    room = 0

    def one_a_minute(_: httpx.Request) -> httpx.Response:
        nonlocal room
        taken = room < asyncio.get_running_loop().time() // 50
        room += taken
        return httpx.Response(202 if taken else 429, headers={} if taken else {"Retry-After": "1"})

    assert await statuses(publisher(one_a_minute), 20, 60) == {202: 20}
    assert asyncio.get_running_loop().time() >= 1000


class Builder:
    """Consumes from RabbitMQ; ``ready`` messages wait, and of events it has only the results in ``known``."""

    def __init__(self, ready: int) -> None:
        self.ready = ready
        self.away = False
        self.known: dict[str, str] = {}

    def __call__(self, request: httpx.Request) -> httpx.Response:
        if self.away:
            msg = "Connection refused"
            raise httpx.ConnectError(msg)
        name = request.url.path.rpartition("/")[2]
        if name == "stats":
            return httpx.Response(200, json={"broker": {"ready": self.ready, "held": 0}})
        if name in self.known:
            return httpx.Response(200, json={"status": self.known[name]})
        return httpx.Response(404, json={"detail": "not known"})


async def followed(builder: Builder, correlation_id: str) -> dict[str, Any]:
    """Over AMQP."""
    asks = publisher(builder)
    consumed = asyncio.create_task(asks.consumed())
    outcome = await asks.outcome(correlation_id, 3600, consumed.done)
    consumed.cancel()
    return outcome


async def test_a_rejected_event_is_not_waited_for() -> None:
    """Nobody tells its sender: but when the queue is empty and the builder does not know it, it never will."""
    builder = Builder(ready=1)
    outcome = asyncio.create_task(followed(builder, "c-1"))
    await asyncio.sleep(600)
    assert not outcome.done(), "it may still be in the queue"
    builder.ready = 0
    assert await outcome == {"correlation_id": "c-1", "status": "unknown", "message": "not known"}
    assert asyncio.get_running_loop().time() < 610


async def test_a_builder_that_restarts_is_waited_for() -> None:
    """It comes back, and has the event."""
    builder = Builder(ready=0)
    builder.away = True
    outcome = asyncio.create_task(followed(builder, "c-1"))
    await asyncio.sleep(60)
    builder.away, builder.known = False, {"c-1": "created"}
    assert (await outcome)["status"] == "created"
