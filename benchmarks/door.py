"""The door of the service without its workers: what it is made of is real, only what is behind the queue is missing."""

import asyncio
import gc
from dataclasses import dataclass
from datetime import UTC, datetime

from builder.adapters.memory_journal import MemoryJournal
from builder.flow.build_queue import BuildQueue
from builder.flow.intake import Intake
from builder.flow.items import Done, Item
from builder.flow.ports import Journal
from builder.flow.results import Results
from builder.models import Outcome
from builder.settings import Settings
from builder.stats import Stats

JOBS_SHARE = 20
"""Of 10,000 events a second the API server makes Jobs of 500, at the best."""

SETTLED = Done(Outcome.CREATED, image="registry.example.com/image:tag")


@dataclass(frozen=True, slots=True)
class Door:
    """Intake, journal and queue, wired as ``builder.app`` wires them."""

    intake: Intake
    queue: BuildQueue
    results: Results
    stats: Stats

    @classmethod
    def of(cls, settings: Settings, journal: Journal | None = None) -> "Door":
        """With the journal in memory unless another is given. Needs a running event loop.

        Tunes the garbage collector as the service does when it starts.
        """
        clock = asyncio.get_running_loop().time
        stats = Stats()
        if journal is None:
            journal = MemoryJournal(settings.idempotency, settings.dead_letters, clock)
        queue = BuildQueue(settings.async_job_creator.max_queue_size)
        results = Results(settings.results.ttl, settings.results.max_entries, clock)
        intake = Intake(settings, journal, queue, results, stats, clock, now, crowded=lambda: False)
        gc.collect()
        gc.freeze()
        gc.set_threshold(50_000, 20, 100)
        return cls(intake, queue, results, stats)

    async def settle(self, item: Item) -> None:
        """What a worker does about an item when its Job exists, without the log line."""
        result = item.result(SETTLED, now(), "job")
        await item.receipt.settle(result)
        self.results.finish(item, result)

    async def drain(self) -> None:
        """Stand for the workers, for ever: take all items and settle one in ``JOBS_SHARE``.

        The others are let go: a service holds no more in memory than its queue has slots.
        """
        while True:
            for _ in range(JOBS_SHARE - 1):
                self.results.forget(await self.queue.take())
            await self.settle(await self.queue.take())


def now() -> datetime:
    """The time of day in UTC."""
    return datetime.now(UTC)
