"""Events on their way into the file, each identity once; those of one turn of the event loop go there together."""

import asyncio
import sqlite3
from collections.abc import Callable, Iterable
from functools import partial

from builder.adapters.sqlite_journal import events
from builder.adapters.sqlite_journal.events import Row
from builder.adapters.sqlite_journal.writer import Writer


class _Batch:
    """Rows that are written together. ``done`` ends after all of them, whatever came of it and whoever still waits."""

    __slots__ = ("done", "rows", "waiters")

    def __init__(self, done: "asyncio.Future[None]") -> None:
        self.rows: list[Row] = []
        self.waiters: list[asyncio.Future[bool]] = []
        self.done = done


class Admission:
    """Knows the identities of all events that are in custody or on their way there.

    They have no index on the disk: it would be written in as many places as there are events, which costs more than the
    rows themselves, and the file has one owner, who can as well remember. ``now`` is seconds since 1970.
    """

    def __init__(self, writer: Writer, now: Callable[[], float]) -> None:
        self._writer = writer
        self._now = now
        self._loop = asyncio.get_running_loop()
        self._held: set[bytes] = set()
        self._coming: dict[bytes, asyncio.Future[None]] = {}
        self._batch: _Batch | None = None

    def __contains__(self, identity: bytes) -> bool:
        return identity in self._held or identity in self._coming

    def restore(self, identities: Iterable[bytes]) -> None:
        """Those whom earlier processes took in."""
        self._held.update(identities)

    def forget(self, identity: bytes) -> None:
        """Its event has come to its end."""
        self._held.discard(identity)

    async def admit(self, row: Row) -> bool:
        """True once the row is on the disk; False if its event is there already, or was and its time is not over."""
        if await self.has(row.identity):
            return False
        batch = self._batch
        if batch is None:
            batch = self._batch = _Batch(self._loop.create_future())
            self._loop.call_soon(self._write, batch)
        return await self._join(batch, row)

    async def readmit(self, row: Row, mark: Callable[[sqlite3.Connection], bool]) -> bool:
        """The same, whether its time is over or not, if ``mark`` says so in the same transaction."""
        if await self.has(row.identity):
            await self._writer.submit(mark)
            return False

        def take_back(connection: sqlite3.Connection) -> set[int]:
            return events.admit([row], None, connection) if mark(connection) else set()

        batch = _Batch(self._loop.create_future())
        self._send(batch, take_back)
        return await self._join(batch, row)

    async def has(self, identity: bytes) -> bool:
        """True if its event is on the disk. One that is on its way is waited for: it may still fail."""
        while (coming := self._coming.get(identity)) is not None:
            await asyncio.wait((coming,))
        return identity in self._held

    def _join(self, batch: _Batch, row: Row) -> "asyncio.Future[bool]":
        waiter: asyncio.Future[bool] = self._loop.create_future()
        batch.rows.append(row)
        batch.waiters.append(waiter)
        self._coming[row.identity] = batch.done
        return waiter

    def _write(self, batch: _Batch) -> None:
        self._batch = None
        self._send(batch, partial(events.admit, batch.rows, self._now()))

    def _send(self, batch: _Batch, work: Callable[[sqlite3.Connection], set[int]]) -> None:
        self._writer.submit(work).add_done_callback(partial(self._end, batch))

    def _end(self, batch: _Batch, answer: "asyncio.Future[set[int]]") -> None:
        error = answer.exception()
        admitted = answer.result() if error is None else set()
        for row, waiter in zip(batch.rows, batch.waiters, strict=True):
            del self._coming[row.identity]
            if row.seq in admitted:
                self._held.add(row.identity)
            if waiter.cancelled():
                continue
            if error is None:
                waiter.set_result(row.seq in admitted)
            else:
                waiter.set_exception(error)
        batch.done.set_result(None)
