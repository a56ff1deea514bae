"""A worker's processor time for one event: as it is, with tracing off, and with no word of tracing in its code.

The cluster answers at once, so that nothing else is measured.
"""

import asyncio
import gc
import time
from collections.abc import Iterator
from itertools import islice
from unittest.mock import patch

from benchmarks import example
from benchmarks.children import report
from builder import app, log
from builder.adapters.memory_journal import MemoryJournal
from builder.events.request import build_request
from builder.flow.items import Item
from builder.flow.worker_pool import WorkerPool
from builder.jobs.conflict import Wanted
from builder.jobs.manifest import build_job
from builder.models import Event, Manifest, Outcome
from builder.stats import Histogram
from tests.building import settings

TURNS, BATCH = 20, 250


class Instant:
    """A cluster in which every name is free."""

    async def create(self, job: Manifest) -> None:
        """Do nothing."""

    async def get(self, name: str) -> Manifest | None:
        """Nothing has that name."""

    async def delete(self, name: str, uid: str, *, foreground: bool) -> None:
        """Do nothing."""

    async def probe(self) -> None:
        """Be there."""


class Untraced(WorkerPool):
    """What it is without the lines that ask for traces."""

    async def work(self, number: int) -> None:
        """See ``WorkerPool``."""
        while True:
            await self._outage.over()
            item = await self._queue.take()
            self.busy[number] = item
            await self._handle(item)
            self.busy[number] = None
            self._changed.set()

    def _wanted(self, item: Item) -> Wanted:
        request = build_request(item.event, item.accepted_at, self._settings.build, self._settings.intake)
        return Wanted(build_job(request, self._settings), request.source)

    def _observe(self, histogram: Histogram, seconds: float, item: Item) -> None:  # noqa: ARG002 -- as it is called
        histogram.observe(seconds)


async def main() -> None:
    """By turns, so that what drifts with time cancels out."""
    chosen = settings(asyncJobCreator={"workerCount": 5, "maxQueueSize": BATCH})
    log.configure(chosen.logging)
    sides = {"off": assembled(WorkerPool), "absent": assembled(Untraced)}
    events = example.events(2 * (TURNS + 2) * BATCH, "t")
    gc.collect()
    gc.freeze()
    for parts in sides.values():
        await cost(parts, events)  # warm up
    spent = dict.fromkeys(sides, 0.0)
    for turn in range(TURNS):
        for side in list(sides) if turn % 2 else reversed(sides):
            spent[side] += await cost(sides[side], events)
    report({side: seconds / (TURNS * BATCH) for side, seconds in spent.items()})


def assembled(kind: type[WorkerPool]) -> app.Parts:
    """A service whose workers are of that kind."""
    chosen = settings(asyncJobCreator={"workerCount": 5, "maxQueueSize": BATCH})
    journal = MemoryJournal(chosen.idempotency, chosen.dead_letters, asyncio.get_running_loop().time)
    with patch.object(app, "WorkerPool", kind):
        return app.assemble(chosen, Instant(), journal)


async def cost(parts: app.Parts, events: Iterator[Event]) -> float:
    """Seconds of processor time for what waits in the queue, which is filled first."""
    for event in islice(events, BATCH):
        await parts.intake.offer(event)
    before = parts.stats.outcomes[Outcome.CREATED]
    began = time.process_time()
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(parts.pool.work(number)) for number in parts.pool.busy]
        await parts.pool.drain(grace=100.0)
        for task in tasks:
            task.cancel()
    spent = time.process_time() - began
    if parts.stats.outcomes[Outcome.CREATED] - before != BATCH:
        raise ValueError(parts.stats.outcomes)
    return spent


if __name__ == "__main__":
    asyncio.run(main())
