"""Our workers make the Jobs of queued items: ``python -m benchmarks.jobs_ours <namespace> <workers> <count>``."""

import asyncio
import os
import sys

from benchmarks import example
from benchmarks.children import report
from benchmarks.stopwatch import Stopwatch
from builder import log
from builder.adapters.memory_journal import MemoryJournal
from builder.app import Parts, assemble, open_cluster
from builder.models import Outcome
from tests.building import settings


async def main(namespace: str, workers: int, count: int) -> None:
    """Fill the queue through the door, then let the workers go, and take the time until all is done."""
    chosen = settings(
        cluster="kubernetes",
        kubernetes={"namespace": namespace},
        asyncJobCreator={"workerCount": workers, "maxQueueSize": count},
    )
    log.configure(chosen.logging)
    async with open_cluster(chosen, os.environ) as cluster:
        clock = asyncio.get_running_loop().time
        parts = assemble(chosen, cluster, MemoryJournal(chosen.idempotency, chosen.dead_letters, clock))
        await cluster.probe()
        for event in example.events(count, "j"):
            await parts.intake.offer(event)
        watch = Stopwatch()
        await _work(parts)
        report({"jobs": parts.stats.outcomes[Outcome.CREATED], **watch.read()})


async def _work(parts: Parts) -> None:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(parts.pool.work(number)) for number in parts.pool.busy]
        await parts.pool.drain(grace=100.0)
        for task in tasks:
            task.cancel()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
