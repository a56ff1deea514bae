"""Accept with many known identities in the file and with none, by turns.

``python -m benchmarks.journal_known <count>``
"""

import asyncio
import os
import random
import sqlite3
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from itertools import islice
from pathlib import Path

from benchmarks import example
from benchmarks.children import report
from benchmarks.door import Door
from builder import log
from builder.app import open_journal
from builder.models import Event
from builder.settings import Settings
from tests.building import settings

TURNS, BATCH = 20, 500
SENDERS = 64
HOUSEKEEPING = 5.0
"""Seconds after the start in which the journal reads what it knows."""


async def main(count: int) -> None:
    """Both journals are open the whole time, each behind a door of its own."""
    with tempfile.TemporaryDirectory() as folder:
        none, many = (_settings(Path(folder, name)) for name in ("none", "many"))
        log.configure(none.logging)
        async with open_journal(many, os.environ):
            pass  # the tables
        size = _remember(count, Path(folder, "many"))
        async with open_journal(none, os.environ) as empty, open_journal(many, os.environ) as full:
            tidying = [asyncio.create_task(journal.keep_house()) for journal in (empty, full)]
            await asyncio.sleep(HOUSEKEEPING)
            fresh = example.events(2 * (TURNS + 1) * BATCH, "k")
            doors = Door.of(none, empty), Door.of(many, full)
            took = [0.0, 0.0]
            for turn in range(TURNS + 1):
                for number in (0, 1) if turn % 2 else (1, 0):
                    seconds = await _accept(doors[number], list(islice(fresh, BATCH)))
                    took[number] += seconds if turn else 0.0  # the first is for warming up
            for task in tidying:
                task.cancel()
    without, with_many = (TURNS * BATCH / seconds for seconds in took)
    report({"none": without, "many": with_many, "bytes": size / count})


def _settings(path: Path) -> Settings:
    return settings(
        journal={"path": str(path)},
        asyncJobCreator={"maxQueueSize": 2 * (TURNS + 1) * BATCH},
        idempotency={"maxEntries": 10_000_000},
    )


def _remember(count: int, path: Path) -> int:
    """As ``count`` settled events left them, in the random order of their hashes; the file's size then."""
    draw = random.Random(1)  # noqa: S311 -- no secret
    until = time.time() + 3600
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("PRAGMA cache_size = -500000")
        rows = ((draw.randbytes(16), until + number / 1000) for number in range(count))
        connection.executemany("INSERT INTO seen VALUES (?, ?)", rows)
    return path.stat().st_size


async def _accept(door: Door, events: list[Event]) -> float:
    began = time.perf_counter()
    waiting: Iterator[Event] = iter(events)

    async def send() -> None:
        for event in waiting:
            await door.intake.offer(event)

    await asyncio.gather(*(send() for _ in range(SENDERS)))
    return time.perf_counter() - began


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
