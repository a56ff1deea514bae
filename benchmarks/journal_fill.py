"""Leaves unfinished events in a journal: ``python -m benchmarks.journal_fill <count> <file> <prefix of the ids>``."""

import asyncio
import os
import sys
from datetime import UTC, datetime

from benchmarks import example
from benchmarks.children import report
from builder import log
from builder.app import open_journal
from builder.flow.ports import Entry
from tests.building import settings

SENDERS = 64


async def main(count: int, path: str, prefix: str) -> None:
    """Take 004's example into custody, as many different ones, and end."""
    chosen = settings(journal={"path": path})
    log.configure(chosen.logging)
    fresh = enumerate(example.events(count, prefix))
    entries = (Entry(event, datetime.now(UTC), 1 + number % 10) for number, event in fresh)
    async with open_journal(chosen, os.environ) as journal:

        async def send() -> None:
            for entry in entries:
                await journal.admit(entry)

        await asyncio.gather(*(send() for _ in range(SENDERS)))
    report({"unfinished": count})


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), *sys.argv[2:]))
