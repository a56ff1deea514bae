"""The journal's operations: what each means in rows."""

import asyncio
import math
import sqlite3
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import structlog

from builder.adapters.sqlite_journal import events, housekeeping, letters, room, rows
from builder.adapters.sqlite_journal.admission import Admission
from builder.adapters.sqlite_journal.file import connect, locked
from builder.adapters.sqlite_journal.seen import Seen
from builder.adapters.sqlite_journal.writer import Writer, is_passing
from builder.errors import StartError, StorageError
from builder.flow.ports import Entry, LetterFilter, Receipt, Unfinished
from builder.models import DeadLetter, Event, Result
from builder.settings import Settings

log = structlog.get_logger(__name__)
T = TypeVar("T")


class SqliteJournal:
    """One file, one process, one writing thread. An answer that was awaited is on the disk.

    ``now`` is seconds since 1970, for what is kept outlives the process.
    """

    def __init__(self, path: Path, settings: Settings, now: Callable[[], float] = time.time) -> None:
        """``open`` makes them, once it owns the file."""
        self.path = path
        self.trouble: str | None = None
        self.evicted = 0
        self._settings = settings
        self._now = now
        self._writer = Writer(partial(connect, path))
        self._seen = Seen()
        self._admission = Admission(self._writer, self._seen, now)
        self._next = 1
        self._start: int | None = None
        self._room = math.inf

    @classmethod
    @asynccontextmanager
    async def open(
        cls, path: Path, settings: Settings, now: Callable[[], float] = time.time
    ) -> AsyncIterator["SqliteJournal"]:
        """Own the file and read what an earlier process left.

        A full or failing disk is waited for, as it is later on: ``trouble`` tells, and ``keep_house`` looks again.

        Raises:
            StartError: somebody else has it, it may not be written, or it is of a newer version.
        """
        with locked(path) as own:
            journal = cls(own, settings, now)
            try:
                await journal._begin()
                yield journal
            finally:
                await journal.close()

    async def close(self) -> None:
        """Write what waits, and end."""
        await self._writer.close()

    async def seen(self, identity: bytes) -> bool:
        """See ``Journal``."""
        return await self._admission.has(identity) or await self._do(partial(self._seen.has, identity, self._now()))

    async def holds(self, identity: bytes) -> bool:
        """See ``Journal``."""
        self._known_start()
        return identity in self._admission

    async def admit(self, entry: Entry) -> Receipt | None:
        """See ``Journal``."""
        row = self._row(entry)
        self._demand_room(len(row.data))
        admitted = await self._told(self._admission.admit(row))
        return _Receipt(self, row.seq, entry.event) if admitted else None

    def outcome(self, _identity: bytes) -> asyncio.Future[Result] | None:
        """See ``Journal``: nobody waits, for the event is held here."""
        return None

    def remember(self, event: Event, result: Result) -> None:
        """See ``Journal``."""
        now = self._now()

        def keep(connection: sqlite3.Connection) -> None:
            self._seen.remember(event.identity, now + self._settings.idempotency.ttl, connection)
            events.keep_result(result, now + self._settings.results.ttl, connection)
            letters.mark_resolved(event.identity, now, connection)

        self._writer.submit(keep).add_done_callback(_ignore)

    async def unfinished(self, after: Unfinished | None = None) -> AsyncIterator[Unfinished]:
        """See ``Journal``. Those that were admitted since the start are not among them."""
        place = (0, 0) if after is None else (after.entry.priority, after.place)
        numbers = await self._do(partial(events.in_order, place, self._known_start()))
        for start in range(0, len(numbers), events.PAGE):
            for row in await self._do(partial(events.these, numbers[start : start + events.PAGE])):
                try:
                    event = rows.event_of(row["attributes"], row["data"])
                    entry = Entry(event, rows.moment(row["accepted_at"]), rows.priority_of(row["priority"]))
                except rows.UNREADABLE as exc:
                    await self._bury(row, exc)
                    continue
                yield Unfinished(entry, _Receipt(self, row["seq"], event), row["progress"], row["seq"])

    async def results(self) -> Sequence[Result]:
        """See ``Journal``."""
        found: list[Result] = []
        for document in await self._do(partial(events.results, self._now(), self._settings.results.max_entries)):
            with suppress(*rows.UNREADABLE):  # the disk changed it; the event itself is settled
                found.append(rows.result_of(document))
        return found

    async def park(self, letter: DeadLetter) -> None:
        """See ``Journal``."""
        self._demand_room(len(letter.body))
        await self._do(partial(letters.keep, letter, letter.key(None), self._settings.dead_letters))

    async def count(self) -> int:
        """See ``DeadLetterBox``."""
        return await self._do(letters.count)

    async def letters(self, wanted: LetterFilter, limit: int) -> Sequence[DeadLetter]:
        """See ``DeadLetterBox``."""
        return await self._do(partial(letters.find, wanted, limit))

    async def letter(self, letter_id: int) -> DeadLetter | None:
        """See ``DeadLetterBox``."""
        return await self._do(partial(letters.one, letter_id))

    async def discard(self, letter_id: int) -> bool:
        """See ``DeadLetterBox``."""
        return await self._do(partial(letters.discard, letter_id))

    async def readmit(self, letter_id: int, entry: Entry) -> Receipt | None:
        """See ``DeadLetterBox``."""
        row = self._row(entry)
        self._demand_room(len(row.data))
        mark = partial(letters.mark_replayed, letter_id, self._now())
        return _Receipt(self, row.seq, entry.event) if await self._told(self._admission.readmit(row, mark)) else None

    async def keep_house(self, period: float = housekeeping.PERIOD) -> None:
        """Remove what is over, in small steps, and in bad times look whether they are over. Runs for life."""
        while True:
            rest = period
            with suppress(StorageError):  # ``_do`` has told of it
                tidied = await self._do(partial(housekeeping.tidy, self.path, self._now(), self._settings, self._seen))
                rest, self.evicted, self._room = min(period, tidied.rest), tidied.evicted, tidied.room
                self._demand_room(0)
                if self.trouble is not None:
                    await self._find_start()
                    await self._do(housekeeping.probe)
                    log.info("journal_writable_again", file=str(self.path))
                    self.trouble = None
            await asyncio.sleep(rest)

    async def settle(self, seq: int, event: Event, result: Result) -> None:
        """See ``Receipt``."""
        now = self._now()
        letter = None if result.failure is None else DeadLetter.of_failure(event, result, result.failure)

        def finish(connection: sqlite3.Connection) -> None:
            events.finish(seq, event.identity, now + self._settings.idempotency.ttl, self._seen, connection)
            events.keep_result(result, now + self._settings.results.ttl, connection)
            if letter is None:
                letters.mark_resolved(event.identity, now, connection)
            else:
                letters.keep(letter, letter.key(event.identity), self._settings.dead_letters, connection)

        await self._do(finish)
        self._admission.forget(event.identity)

    def note(self, seq: int, progress: str) -> None:
        """See ``Receipt``."""
        answer = self._writer.submit(partial(events.note, seq, progress))
        answer.add_done_callback(_ignore)

    async def _do(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """One operation."""
        return await self._told(self._writer.submit(work))

    async def _told(self, operation: Awaitable[T]) -> T:
        """One that fails tells of the trouble; that it is over only ``keep_house`` finds out.

        For on a full disk all that only reads succeeds.
        """
        try:
            return await operation
        except (StorageError, StartError) as exc:
            self._tell(exc)
            raise exc if isinstance(exc, StorageError) else StorageError(str(exc)) from exc

    def _demand_room(self, size: int) -> None:
        """For so many bytes of a new event, of what ``keep_house`` saw at its last look."""
        self._room -= room.GROWTH * size
        if self._room <= 0:
            error = StorageError(room.NONE)
            self._tell(error)
            raise error

    def _tell(self, exc: Exception) -> None:
        if self.trouble is None:
            advice = "free or mend the disk; events get a 503 until then, and nothing is lost"
            log.error("journal_not_writable", file=str(self.path), error=str(exc), then=advice)
        self.trouble = str(exc)

    async def _begin(self) -> None:
        """The first look at the file: what no time will mend is said at once."""
        try:
            await self._writer.submit(letters.count)
        except StorageError as exc:
            if not is_passing(exc.__cause__):
                msg = f"journal.path: {self.path}: {exc} (mend that, or set journal.path to another file)"
                raise StartError(msg) from exc
        with suppress(StorageError):  # ``_do`` has told of it
            await self._find_start()

    async def _find_start(self) -> None:
        """Where the events of earlier processes end. Until that is known no new one can be taken."""
        if self._start is None:
            self._admission.restore(await self._do(events.identities))
            self._start = await self._do(events.last)
            self._next = self._start + 1
            self.evicted = await self._do(letters.evicted)

    def _known_start(self) -> int:
        if self._start is None:
            raise StorageError(self.trouble or "the journal is not open yet")
        return self._start

    def _row(self, entry: Entry) -> events.Row:
        self._known_start()
        seq = self._next
        self._next += 1
        return events.Row.of(seq, entry)

    async def _bury(self, row: Any, exc: Exception) -> None:
        """An event that cannot be read back is a dead letter, not a reason to stop."""
        log.error("event_unreadable", seq=row["seq"], error=f"{type(exc).__name__}: {exc}")
        now = self._now()
        letter = rows.unreadable(row["data"], rows.moment(now), exc)

        def bury(connection: sqlite3.Connection) -> None:
            until = now + self._settings.idempotency.ttl
            events.finish(row["seq"], row["identity"], until, self._seen, connection)
            letters.keep(letter, letter.key(row["identity"]), self._settings.dead_letters, connection)

        await self._do(bury)
        self._admission.forget(row["identity"])


class _Receipt:
    """Proof of one row."""

    __slots__ = ("_event", "_journal", "_seq")

    def __init__(self, journal: SqliteJournal, seq: int, event: Event) -> None:
        self._journal = journal
        self._seq = seq
        self._event = event

    def note(self, progress: str) -> None:
        self._journal.note(self._seq, progress)

    async def settle(self, result: Result) -> None:
        await self._journal.settle(self._seq, self._event, result)


def _ignore(answer: "asyncio.Future[None]") -> None:
    """What could not be noted costs a try more after a crash; the next operation tells of the trouble."""
    if not answer.cancelled():
        answer.exception()
