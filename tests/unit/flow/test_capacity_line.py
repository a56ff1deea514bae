"""Where there is no room: one asks for all, in turns, and nobody is passed over."""

import asyncio

import pytest

from builder.adapters.memory_cluster import MemoryCluster
from builder.errors import QuotaExceeded
from builder.flow.capacity_line import CapacityLine
from builder.flow.items import Item, Wait
from builder.flow.ports import Cluster
from builder.models import FailureReason, Manifest, Outcome
from builder.settings import Memory
from tests import building
from tests.flow_parts import Flow, item

pytestmark = pytest.mark.looptime

WORDS = "exceeded quota: room, requested: count/jobs.batch=1, used: count/jobs.batch={0}, limited: count/jobs.batch={0}"
ENDLESS = Memory.model_validate({"buildTime": "100h"})


class Narrow:
    """A cluster with room for so many Jobs. Kubernetes looks at the quota before it looks at the name."""

    def __init__(self, cluster: Cluster, room: int) -> None:
        self.room = room
        self.made: list[str] = []
        self.calls = 0
        self._cluster = cluster
        self.delete = cluster.delete
        self.probe = cluster.probe

    async def create(self, job: Manifest) -> None:
        self.calls += 1
        await asyncio.sleep(0.005)
        if len(self.made) >= self.room:
            raise QuotaExceeded(WORDS.format(self.room), status=403)
        self.made.append(job["metadata"]["name"])
        await self._cluster.create(job)

    async def get(self, name: str) -> Manifest | None:
        self.calls += 1
        await asyncio.sleep(0.005)
        return await self._cluster.get(name)


def flow(cluster: Cluster) -> Flow:
    """Room for many in the queue, and none to retry."""
    return Flow(cluster, building.settings(asyncJobCreator={"maxQueueSize": 10_000, "maxRetries": 0}))


async def send(flow: Flow, count: int, party: str = "acme") -> None:
    """So many events of one third party, each for a target of its own."""
    for number in range(count):
        await flow.intake.offer(building.event(f"{party}-{number}", target=(party, f"parser{number}")))


async def all_waiting(flow: Flow, count: int) -> None:
    """Return when so many are set aside for want of room."""
    while flow.pool.room.waiting[Wait.CAPACITY] < count:  # noqa: ASYNC110 -- virtual time costs nothing
        await asyncio.sleep(0.01)  # of virtual time


async def test_five_thousand_ask_no_more_than_one() -> None:
    """While there is no room: each looks at its name once, then one asks, every few seconds, for all."""
    async with MemoryCluster(ENDLESS) as cluster:
        narrow = Narrow(cluster, room=0)
        async with flow(narrow) as running:
            await send(running, 5000)
            await all_waiting(running, 5000)
            entering = narrow.calls
            await asyncio.sleep(600)
            asking = narrow.calls - entering
    assert entering <= 5000 + 20
    assert asking <= 2 * 600 / 2.5 + 20
    assert running.stats.retries == 0


async def test_all_are_built_as_soon_as_there_is_room_and_in_turns() -> None:
    """A third party that came late with little is not behind the other's thousands."""
    async with MemoryCluster(ENDLESS) as cluster:
        narrow = Narrow(cluster, room=0)
        async with flow(narrow) as running:
            await send(running, 1000, "acme")
            await send(running, 10, "globex")
            await all_waiting(running, 1010)
            narrow.room = 40
            await asyncio.sleep(60)
            first = narrow.made.copy()
            assert running.pool.line.refusal == WORDS.format(40)
            assert running.pool.room.waiting[Wait.CAPACITY] == 970
            narrow.room = 2000
            await asyncio.sleep(30)
    assert (len(first), sum("globex" in name for name in first)) == (40, 10)
    assert (len(narrow.made), running.stats.outcomes[Outcome.CREATED]) == (1010, 1010)
    assert running.pool.line.refusal is None
    assert len(running.pool.line) == running.pool.room.waiting[Wait.CAPACITY] == 0


async def test_who_comes_anew_goes_to_the_end_of_the_line() -> None:
    """Room that others wait for is not taken by whoever happens to come in that moment."""
    async with MemoryCluster(ENDLESS) as cluster:
        narrow = Narrow(cluster, room=0)
        async with flow(narrow) as running:
            await send(running, 3)
            await all_waiting(running, 3)
            narrow.room = 1
            await running.intake.offer(building.event("new", target=("acme", "new")))
            await all_waiting(running, 4)
            await asyncio.sleep(30)
    assert len(narrow.made) == 1
    assert "kaniko-job-acme-new" not in narrow.made


async def test_nobody_waits_longer_than_the_bound() -> None:
    """After ``capacityTimeout`` each ends as a dead letter, with the API server's words; not one before."""
    async with MemoryCluster(ENDLESS) as cluster, flow(Narrow(cluster, room=0)) as running:
        await send(running, 100)
        await all_waiting(running, 100)
        await asyncio.sleep(3590)
        assert running.stats.outcomes[Outcome.FAILED] == 0
        await asyncio.sleep(20)
        letters = await running.letters()
    assert [(letter.reason, letter.message) for letter in letters] == [(FailureReason.QUOTA, WORDS.format(0))] * 100
    assert len(running.pool.line) == 0


async def test_whose_time_is_over_while_no_worker_is_free_holds_up_nobody() -> None:
    """It is in the queue again when the line calls it; when it has been tried, the next is called."""
    calls: list[Item] = []
    line = CapacityLine(calls.append, draw=lambda: 0.5)
    first, second = item("first"), item("second")
    for one in (first, second):
        line.join(one, WORDS)
    await asyncio.sleep(10)
    assert (calls, line.before(first), line.before(second)) == ([first], None, WORDS)
    line.passed(second, found_room=False)
    line.passed(first, found_room=False)
    assert (len(line), line.refusal) == (0, None)
    line.close()
