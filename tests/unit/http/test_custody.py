"""Custody ``sender``: nothing is kept here, so the answer waits for the end, and the sender keeps the event until then."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest_asyncio

from builder.adapters.memory_cluster import MemoryCluster
from builder.errors import Denied, Transient
from builder.models import Manifest
from tests.unit.http.door import QUEUED, Door, batch, binary, numbered, problem_of, serving, structured, until

SENDER: dict[str, Any] = {"custody": "sender", "intake": {"custodyWait": "1h"}}
HASTY: dict[str, Any] = {"custody": "sender", "intake": {"custodyWait": "1ms"}}


class GatedCluster(MemoryCluster):
    """An API server that creates nothing before ``gate`` is open, and then first raises each of ``errors``."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.gate = asyncio.Event()
        self.errors: list[Exception] = []

    async def create(self, job: Manifest) -> None:
        """Create when the gate is open."""
        await self.gate.wait()
        if self.errors:
            raise self.errors.pop(0)
        await super().create(job)


@pytest_asyncio.fixture
async def door() -> AsyncIterator[Door]:
    """A service whose senders wait as long as it takes; its workers rest."""
    async with serving(GatedCluster, **SENDER) as door:
        yield door


def gate(door: Door) -> GatedCluster:
    """The cluster of the door."""
    assert isinstance(door.cluster, GatedCluster)
    return door.cluster


def jobs(door: Door) -> list[str]:
    """The events whose Jobs exist."""
    return [job["metadata"]["annotations"]["build.notifi.network/event-id"] for job in door.cluster.jobs()]


async def test_answer_means_that_the_job_exists(door: Door) -> None:
    """202 comes after the Job, not before."""
    delivery = asyncio.create_task(door.deliver(binary(numbered(1))))
    async with door.working():
        await until(lambda: any(door.parts.pool.busy.values()))
        assert (delivery.done(), jobs(door)) == (False, [])
        gate(door).gate.set()
        response = await delivery
    assert (response.status_code, response.content) == (202, QUEUED)
    assert (response.headers["X-Correlation-ID"], jobs(door)) == ("c-1", ["e-1"])


async def test_not_settled_in_time() -> None:
    """503 and come again; the work goes on, and the redelivery finds it done."""
    async with serving(GatedCluster, **HASTY) as door, door.working():
        response = await door.deliver(binary(numbered(1)))
        assert (response.status_code, response.headers["Retry-After"]) == (503, "1")
        assert problem_of(response)["detail"] == "it is being worked on; keep it and send it again"
        assert [event.id for event in door.queued()] == ["e-1"]
        gate(door).gate.set()
        await until(lambda: not door.queued())
        again = await door.deliver(binary(numbered(1)))
        assert (again.status_code, again.content, jobs(door)) == (202, QUEUED, ["e-1"])
        assert (await door.get("/async-jobs/stats"))["outcomes"]["created"] == 1


async def test_redelivery_joins_the_running_item(door: Door) -> None:
    """A broker whose own time-out came first sends again: one item, and both get the answer when it is done."""
    first = asyncio.create_task(door.deliver(binary(numbered(1))))
    await until(door.queued)
    second = asyncio.create_task(door.deliver(structured(numbered(1))))
    await until(door.parts.stats.duplicates.total)
    assert len(door.queued()) == 1
    assert [first.done(), second.done()] == [False, False]
    gate(door).gate.set()
    await door.work()
    for response in (await first, await second):
        assert (response.status_code, response.content) == (202, QUEUED)
    assert jobs(door) == ["e-1"]


async def test_redelivery_finds_its_item_in_a_full_queue() -> None:
    """It needs no slot of its own."""
    async with serving(GatedCluster, **SENDER, asyncJobCreator={"maxQueueSize": 1}) as door:
        first = asyncio.create_task(door.deliver(binary(numbered(1))))
        await until(door.queued)
        second = asyncio.create_task(door.deliver(binary(numbered(1))))
        await until(door.parts.stats.duplicates.total)
        assert door.waiting_for_slot() == 0
        gate(door).gate.set()
        await door.work()
        assert ((await first).status_code, (await second).status_code) == (202, 202)


async def test_failure(door: Door) -> None:
    """503 with the reason, for its sender still has it; the letter is there to look at. A redelivery tries again."""
    gate(door).gate.set()
    gate(door).errors = [Denied("jobs.batch is forbidden: no", status=403) for _ in range(2)]
    async with door.working():
        for attempts in (1, 2):
            response = await door.deliver(binary(numbered(1)))
            assert (response.status_code, response.headers["Retry-After"]) == (503, "3600")
            assert problem_of(response)["detail"] == "it failed: jobs.batch is forbidden: no"
            (letter,) = await door.letters()
            assert (letter["reason"], letter["event"]["id"], letter["attempts"]) == ("forbidden", "e-1", attempts)
        mended = await door.deliver(binary(numbered(1)))
    assert (mended.status_code, jobs(door)) == (202, ["e-1"])


