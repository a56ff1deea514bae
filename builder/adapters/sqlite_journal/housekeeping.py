"""What is over goes, in steps that nobody notices."""

import errno
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from builder.adapters.sqlite_journal import letters, room
from builder.adapters.sqlite_journal.seen import Seen
from builder.settings import Settings

STEP, CHUNK = 500, 50
"""Rows that are removed in one transaction, and between two looks at the clock."""
LONGEST = 0.004
"""Seconds that a step may take and begin another chunk: of a million rows, each stands on a page of its own."""
PERIOD = 1.0
"""Seconds between two looks when nothing is left to do."""

_FOREVER = 1e18


class Tidied(NamedTuple):
    """What one step found. ``rest`` is in seconds: how long to leave others in peace. ``room`` is for new events."""

    rest: float
    evicted: int
    room: int


def tidy(path: Path, now: float, settings: Settings, seen: Seen, connection: sqlite3.Connection) -> Tidied:
    """One step, in one transaction.

    Raises:
        FileNotFoundError: the file was deleted. SQLite itself would go on for ever with it, and no restart would find
            what is in it.
    """
    if not path.exists():
        raise FileNotFoundError(errno.ENOENT, "deleted while it was in use", str(path))
    began = time.monotonic()
    more = seen.learn(connection)  # before the sweep: what that removes is there again if the commit fails
    more |= sweep(now, settings, connection)
    rest = time.monotonic() - began if more else PERIOD
    return Tidied(rest, letters.evicted(connection), room.left(path, connection))


def sweep(
    now: float, settings: Settings, connection: sqlite3.Connection, clock: Callable[[], float] = time.monotonic
) -> bool:
    """Remove at most ``STEP`` rows of each kind, and fewer where they take their time; True if some may be left."""
    began = clock()
    for _ in range(STEP // CHUNK):
        if _sweep_some(now, settings, connection) < CHUNK:
            return False
        if clock() - began > LONGEST:
            break
    return True


def _sweep_some(now: float, settings: Settings, connection: sqlite3.Connection) -> int:
    """A chunk of each kind at the most; how many of the kind that had most."""
    seen, results = connection.execute("SELECT seen, results FROM counts").fetchone()
    return max(
        _remove("seen", "identity", "until", now, seen - settings.idempotency.max_entries, connection),
        _remove("results", "seq", "seq", now, results - settings.results.max_entries, connection),
        letters.expire(now - settings.dead_letters.max_age, CHUNK, connection),
    )


def probe(connection: sqlite3.Connection) -> None:
    """Write something that must reach the disk, and changes nothing."""
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    connection.execute(f"PRAGMA user_version = {version}")


def _remove(table: str, key: str, age: str, now: float, too_many: int, connection: sqlite3.Connection) -> int:
    """Of the oldest those whose time is over, or that are too many. ``age`` is the column that tells the oldest."""
    oldest = f"SELECT {key} FROM {table} ORDER BY {age} LIMIT ?"  # noqa: S608 -- our own names
    statement = f"DELETE FROM {table} WHERE until <= ? AND {key} IN ({oldest})"  # noqa: S608
    removed = connection.execute(statement, (now, CHUNK)).rowcount
    rest = min(CHUNK, too_many) - removed
    return removed + (connection.execute(statement, (_FOREVER, rest)).rowcount if rest > 0 else 0)
