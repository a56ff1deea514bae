"""Our receiver, intake, journal and log, as a server, with tasks in the place of the workers.

``python -m benchmarks.accept_ours [journal file]``: without a file the journal is in memory.
"""

import asyncio
import os
import signal
import sys
from contextlib import AsyncExitStack

import uvloop

from benchmarks.children import report
from benchmarks.door import Door
from builder import log
from builder.adapters.web.receiver import Receiver
from builder.adapters.web.server import listening
from builder.app import open_journal
from tests.building import settings


async def serve(path: str | None) -> None:
    """Print the URL, serve until SIGTERM, print what was counted."""
    more = {} if path is None else {"journal": {"path": path}, "asyncJobCreator": {"maxQueueSize": 10_000}}
    chosen = settings(server={"host": "127.0.0.1", "port": 0}, **more)
    log.configure(chosen.logging)
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with AsyncExitStack() as stack:
        journal = None if path is None else await stack.enter_async_context(open_journal(chosen, os.environ))
        door = Door.of(chosen, journal)
        routes = Receiver(door.intake, chosen.intake).routes()
        tasks = [asyncio.create_task(door.drain()) for _ in range(chosen.async_job_creator.worker_count)]
        if journal is not None:
            tasks.append(asyncio.create_task(journal.keep_house()))
        url = await stack.enter_async_context(listening(chosen.server, routes, door.stats, chosen.intake.max_body_size))
        print(url, flush=True)
        await stop.wait()
        for task in tasks:
            task.cancel()
    report({"accepted": door.stats.accepted.total(), "duplicates": door.stats.duplicates.total()})


if __name__ == "__main__":
    uvloop.run(serve(sys.argv[1] if len(sys.argv) > 1 else None))
