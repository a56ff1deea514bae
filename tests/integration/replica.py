"""One service in the test's own process: assembled as in production, without its HTTP door and its signals."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Self

from builder.adapters.sqlite_journal import SqliteJournal
from builder.app import Parts, assemble
from builder.flow.items import Wait
from builder.flow.ports import Cluster, LetterFilter
from builder.models import DeadLetter, Event
from builder.settings_sources import validate
from tests.contract.harness import eventually
from tests.integration.service import ENDED, settings_tree


class Replica:
    """A running use case, whose insides a test may look at."""

    def __init__(self, parts: Parts, journal: SqliteJournal) -> None:
        self.parts = parts
        self.journal = journal

    @classmethod
    @asynccontextmanager
    async def open(cls, cluster: Cluster, **sections: Any) -> AsyncIterator[Self]:
        """The workers at work, on a journal of their own; ``sections`` are settings in the file's spelling."""
        settings = validate(settings_tree(sections))
        with TemporaryDirectory() as folder:
            async with SqliteJournal.open(Path(folder) / "journal.sqlite3", settings) as journal:
                parts = assemble(settings, cluster, journal)
                works = [parts.pool.work(number) for number in parts.pool.busy]
                tasks = [asyncio.create_task(work) for work in (*works, parts.outage.watch())]
                try:
                    yield cls(parts, journal)
                finally:
                    parts.pool.close()
                    for task in tasks:
                        task.cancel()
                    await asyncio.gather(*tasks, return_exceptions=True)

    async def offer(self, *events: Event) -> None:
        """Take events in, as the receiver does."""
        for event in events:
            await self.parts.intake.offer(event)

    async def build(self, event: Event) -> dict[str, Any]:
        """Take an event in; what became of it."""
        await self.offer(event)
        return await self.ended(event.id)

    async def result(self, event_id: str) -> dict[str, Any]:
        """What became of an event so far. Events without a correlation id are followed by their own."""
        document = self.parts.overview.result(event_id)
        assert document is not None, f"{event_id} was never accepted"
        return document

    async def ended(self, event_id: str) -> dict[str, Any]:
        """What became of an event, once that is settled."""
        return await eventually(lambda: self.result(event_id), lambda result: result["status"] in ENDED)

    async def waits(self, event_id: str, wait: Wait, attempts: int = 1) -> None:
        """Return when an event has been tried so often and is set aside; then no worker is held."""

        async def look() -> tuple[bool, ...]:
            tried = (await self.result(event_id))["attempts"] >= attempts
            idle = all(item is None for item in self.parts.pool.busy.values())
            return tried, idle, self.parts.pool.room.waiting[wait] == 1

        await eventually(look, all)

    async def outages(self) -> int:
        """How often the API server was away."""
        return self.parts.outage.count

    async def letters(self) -> Sequence[DeadLetter]:
        """The dead letters, the newest first."""
        return await self.journal.letters(LetterFilter(), 1000)
