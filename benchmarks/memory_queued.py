"""What queued events weigh: ``python -m benchmarks.memory_queued <count>``."""

import asyncio
import sys

from benchmarks import example
from benchmarks.children import report, resident
from benchmarks.door import Door
from builder import log
from tests.building import settings

WARM_UP = 1000


async def main(count: int) -> None:
    """Take 004's example in through the intake, as many different ones, with nobody at work behind the queue."""
    chosen = settings(asyncJobCreator={"maxQueueSize": WARM_UP + count})
    log.configure(chosen.logging)
    door = Door.of(chosen)
    await _fill(door, WARM_UP, "w")
    before = resident()
    await _fill(door, count, "q")
    report({"bytes": (resident() - before) / count, "queued": len(door.queue) - WARM_UP})


async def _fill(door: Door, count: int, prefix: str) -> None:
    for event in example.events(count, prefix):
        await door.intake.offer(event)


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
