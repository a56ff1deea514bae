"""One thread that owns the database's connection and commits all that waits for it at once."""

import asyncio
import errno
import os
import queue
import sqlite3
import sys
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import suppress
from operator import attrgetter
from typing import Any, Generic, Protocol, TypeVar, cast

from builder.errors import StartError, StorageError
from builder.failpoints import reach

T = TypeVar("T")

MAX_GROUP = 512
"""Operations in one transaction: bounds how long the first of them waits for the last."""

CROWD = 32
"""So many go to the disk although the event loop may bring more."""


class Connect(Protocol):
    """Opens the file; ``suspect`` says that the last connection found damage in it."""

    def __call__(self, *, suspect: bool) -> sqlite3.Connection:
        """Called in the writer's thread."""


class Operation(ABC, Generic[T]):
    """A piece of work for a transaction.

    ``work`` runs in the writer's thread and may be run again: it must not change anything but the database.
    """

    __slots__ = ("work",)

    comes_last = False
    """True if it must find done what was added after it, as far as that goes to the disk with it."""
    one_statement = False
    """True if it writes with one statement: that is a transaction by itself, and two statements less."""

    def __init__(self, work: Callable[[sqlite3.Connection], T]) -> None:
        self.work = work

    @property
    def size(self) -> int:
        """How many it counts for. It may grow until the operation is ``taken``."""
        return 1

    def taken(self) -> None:
        """From now on it is on its way to the disk."""

    @abstractmethod
    def end(self, result: T | None, error: Exception | None) -> None:
        """It is on the disk; or nothing of it is, if there is an ``error``.

        That is ``StorageError`` where the disk or the file would not, ``StartError`` where the file is not for this
        version, and whatever ``work`` raised by its own fault.
        """


class _Asked(Operation[T]):
    """Somebody waits for its result."""

    __slots__ = ("answer",)

    def __init__(self, work: Callable[[sqlite3.Connection], T], answer: "asyncio.Future[T]") -> None:
        super().__init__(work)
        self.answer = answer

    def end(self, result: T | None, error: Exception | None) -> None:
        if self.answer.cancelled():
            return
        if error is None:
            self.answer.set_result(cast("T", result))
        else:
            self.answer.set_exception(error)


_Group = list[Operation[Any]]
_Answer = tuple[Operation[Any], Any, Exception | None]


class Writer:
    """Group commit: a transaction holds what came while the event loop was busy or the one before on its way.

    So it grows with the load, and a lone operation waits for nobody. An operation is answered after its commit.
    """

    def __init__(self, connect: Connect) -> None:
        self._connect = connect
        self._connection: sqlite3.Connection | None = None
        self._suspect = False
        self._closed = False
        self._loop = asyncio.get_running_loop()
        self._gathering: _Group = []
        self._groups: queue.SimpleQueue[_Group | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="journal", daemon=True)
        self._thread.start()

    def submit(self, work: Callable[[sqlite3.Connection], T]) -> "asyncio.Future[T]":
        """Do ``work`` in the next transaction; what ``Operation.end`` is told, once that is on the disk."""
        answer: asyncio.Future[T] = self._loop.create_future()
        self.add(_Asked(work, answer))
        return answer

    def add(self, operation: Operation[Any]) -> None:
        """Do its work in the next transaction, and end it once that is on the disk."""
        if self._closed:
            operation.taken()
            operation.end(None, StorageError("the journal is closed"))
            return
        self._gathering.append(operation)
        if len(self._gathering) == 1:
            self._loop.call_soon(self._look, operation.size)

    def _look(self, before: int) -> None:
        """Send what has gathered, unless this turn of the loop has brought some of it and may go on so."""
        size = sum(operation.size for operation in self._gathering)
        if before < size < CROWD:
            self._loop.call_soon(self._look, size)
        else:
            self._send()

    def _send(self) -> None:
        group, self._gathering = self._gathering, []
        for operation in group:
            operation.taken()
        if group:
            group.sort(key=_comes_last)
            self._groups.put(group)

    async def close(self) -> None:
        """Commit what waits and end the thread."""
        self._closed = True
        self._send()
        self._groups.put(None)
        await asyncio.to_thread(self._thread.join)

    def _run(self) -> None:
        _give_way()
        last = False
        while not last:
            group, last = self._next_group()
            if group:
                self._loop.call_soon_threadsafe(_deliver, self._answers(group))
        self._disconnect()

    def _next_group(self) -> tuple[_Group, bool]:
        """All that waits now, and whether it was the last."""
        group: _Group = []
        more = self._groups.get()
        while more is not None:
            group += more
            if len(group) >= MAX_GROUP or self._groups.empty():
                return group, False
            more = self._groups.get()
        return group, True

    def _answers(self, group: _Group) -> list[_Answer]:
        try:
            if self._connection is None:
                self._connection = self._connect(suspect=self._suspect)
                self._suspect = False
        except Exception as exc:  # noqa: BLE001 -- whatever it is, those who wait must hear of it
            return _all_failed(group, exc)
        answers, trouble = _commit(self._connection, group)
        if trouble is None:
            return answers
        if not _is_full(trouble):  # a full disk needs no new connection, and a check of the whole file for each event
            self._suspect = is_damage(trouble)
            self._disconnect()
        return answers + _all_failed(group[len(answers) :], trouble)

    def _disconnect(self) -> None:
        """Close the connection: the next group opens the file anew, and finds out whether the trouble is over."""
        if self._connection is not None:
            with suppress(sqlite3.Error):
                self._connection.close()
        self._connection = None


