"""What one event costs at the door, and one item at the queue's end, while more and more are queued."""

import asyncio
import time
from collections.abc import Iterator
from itertools import islice

from benchmarks import example
from benchmarks.children import report
from benchmarks.door import Door
from builder import log
from builder.models import Event
from tests.building import settings

SIZES = (10, 1_000, 100_000)
BATCHES, BATCH = 2000, 10
"""So many that one pass of the garbage collector through 10^5 items, which comes by chance, is a small part."""


async def main() -> None:
    """Fill up and take down again; each size is measured on both ways, so that what drifts with time cancels out."""
    chosen = settings(asyncJobCreator={"maxQueueSize": 2 * max(SIZES)})
    log.configure(chosen.logging)
    door = Door.of(chosen)
    fresh = example.events(5 * max(SIZES), "g")
    await _measure(door, fresh)  # warm up
    costs: dict[int, list[tuple[float, float]]] = {size: [] for size in SIZES}
    for size in (*SIZES, *reversed(SIZES)):
        while len(door.queue) < size:
            await door.intake.offer(next(fresh))
        while len(door.queue) > size:
            await door.settle(await door.queue.take())
        costs[size].append(await _measure(door, fresh))
    report({str(size): [sum(column) / 2 for column in zip(*both, strict=True)] for size, both in costs.items()})


async def _measure(door: Door, fresh: Iterator[Event]) -> tuple[float, float]:
    """Seconds of processor time for one accept and for one dequeue; the queue is as long afterwards as it was."""
    accept = dequeue = 0.0
    for _ in range(BATCHES):
        events = list(islice(fresh, BATCH))
        began = time.process_time()
        for event in events:
            await door.intake.offer(event)
        between = time.process_time()
        items = [await door.queue.take() for _ in range(BATCH)]
        dequeue += time.process_time() - between
        accept += between - began
        for item in items:
            await door.settle(item)
        del items, item  # as a worker lets go of them: no part of the next dequeue
    return accept / (BATCHES * BATCH), dequeue / (BATCHES * BATCH)


if __name__ == "__main__":
    asyncio.run(main())
