"""One thread that owns the database's connection and commits all that waits for it at once."""

import asyncio
import queue
import sqlite3
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from builder.errors import StorageError
from builder.failpoints import Failpoint, reach

T = TypeVar("T")

MAX_GROUP = 512
"""Operations in one transaction: bounds how long the first of them waits for the last."""


@dataclass(frozen=True, slots=True)
class _Operation(Generic[T]):
    work: Callable[[sqlite3.Connection], T]
    answer: "asyncio.Future[T]"


class Writer:
    """Group commit: a transaction holds whatever came while the one before it was on its way to the disk.

    So it grows with the load, and a lone operation waits for nobody. An operation is answered after its commit.
    """

    def __init__(self, connect: Callable[[], sqlite3.Connection]) -> None:
        self._connect = connect
        self._loop = asyncio.get_running_loop()
        self._operations: queue.SimpleQueue[_Operation[Any] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="journal", daemon=True)
        self._thread.start()

    def submit(self, work: Callable[[sqlite3.Connection], T]) -> "asyncio.Future[T]":
        """Do ``work`` in the next transaction. The future has its result once that is on the disk.

        ``work`` runs in the writer's thread and may be run again: it must not change anything but the database.
        The future raises ``StorageError`` where the disk or the file would not.
        """
        answer: asyncio.Future[T] = self._loop.create_future()
        self._operations.put(_Operation(work, answer))
        return answer

    async def close(self) -> None:
        """Commit what waits and end the thread."""
        self._operations.put(None)
        await asyncio.to_thread(self._thread.join)

    def _run(self) -> None:
        connection: sqlite3.Connection | None = None
        last = False
        while not last:
            group, last = self._next_group()
            try:
                if connection is None:
                    connection = self._connect()
                answers = _commit(connection, group)
            except (sqlite3.Error, OSError, StorageError) as exc:
                trouble = exc if isinstance(exc, StorageError) else StorageError(str(exc))
                answers = [(operation, None, trouble) for operation in group]
                _close(connection)
                connection = None
            if answers:
                self._loop.call_soon_threadsafe(_deliver, answers)
        _close(connection)

    def _next_group(self) -> tuple[list[_Operation[Any]], bool]:
        """All that waits now, at least one, and whether it was the last."""
        group: list[_Operation[Any]] = []
        operation = self._operations.get()
        while operation is not None:
            group.append(operation)
            if len(group) == MAX_GROUP or self._operations.empty():
                return group, False
            operation = self._operations.get()
        return group, True


_Answer = tuple[_Operation[Any], Any, Exception | None]


def _commit(connection: sqlite3.Connection, group: list[_Operation[Any]]) -> list[_Answer]:
    """Every operation in one transaction; if one of them is at fault, each in its own, so that it fails alone."""
    if not group:
        return []
    try:
        connection.execute("BEGIN IMMEDIATE")
        answers: list[_Answer] = [(operation, operation.work(connection), None) for operation in group]
        reach(Failpoint.BEFORE_COMMIT)
        connection.execute("COMMIT")
        reach(Failpoint.AFTER_COMMIT)
    except BaseException as exc:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        if not isinstance(exc, Exception) or is_storage_trouble(exc):
            raise
        if len(group) == 1:
            return [(group[0], None, exc)]
        return [answer for operation in group for answer in _commit(connection, [operation])]
    return answers


def is_storage_trouble(exc: Exception) -> bool:
    """True for a full disk, an I/O error, a file that cannot be written or is no database (any more).

    The other errors of sqlite3 (a constraint, a wrong statement) are an operation's own.
    """
    return isinstance(exc, sqlite3.OperationalError | OSError) or type(exc) is sqlite3.DatabaseError


def _close(connection: sqlite3.Connection | None) -> None:
    """Close a connection that failed: the next group opens the file anew, and finds out whether the trouble is over."""
    if connection is not None:
        with suppress(sqlite3.Error):
            connection.close()


def _deliver(answers: list[_Answer]) -> None:
    for operation, result, error in answers:
        if operation.answer.cancelled():
            continue
        if error is None:
            operation.answer.set_result(result)
        else:
            operation.answer.set_exception(error)