def _give_way() -> None:
    """Have the kernel not interrupt the event loop for this thread where both have one core.

    The loop would be interrupted with the interpreter's lock in its hand, and this thread would wait for that at once:
    two switches for nothing, several times for each commit.
    """
    if sys.platform == "linux":
        with suppress(OSError):  # a sandbox that forbids it
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))


def is_storage_trouble(exc: Exception) -> bool:
    """True for a full disk, an I/O error, a file that cannot be written or is no database (any more).

    The other errors of sqlite3 (a constraint, a wrong statement) are an operation's own.
    """
    return isinstance(exc, sqlite3.OperationalError | OSError) or is_damage(exc)


def is_damage(exc: Exception) -> bool:
    """True for a file that is no database (any more), and not for a disk that is full or cannot be written."""
    return type(exc) is sqlite3.DatabaseError


def is_passing(exc: BaseException | None) -> bool:
    """True for trouble that ends by itself when the disk does: it is full, or failing. The rest is a mistake."""
    if isinstance(exc, sqlite3.Error):
        return getattr(exc, "sqlite_errorcode", 0) & 0xFF in {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR}
    return isinstance(exc, OSError) and exc.errno in {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EFBIG}


def _is_full(exc: Exception) -> bool:
    return getattr(exc, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL


def _commit(connection: sqlite3.Connection, group: _Group) -> tuple[list[_Answer], Exception | None]:
    """Every operation in one transaction; if one of them is at fault, each in its own, so that it fails alone.

    The answers of those that came to their end, in order, and the trouble with the disk that stopped the others.
    """
    try:
        return _together(connection, group), None
    except Exception as exc:  # noqa: BLE001 -- it goes to those who asked
        error = exc
    if is_storage_trouble(error):
        return [], error
    if len(group) == 1:
        return [(group[0], None, error)], None
    answers: list[_Answer] = []
    for operation in group:
        more, trouble = _commit(connection, [operation])
        answers += more
        if trouble is not None:
            return answers, trouble
    return answers, None


def _together(connection: sqlite3.Connection, group: _Group) -> list[_Answer]:
    """All in one transaction, or none."""
    if len(group) == 1 and group[0].one_statement:
        reach("before_commit")
        answers: list[_Answer] = [(group[0], group[0].work(connection), None)]
        reach("after_commit")
        return answers
    try:
        connection.execute("BEGIN IMMEDIATE")
        answers = [(operation, operation.work(connection), None) for operation in group]
        reach("before_commit")
        connection.execute("COMMIT")
        reach("after_commit")
    except Exception:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    return answers


def _all_failed(group: _Group, exc: Exception) -> list[_Answer]:
    error = exc
    if not isinstance(exc, StorageError | StartError):
        error = StorageError(str(exc))
        error.__cause__ = exc
    return [(operation, None, error) for operation in group]


def _deliver(answers: list[_Answer]) -> None:
    for operation, result, error in answers:
        operation.end(result, error)


_comes_last = attrgetter("comes_last")
