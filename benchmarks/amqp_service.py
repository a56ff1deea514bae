"""The service on a road, in a process of its own: ``python -m benchmarks.amqp_service <what> <count> [<namespace>]``.

``consume`` takes ``count`` messages to the embedded cluster, or to a namespace; ``http`` takes as many events by its
door, whose URL it prints first; ``hold`` takes none to its end and says what it weighs. All figures are from the first
event's coming to the last one's end.
"""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import uvloop

from benchmarks.children import report, resident
from benchmarks.stopwatch import Stopwatch
from builder import log
from builder.app import Parts, assemble, open_cluster, open_journal
from builder.models import Outcome
from tests.building import settings

WORKERS_ON_A_CLUSTER = 20


async def main(what: str, count: int, namespace: str | None) -> None:
    """Run until all is done, and say how long that took."""
    section: dict[str, Any] = {"server": {"host": "127.0.0.1", "port": 0}}
    if what == "http":
        section["journal"] = {"path": os.environ["BENCH_JOURNAL"]}
    else:
        section |= {"custody": "broker", "rabbitmq": {"url": os.environ["BENCH_BROKER"]}}
    if namespace is None:
        section["memory"] = {"pendingTime": "1h"}  # what the cluster does with its Jobs is not measured
    else:
        section |= {"cluster": "kubernetes", "kubernetes": {"namespace": namespace}}
        section["asyncJobCreator"] = {"workerCount": WORKERS_ON_A_CLUSTER}
    chosen = settings(**section)
    log.configure(chosen.logging)
    async with open_cluster(chosen, os.environ) as cluster, open_journal(chosen, os.environ) as journal:
        await cluster.probe()
        parts = assemble(chosen, cluster, journal)
        async with _running(parts, work=what != "hold"):
            if what == "http":
                async with parts.listening() as url:
                    print(url, flush=True)
                    await _measure(parts, count)
            elif what == "hold":
                await _until(lambda: _held(parts) == min(count, chosen.async_job_creator.max_queue_size))
                await asyncio.sleep(1)
                report({"bytes": resident()})
            else:
                await _measure(parts, count)
        parts.pool.room.close()


async def _measure(parts: Parts, count: int) -> None:
    await _until(lambda: parts.stats.accepted.total() > 0)
    watch = Stopwatch()
    await _until(lambda: parts.stats.outcomes.total() >= count and _held(parts) == 0)
    report({"jobs": parts.stats.outcomes[Outcome.CREATED], **watch.read()})


def _held(parts: Parts) -> int:
    return 0 if parts.consumer is None else parts.consumer.held


async def _until(condition: Any) -> None:
    while not condition():  # noqa: ASYNC110 -- a turn each millisecond costs nothing beside what is measured
        await asyncio.sleep(0.001)


@asynccontextmanager
async def _running(parts: Parts, *, work: bool) -> AsyncIterator[None]:
    roots: list[Any] = [parts.pool.work(number) for number in parts.pool.busy] if work else []
    if parts.consumer is not None:
        roots += [parts.consumer.consume(), parts.consumer.bury()]
    tasks = [asyncio.create_task(root) for root in roots]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1], int(sys.argv[2]), next(iter(sys.argv[3:]), None)))
