"""What queued events weigh: ``python -m benchmarks.memory_queued <count> <journal file>``."""

import asyncio
import os
import sys

from benchmarks import example
from benchmarks.children import report, resident
from benchmarks.door import Door
from builder import log
from builder.app import open_journal
from tests.building import settings

WARM_UP = 1000
SENDERS = 64
"""At once, so that the journal writes their events in groups."""


async def main(count: int, path: str) -> None:
    """Take 004's example in through the intake, as many different ones, with nobody at work behind the queue."""
    chosen = settings(asyncJobCreator={"maxQueueSize": WARM_UP + count}, journal={"path": path})
    log.configure(chosen.logging)
    async with open_journal(chosen, os.environ) as journal:
        door = Door.of(chosen, journal)
        await _fill(door, WARM_UP, "w")
        before = resident()
        await _fill(door, count, "q")
        report({"bytes": (resident() - before) / count, "queued": len(door.queue) - WARM_UP})


async def _fill(door: Door, count: int, prefix: str) -> None:
    events = example.events(count, prefix)

    async def send() -> None:
        for event in events:
            await door.intake.offer(event)

    await asyncio.gather(*(send() for _ in range(SENDERS)))


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), sys.argv[2]))
