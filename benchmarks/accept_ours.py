"""Our receiver, intake, journal in memory and log, as a server; a task that settles items at once for the workers."""

import asyncio
import signal

import uvloop

from benchmarks.children import report
from benchmarks.door import Door
from builder import log
from builder.adapters.web.receiver import Receiver
from builder.adapters.web.server import listening
from tests.building import settings


async def serve() -> None:
    """Print the URL, serve until SIGTERM, print what was counted."""
    chosen = settings(server={"host": "127.0.0.1", "port": 0})
    log.configure(chosen.logging)
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    door = Door.of(chosen)
    routes = Receiver(door.intake, chosen.intake).routes()
    workers = asyncio.create_task(door.drain())
    async with listening(chosen.server, routes, door.stats, chosen.intake.max_body_size) as url:
        print(url, flush=True)
        await stop.wait()
    workers.cancel()
    report({"accepted": door.stats.accepted.total(), "duplicates": door.stats.duplicates.total()})


if __name__ == "__main__":
    uvloop.run(serve())
