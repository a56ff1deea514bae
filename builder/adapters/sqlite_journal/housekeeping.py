"""What is over goes, in steps that nobody notices."""

import errno
import sqlite3
from pathlib import Path

from builder.adapters.sqlite_journal import letters
from builder.settings import Settings

STEP = 500
"""Rows that are removed in one transaction: a few milliseconds."""
PERIOD = 1.0
"""Seconds between two looks when nothing is left to do."""

_FOREVER = 1e18


def demand_file(path: Path, _: sqlite3.Connection) -> None:
    """SQLite itself would go on for ever with a file that was deleted, and no restart would find what is in it.

    Raises:
        FileNotFoundError: it was.
    """
    if not path.exists():
        raise FileNotFoundError(errno.ENOENT, "deleted while it was in use", str(path))


def sweep(now: float, settings: Settings, connection: sqlite3.Connection) -> int:
    """Remove at most ``STEP`` rows of each kind; how many of the kind that had most."""
    seen, results = connection.execute("SELECT seen, results FROM counts").fetchone()
    return max(
        _remove("seen", "identity", now, seen - settings.idempotency.max_entries, connection),
        _remove("results", "correlation_id", now, results - settings.results.max_entries, connection),
        letters.expire(now - settings.dead_letters.max_age, STEP, connection),
    )


def probe(connection: sqlite3.Connection) -> None:
    """Write something that must reach the disk, and changes nothing."""
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    connection.execute(f"PRAGMA user_version = {version}")


def _remove(table: str, key: str, now: float, too_many: int, connection: sqlite3.Connection) -> int:
    """Those whose time is over, and the oldest of those that are too many."""
    over = f"SELECT {key} FROM {table} WHERE until <= ? ORDER BY until LIMIT ?"  # noqa: S608 -- our own names
    statement = f"DELETE FROM {table} WHERE {key} IN ({over})"  # noqa: S608
    removed = connection.execute(statement, (now, STEP)).rowcount
    rest = min(STEP, too_many) - removed
    return removed + (connection.execute(statement, (_FOREVER, rest)).rowcount if rest > 0 else 0)
