"""A batch is as many events as it has elements: each has its own end, and the answer is the worst of theirs."""

import asyncio
from typing import Any

import pytest

from builder.flow.ports import LetterFilter
from tests.unit.http.door import PROBLEM, QUEUED, Door, batch, binary, example, numbered, problem_of, serving, until


def reports(*ids_and_states: tuple[str | None, str]) -> list[dict[str, Any]]:
    """What the answer says of events about which there is nothing more to say."""
    return [{"id": event_id, "status": state} for event_id, state in ids_and_states]


async def test_all_taken(door: Door) -> None:
    """202 says that every one is taken care of."""
    response = await door.deliver(batch(*(numbered(number) for number in range(3))))
    assert response.status_code == 202
    assert response.json() == {
        "status": "queued",
        "events": reports(("e-0", "queued"), ("e-1", "queued"), ("e-2", "queued")),
    }
    assert [event.id for event in door.queued()] == ["e-0", "e-1", "e-2"]


async def test_empty(door: Door) -> None:
    """Nothing asked for, nothing left to do (JSON batch format, section 4)."""
    response = await door.deliver(batch())
    assert (response.status_code, response.json()) == (202, {"status": "queued", "events": []})
    assert (door.queued(), await door.letters()) == ([], [])


async def test_good_and_bad(door: Door) -> None:
    """400 names what is wrong with whom; the good ones are taken, and need not come again."""
    response = await door.deliver(
        batch(
            numbered(0),
            numbered(1, {"data.priority": 0, "subject": ""}),
            7,
            {},
            numbered(4),
            numbered(5, {"type": "x"}),
        )
    )
    assert response.status_code == 400
    document = problem_of(response)
    assert document["detail"] == "4 of 6 events were not taken in"
    assert "errors" not in document
    assert [(report["id"], report["status"]) for report in document["events"]] == [
        ("e-0", "queued"),
        ("e-1", "rejected"),
        (None, "rejected"),
        (None, "rejected"),
        ("e-4", "queued"),
        ("e-5", "rejected"),
    ]
    fields = [[error["field"] for error in report.get("errors", [])] for report in document["events"]]
    assert fields[1] == ["subject", "data.priority"]
    assert [fields[0], fields[2][0], fields[4], fields[5]] == [[], "body", [], ["type"]]
    assert fields[3] == ["specversion", "id", "source", "type"]
    assert [event.id for event in door.queued()] == ["e-0", "e-4"]
    assert [letter["event"].get("id") for letter in await door.letters()] == ["e-5", None, None, "e-1"]


async def test_kept_elements_can_be_sent_again(door: Door) -> None:
    """A dead letter of a batch holds its own event, not the batch."""
    await door.deliver(batch(numbered(0), numbered(1, {"id": ""})))
    (letter,) = await door.parts.office.box.letters(LetterFilter(), 1000)
    assert letter.content_type == "application/cloudevents+json"
    again = await door.client.post("/", content=letter.body, headers={"Content-Type": letter.content_type})
    assert (again.status_code, problem_of(again)["errors"][0]["field"]) == (400, "id")


async def test_same_event_twice(door: Door) -> None:
    """A duplicate inside of one batch is a duplicate."""
    response = await door.deliver(batch(example(), example()))
    assert response.status_code == 202
    assert response.json()["events"] == reports(("e-1", "queued"), ("e-1", "queued"))
    assert len(door.queued()) == 1


async def test_full_in_the_middle() -> None:
    """429 says: again. What was taken is a duplicate then, so redelivery completes, slot by slot."""
    async with serving(asyncJobCreator={"maxQueueSize": 2}, intake={"slotWait": "1ms"}) as door:
        delivery = batch(*(numbered(number) for number in range(4)))
        response = await door.deliver(delivery)
        assert (response.status_code, response.headers["Retry-After"]) == (429, "1")
        document = problem_of(response)
        assert document["detail"] == "2 of 4 events were not taken in"
        full = {"status": "refused", "detail": "the queue of 2 is full"}
        assert document["events"] == [
            *reports(("e-0", "queued"), ("e-1", "queued")),
            {"id": "e-2", **full},
            {"id": "e-3", **full},
        ]
        assert await door.letters() == []
        for _ in range(2):
            await door.take_one()
        again = await door.deliver(delivery)
        assert (again.status_code, [event.id for event in door.queued()]) == (202, ["e-2", "e-3"])


