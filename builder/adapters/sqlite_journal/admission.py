"""Events on their way into the file, each identity once; those that come together go there together."""

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable, Iterable
from functools import partial

from builder.adapters.sqlite_journal import events
from builder.adapters.sqlite_journal.events import Row
from builder.adapters.sqlite_journal.seen import Seen
from builder.adapters.sqlite_journal.writer import Operation, Writer


class _Batch(Operation[set[int]]):
    """Rows that are written together, and who waits for each. It tells ``ended`` which of them were taken in.

    ``done`` ends after all of them, whatever came of it and whoever still waits.
    """

    __slots__ = ("done", "ended", "rows", "waiters")

    def __init__(self, rows: list[Row], work: Callable[[sqlite3.Connection], set[int]], ended: "_Ended") -> None:
        super().__init__(work)
        self.rows = rows
        self.waiters: list[asyncio.Future[bool]] = []
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.ended = ended

    def end(self, result: set[int] | None, error: Exception | None) -> None:
        self.ended(self, result or set(), error)


_Ended = Callable[[_Batch, set[int], Exception | None], None]


class _NewEvents(_Batch):
    """Others may join until it is taken. It comes last in its transaction, and so finds whose time has begun."""

    __slots__ = ("closed",)

    comes_last = True
    one_statement = True

    def __init__(self, seen: Seen, now: float, ended: _Ended) -> None:
        rows: list[Row] = []
        super().__init__(rows, partial(events.admit_new, rows, seen, now), ended)
        self.closed = False

    @property
    def size(self) -> int:
        return len(self.rows)

    def taken(self) -> None:
        self.closed = True


class Admission:
    """Knows the identities of all events that are in custody or on their way there.

    They have no index on the disk: it would be written in as many places as there are events, which costs more than the
    rows themselves, and the file has one owner, who can as well remember. ``now`` is seconds since 1970.
    """

    def __init__(self, writer: Writer, seen: Seen, now: Callable[[], float]) -> None:
        self._writer = writer
        self._seen = seen
        self._now = now
        self._loop = asyncio.get_running_loop()
        self._held: set[bytes] = set()
        self._coming: dict[bytes, asyncio.Future[None]] = {}
        self._batch: _NewEvents | None = None

    def __contains__(self, identity: bytes) -> bool:
        return identity in self._held or identity in self._coming

    def restore(self, identities: Iterable[bytes]) -> None:
        """Those whom earlier processes took in."""
        self._held.update(identities)

    def forget(self, identity: bytes) -> None:
        """Its event has come to its end."""
        self._held.discard(identity)

    def admit(self, row: Row) -> Awaitable[bool]:
        """True once the row is on the disk; False if its event is there already, or was and its time is not over."""
        if row.identity in self:
            return self._admit_unless_held(row)
        batch = self._batch
        if batch is not None and not batch.closed and len(batch.rows) < events.MAX_ROWS:
            return self._join(batch, row)
        batch = self._batch = _NewEvents(self._seen, self._now(), self._end)
        waiter = self._join(batch, row)
        self._writer.add(batch)
        return waiter

    async def _admit_unless_held(self, row: Row) -> bool:
        return False if await self.has(row.identity) else await self.admit(row)

    async def readmit(self, row: Row, mark: Callable[[sqlite3.Connection], bool]) -> bool:
        """The same, whether its time is over or not, if ``mark`` says so in the same transaction."""
        if await self.has(row.identity):
            await self._writer.submit(mark)
            return False

        def take_back(connection: sqlite3.Connection) -> set[int]:
            return events.admit([row], connection) if mark(connection) else set()

        batch = _Batch([], take_back, self._end)
        waiter = self._join(batch, row)
        self._writer.add(batch)
        return await waiter

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

    def _end(self, batch: _Batch, admitted: set[int], error: Exception | None) -> None:
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
