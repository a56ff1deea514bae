"""What can still be read of a damaged file is taken over into a new one."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from urllib.parse import quote

from builder.adapters.sqlite_journal.schema import TABLES


def salvage(fresh: sqlite3.Connection, damaged: Path) -> dict[str, int]:
    """Copy every readable row of the damaged file; how many of each table.

    Raises:
        sqlite3.Error: the new file could not be written. Of the damaged one no error is heard.
    """
    fresh.execute("BEGIN")
    copied = {table: _copy(fresh, damaged, table) for table in TABLES}
    fresh.execute("COMMIT")
    fresh.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    return copied


def _copy(fresh: sqlite3.Connection, damaged: Path, table: str) -> int:
    """Both ways, for a scan ends at the first page that cannot be read."""
    columns = [row[1] for row in fresh.execute(f"PRAGMA table_info({table})")]
    statement = f"INSERT OR IGNORE INTO {table} VALUES ({', '.join('?' * len(columns))})"  # noqa: S608 -- our own names
    return sum(
        fresh.execute(statement, row).rowcount
        for order in ("ASC", "DESC")
        for row in _readable(damaged, f"SELECT {', '.join(columns)} FROM {table} ORDER BY {columns[0]} {order}")  # noqa: S608
    )


def _readable(damaged: Path, query: str) -> Iterator[tuple[object, ...]]:
    """The rows up to the first that cannot be read. The file itself is not touched."""
    with suppress(sqlite3.Error), closing(sqlite3.connect(f"file:{quote(str(damaged))}?mode=ro", uri=True)) as source:
        source.execute("PRAGMA writable_schema = ON")  # or SQLite refuses a file that was cut off as a whole
        source.text_factory = lambda text: text.decode(errors="replace")
        yield from source.execute(query)
