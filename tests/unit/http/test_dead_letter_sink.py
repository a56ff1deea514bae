"""``POST /dead-letters``: what a Knative Trigger gave up on is kept, whatever it is, and can be sent again."""

import gzip

import pytest

from builder.models import RejectReason
from tests.unit.http.door import Delivery, Door, binary, numbered, serving, structured

MARKS = {"ce-knativeerrorcode": "429", "ce-knativeerrordest": "http://builder.knative-lambda-dev.svc/"}


async def test_kept_with_the_brokers_marks(door: Door) -> None:
    """Answered without a body, found with the broker's reason, sent again without its marks."""
    answer = await door.deliver(binary(numbered(1)), "/dead-letters", MARKS)
    assert (answer.status_code, answer.content) == (202, b"")
    assert door.queued() == []
    (letter,) = await door.letters()
    assert letter["reason"] == "undelivered"
    assert letter["message"] == "the broker gave it up: answer 429 of http://builder.knative-lambda-dev.svc/"
    assert letter["event"]["id"] == "e-1"
    assert letter["event"]["knativeerrorcode"] == "429"
    assert (await door.get("/async-jobs/stats"))["rejected"][RejectReason.UNDELIVERED] == 1
    assert (await door.client.post(f"/async-jobs/dead-letters/{letter['id']}/replay")).status_code == 202
    (event,) = door.queued()
    assert event.extensions == {"replayed": "true"}


async def test_delivered_twice(door: Door) -> None:
    """One letter."""
    for _ in range(2):
        assert (await door.deliver(structured(numbered(1)), "/dead-letters", MARKS)).status_code == 202
    assert len(await door.letters()) == 1


async def test_built_before(door: Door) -> None:
    """What the broker took for lost may have been built: a replay makes no second Job."""
    await door.deliver(binary(numbered(1)))
    await door.work()
    await door.deliver(binary(numbered(1)), "/dead-letters", MARKS)
    (letter,) = await door.letters()
    await door.client.post(f"/async-jobs/dead-letters/{letter['id']}/replay")
    await door.work()
    assert len(door.cluster._jobs) == 1


@pytest.mark.parametrize(
    "delivery",
    [
        Delivery({"Content-Type": "text/plain"}, b"no event at all"),
        Delivery({"Content-Type": "application/cloudevents+json"}, b"{"),
        Delivery({"Content-Encoding": "br"}, b"x"),
        Delivery({"Content-Type": "application/json"}, b"x" * 2**21),
        Delivery({"Content-Type": "application/json", "Content-Encoding": "gzip"}, gzip.compress(b"{}")[:-4]),
    ],
    ids=["no event", "broken", "unknown coding", "too large", "half a gzip"],
)
async def test_anything_is_kept(door: Door, delivery: Delivery) -> None:
    """A 4xx would make the broker forget it for good."""
    answer = await door.deliver(delivery, "/dead-letters", {**MARKS, "ce-knativeerrordata": "y" * 5000})
    assert answer.status_code == 202
    (letter,) = await door.letters()
    assert letter["reason"] == "undelivered"
    assert len(letter["event"]["knativeerrordata"]) == 1024


async def test_not_in_memory() -> None:
    """Where no disk keeps it, the broker is told to keep it itself."""
    async with serving(custody="sender") as door:
        answer = await door.deliver(binary(numbered(1)), "/dead-letters")
        assert (answer.status_code, "custody: journal" in answer.json()["detail"]) == (503, True)
        assert await door.letters() == []