async def test_full_and_bad() -> None:
    """With some of both, the sender must come again; the bad one is kept already."""
    async with serving(asyncJobCreator={"maxQueueSize": 1}, intake={"slotWait": "1ms"}) as door:
        response = await door.deliver(batch(numbered(0), {}, numbered(2)))
        assert response.status_code == 429
        assert [report["status"] for report in problem_of(response)["events"]] == ["queued", "rejected", "refused"]
        assert len(await door.letters()) == 1


async def test_draining(door: Door) -> None:
    """503 for all."""
    door.parts.intake.close()
    response = await door.deliver(batch(numbered(0), numbered(1)))
    assert (response.status_code, response.headers["Retry-After"]) == (503, "1")
    refused = {"status": "refused", "detail": "shutting down"}
    assert problem_of(response)["events"] == [{"id": "e-0", **refused}, {"id": "e-1", **refused}]


async def test_larger_than_the_queue() -> None:
    """A batch may wait for slots as one event may, and takes each that becomes free."""
    async with serving(asyncJobCreator={"maxQueueSize": 1}, intake={"slotWait": "1h"}) as door:
        delivery = asyncio.create_task(door.deliver(batch(*(numbered(number) for number in range(5)))))
        for _ in range(4):
            await until(door.waiting_for_slot)
            await door.take_one()
        response = await delivery
        assert (response.status_code, [event.id for event in door.queued()]) == (202, ["e-4"])


async def test_all_events_wait_no_longer_than_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """A slot now and then must not keep a sender for hours, whose own patience ends: here one comes every 40 minutes."""
    loop, later = asyncio.get_running_loop(), 0.0
    monkeypatch.setattr(loop, "time", lambda real=loop.time: real() + later)
    async with serving(asyncJobCreator={"maxQueueSize": 1}, intake={"slotWait": "1h"}) as door:
        delivery = asyncio.create_task(door.deliver(batch(*(numbered(number) for number in range(5)))))
        await until(door.waiting_for_slot)
        later += 40 * 60
        await door.take_one()
        await until(lambda: len(door.queued()) == 1)
        later += 40 * 60
        response = await delivery
        assert response.status_code == 429
        states = [report["status"] for report in problem_of(response)["events"]]
        assert states == ["queued", "queued", "refused", "refused", "refused"]


@pytest.mark.parametrize(
    ("content", "field"),
    [
        (b"", "body"),
        (b"{}", "body"),
        (b"7", "body"),
        (b"null", "body"),
        (b"[", "body"),
        (b"[{}, NaN]", "body"),
        (b"[" + b"{}," * 1000 + b"{}]", "body"),
        (b"[" * 100_000, "body"),
    ],
    ids=["empty", "object", "number", "null", "cut short", "NaN", "1001 events", "100,000 levels"],
)
async def test_not_a_batch(door: Door, content: bytes, field: str) -> None:
    """One fault of the whole batch is one dead letter."""
    response = await door.deliver(batch()._replace(content=content))
    assert (response.status_code, response.headers["Content-Type"]) == (400, PROBLEM)
    (report,) = problem_of(response)["events"]
    assert [error["field"] for error in report["errors"]] == [field]
    assert (door.queued(), len(await door.letters())) == ([], 1)


async def test_a_thousand_events(door: Door) -> None:
    """As many as a batch may hold, most of them bad, without a stumble."""
    response = await door.deliver(batch(*([{}] * 999), example()))
    assert response.status_code == 400
    states = [report["status"] for report in problem_of(response)["events"]]
    assert states == ["rejected"] * 999 + ["queued"]


async def test_correlation_id_of_a_batch(door: Door) -> None:
    """Its events have their own; the batch has the sender's or a new one."""
    made = await door.deliver(batch(numbered(0)))
    assert len(made.headers["X-Correlation-ID"]) == 32
    echoed = await door.deliver(batch(numbered(1)), headers={"X-Correlation-ID": "mine"})
    assert echoed.headers["X-Correlation-ID"] == "mine"
    assert (await door.get("/async-jobs/c-0"))["status"] == "queued"


async def test_single_after_batch(door: Door) -> None:
    """A sender may change its mode between two tries."""
    await door.deliver(batch(example()))
    assert (await door.deliver(binary(example()))).content == QUEUED
    assert len(door.queued()) == 1