async def test_retries_are_part_of_the_wait(door: Door) -> None:
    """What the worker tries again is no failure yet."""
    gate(door).gate.set()
    gate(door).errors = [Transient("try again", status=500)]
    async with door.working():
        assert (await door.deliver(binary(numbered(1)))).status_code == 202
    assert (await door.get("/async-jobs/stats"))["retries"] == 1


async def test_rejected(door: Door) -> None:
    """What can never be built is answered at once."""
    response = await door.deliver(binary(numbered(1, {"data.priority": 0})))
    assert (response.status_code, len(await door.letters())) == (400, 1)


async def test_sender_that_hangs_up(door: Door) -> None:
    """The work goes on for the redelivery that will come."""
    reader, writer = await asyncio.open_connection(door.client.base_url.host, door.client.base_url.port)
    delivery = binary(numbered(1))
    head = [f"{name}: {value}" for name, value in {"Host": "builder", **delivery.headers}.items()]
    head += [f"Content-Length: {len(delivery.content)}", "", ""]
    writer.write("\r\n".join(["POST / HTTP/1.1", *head]).encode() + delivery.content)
    await until(door.queued)
    writer.close()
    await writer.wait_closed()
    assert await reader.read() == b""
    gate(door).gate.set()
    await door.work()
    assert (await door.deliver(binary(numbered(1)))).status_code == 202
    assert jobs(door) == ["e-1"]


# --- batches ----------------------------------------------------------------------------------------------------------


async def test_batch(door: Door) -> None:
    """All are taken in before any is waited for, and the answer comes when all have their Jobs."""
    delivery = asyncio.create_task(door.deliver(batch(*(numbered(number) for number in range(3)))))
    await until(lambda: len(door.queued()) == 3)
    gate(door).gate.set()
    await door.work()
    response = await delivery
    assert [report["status"] for report in response.json()["events"]] == ["queued"] * 3
    assert (response.status_code, sorted(jobs(door))) == (202, ["e-0", "e-1", "e-2"])


async def test_batch_with_a_failure(door: Door) -> None:
    """503 for all says which; the redelivery tries that one again and finds the others done."""
    gate(door).gate.set()
    gate(door).errors = [Denied("no", status=403)]
    delivery = batch(numbered(0), numbered(1), numbered(2, {"data.priority": 0}))
    async with door.working():
        response = await door.deliver(delivery)
        again = await door.deliver(delivery)
    states = [report["status"] for report in problem_of(response)["events"]]
    assert (response.status_code, states) == (503, ["refused", "queued", "rejected"])
    assert problem_of(response)["events"][0]["detail"] == "it failed: no"
    states = [report["status"] for report in problem_of(again)["events"]]
    assert (again.status_code, states) == (400, ["queued", "queued", "rejected"])
    assert sorted(jobs(door)) == ["e-0", "e-1"]


async def test_batch_waits_no_longer_than_one() -> None:
    """The bound is that of the whole answer: its events wait side by side."""
    async with serving(GatedCluster, custody="sender", intake={"custodyWait": "50ms"}) as door:
        response = await door.deliver(batch(*(numbered(number) for number in range(40))))
        assert response.status_code == 503
        assert [report["status"] for report in problem_of(response)["events"]] == ["refused"] * 40
        assert len(door.queued()) == 40


# --- the end ----------------------------------------------------------------------------------------------------------


async def test_shutdown(door: Door) -> None:
    """Nothing new is taken, a redelivery neither; who waits already gets its answer while we drain."""
    waiting = asyncio.create_task(door.deliver(binary(numbered(1))))
    await until(door.queued)
    door.parts.intake.close()
    for number in (1, 2):
        refused = await door.deliver(binary(numbered(number)))
        assert (refused.status_code, problem_of(refused)["detail"]) == (503, "shutting down")
    gate(door).gate.set()
    async with door.working():
        assert await door.parts.pool.drain(60) == []
    assert ((await waiting).status_code, jobs(door)) == (202, ["e-1"])


async def test_journal_mode_does_not_wait() -> None:
    """There, 202 means that the event is kept, and nobody waits for more."""
    async with serving(GatedCluster) as door:
        assert (await door.deliver(binary(numbered(1)))).content == QUEUED
        assert (await door.deliver(binary(numbered(1)))).content == QUEUED
        assert len(door.queued()) == 1
