"""The journal's operations: what each means in rows."""

import asyncio
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TypeVar

import structlog

from builder.adapters.sqlite_journal import letters, rows
from builder.adapters.sqlite_journal.file import connect, locked
from builder.adapters.sqlite_journal.writer import Writer
from builder.errors import StorageError
from builder.flow.ports import Entry, LetterFilter, Receipt, Unfinished
from builder.models import DeadLetter, Event, Result
from builder.settings import Settings

PAGE = 200
STEP = 500
"""Rows that housekeeping removes in one transaction: a few milliseconds that nobody notices."""
HOUSEKEEPING = 1.0

_ADMIT = """
INSERT INTO events (seq, identity, priority, accepted_at, attributes, data) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
ON CONFLICT (identity) DO UPDATE SET seq = ?1, seen_until = NULL, priority = ?3, accepted_at = ?4, attributes = ?5,
    data = ?6, patience = NULL
WHERE seen_until IS NOT NULL AND (seen_until <= ?7 OR ?8)
"""
"""An identity whose time is over is as good as new; ``?8`` says that it is anyway (a replay)."""

_FINISH = """
UPDATE events SET seen_until = ?, priority = NULL, accepted_at = NULL, attributes = NULL, data = NULL, patience = NULL
WHERE seq = ?
"""

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
        self._settings = settings
        self._now = now
        self._writer = Writer(partial(connect, path))
        self._next = 1
        self._start = 0

    @classmethod
    @asynccontextmanager
    async def open(cls, path: Path, settings: Settings) -> AsyncIterator["SqliteJournal"]:
        """Own the file and read what an earlier process left.

        Raises:
            StartError: somebody else has it, it cannot be written, or it is of a newer version.
        """
        with locked(path):
            journal = cls(path, settings)
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
        return await self._do(partial(_seen, identity, self._now()))

    async def admit(self, entry: Entry) -> Receipt | None:
        """See ``Journal``."""
        row = self._row(entry)
        return _Receipt(self, row[0], entry.event) if await self._do(partial(_admit, row)) else None

    def outcome(self, _identity: bytes) -> asyncio.Future[Result] | None:
        """See ``Journal``: nobody waits, for the event is held here."""
        return None

    async def unfinished(self) -> AsyncIterator[Unfinished]:
        """See ``Journal``. Those that were admitted since the start are not among them."""
        last = (0, 0)
        while page := await self._do(partial(_unfinished, last, self._start)):
            for row in page:
                entry = Entry(
                    rows.event_of(row["attributes"], row["data"]), rows.moment(row["accepted_at"]), row["priority"]
                )
                yield Unfinished(entry, _Receipt(self, row["seq"], entry.event), row["patience"])
            last = (page[-1]["priority"], page[-1]["seq"])

    async def results(self) -> Sequence[Result]:
        """See ``Journal``."""
        return [rows.result_of(document) for document in await self._do(partial(_results, self._now()))]

    async def park(self, letter: DeadLetter) -> None:
        """See ``Journal``."""
        await self._do(partial(letters.keep, letter, letters.of_rejected(letter), self._settings.dead_letters))

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
        done = await self._do(partial(_readmit, letter_id, row, self._now()))
        return _Receipt(self, row[0], entry.event) if done else None

    async def keep_house(self) -> None:
        """Remove what is over, in small steps, and in bad times look whether they are over. Runs for life."""
        while True:
            try:
                removed = await self._do(partial(_sweep, self._now(), self._settings, probe=self.trouble is not None))
            except StorageError:
                removed = 0
            if removed < STEP:
                await asyncio.sleep(HOUSEKEEPING)

    async def settle(self, seq: int, event: Event, result: Result) -> None:
        """See ``Receipt``."""
        now = self._now()
        kept = (result.correlation_id, now + self._settings.results.ttl, rows.document_of(result))
        letter = None if result.failure is None else DeadLetter.of_failure(event, result, result.failure)

        def finish(connection: sqlite3.Connection) -> None:
            connection.execute(_FINISH, (now + self._settings.idempotency.ttl, seq))
            connection.execute("INSERT OR REPLACE INTO results VALUES (?, ?, ?)", kept)
            if letter is not None:
                letters.keep(letter, letters.of_event(event.identity), self._settings.dead_letters, connection)

        await self._do(finish)

    def note(self, seq: int, progress: str) -> None:
        """See ``Receipt``."""
        answer = self._writer.submit(partial(_note, seq, progress))
        answer.add_done_callback(_ignore)

    async def _do(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """One operation, whose end tells whether the disk is well."""
        try:
            answer = await self._writer.submit(work)
        except StorageError as exc:
            if self.trouble is None:
                log.error(
                    "journal_not_writable", file=str(self.path), error=str(exc), then="events get a 503 until it is"
                )
            self.trouble = str(exc)
            raise
        if self.trouble is not None:
            log.info("journal_writable_again", file=str(self.path))
            self.trouble = None
        return answer

    async def _begin(self) -> None:
        """Where the events of earlier processes end."""
        self._start = await self._do(_last)
        self._next = self._start + 1

    def _row(self, entry: Entry) -> "_Row":
        seq = self._next
        self._next += 1
        event = entry.event
        accepted_at = entry.accepted_at.timestamp()
        attributes = rows.attributes_of(event)
        return (seq, event.identity, entry.priority, accepted_at, attributes, event.data, self._now(), False)


_Row = tuple[int, bytes, int, float, str, bytes, float, bool]


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


def _seen(identity: bytes, now: float, connection: sqlite3.Connection) -> bool:
    found = "SELECT 1 FROM events WHERE identity = ? AND (seen_until IS NULL OR seen_until > ?)"
    return connection.execute(found, (identity, now)).fetchone() is not None


def _admit(row: _Row, connection: sqlite3.Connection) -> bool:
    return connection.execute(_ADMIT, row).rowcount == 1


def _readmit(letter_id: int, row: _Row, now: float, connection: sqlite3.Connection) -> bool:
    if not letters.mark_replayed(letter_id, now, connection):
        return False
    return connection.execute(_ADMIT, (*row[:-1], True)).rowcount == 1


def _unfinished(last: tuple[int, int], start: int, connection: sqlite3.Connection) -> list[sqlite3.Row]:
    return connection.execute(
        "SELECT seq, priority, accepted_at, attributes, data, patience FROM events "
        "WHERE seen_until IS NULL AND (priority, seq) > (?, ?) AND seq <= ? ORDER BY priority, seq LIMIT ?",
        (*last, start, PAGE),
    ).fetchall()


def _results(now: float, connection: sqlite3.Connection) -> list[str]:
    found = connection.execute("SELECT document FROM results WHERE until > ? ORDER BY until", (now,))
    return [document for (document,) in found]


def _note(seq: int, progress: str, connection: sqlite3.Connection) -> None:
    connection.execute("UPDATE events SET patience = ? WHERE seq = ? AND seen_until IS NULL", (progress, seq))


def _last(connection: sqlite3.Connection) -> int:
    (last,) = connection.execute("SELECT coalesce(max(seq), 0) FROM events").fetchone()
    return int(last)


def _sweep(now: float, settings: Settings, connection: sqlite3.Connection, *, probe: bool) -> int:
    """Remove at most ``STEP`` rows of each kind; how many of the kind that had most."""
    if probe:  # something that must reach the disk, and changes nothing
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        connection.execute(f"PRAGMA user_version = {version}")
    (seen,) = connection.execute("SELECT seen FROM counts").fetchone()
    too_many = min(STEP, seen - settings.idempotency.max_entries)
    over = "SELECT seq FROM events WHERE seen_until <= ? ORDER BY seen_until LIMIT ?"
    finished = connection.execute(f"DELETE FROM events WHERE seq IN ({over})", (now, STEP)).rowcount  # noqa: S608
    if too_many > finished:
        finished += connection.execute(
            f"DELETE FROM events WHERE seq IN ({over})", (1e18, too_many - finished)
        ).rowcount
    old = "SELECT correlation_id FROM results WHERE until <= ? ORDER BY until LIMIT ?"
    results = connection.execute(f"DELETE FROM results WHERE correlation_id IN ({old})", (now, STEP)).rowcount  # noqa: S608
    aged = letters.expire(now - settings.dead_letters.max_age, STEP, connection)
    return max(finished, results, aged)


def _ignore(answer: "asyncio.Future[None]") -> None:
    """Progress that could not be noted costs a try more after a crash; the next operation tells of the trouble."""
    if not answer.cancelled():
        answer.exception()
