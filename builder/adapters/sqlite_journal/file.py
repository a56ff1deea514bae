"""The journal's file: who may have it, how it is opened, and what is done with one that is damaged."""

import fcntl
import os
import socket
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

import structlog

from builder.adapters.sqlite_journal.schema import migrate
from builder.adapters.sqlite_journal.writer import is_storage_trouble
from builder.errors import StartError
from builder.settings import Settings

TABLES = ("events", "dead_letters", "results")

log = structlog.get_logger(__name__)


def journal_path(settings: Settings, environ: Mapping[str, str]) -> Path:
    """``journal.path``, else in the user's state folder (https://specifications.freedesktop.org/basedir-spec)."""
    if settings.journal.path is not None:
        return Path(settings.journal.path)
    state = environ.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
    return Path(state) / "knative-lambda-builder" / "journal.sqlite3"


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Own the file until the end of the block, or of the process however it ends.

    Raises:
        StartError: another process has it, or there is no writing in its folder.
    """
    lock = path.with_name(path.name + ".lock")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as exc:
        msg = f"journal.path: cannot write in {path.parent}: {exc.strerror} (set journal.path to a folder that lasts)"
        raise StartError(msg) from exc
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as exc:
            holder = os.read(descriptor, 200).decode(errors="replace").strip() or "another process"
            msg = f"journal.path: {path} is in use by {holder}; each service needs a file of its own"
            raise StartError(msg) from exc
        os.truncate(descriptor, 0)
        os.pwrite(descriptor, f"process {os.getpid()} on {socket.gethostname()}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)


def connect(path: Path) -> sqlite3.Connection:
    """A connection to a sound file of this version. A damaged one is set aside, and what can be read is taken over.

    Raises:
        sqlite3.Error: the disk would not.
        StartError: the file is of a newer version.
    """
    try:
        return _open(path)
    except sqlite3.DatabaseError as exc:
        if not _is_damage(exc):
            raise
        log.error("journal_damaged", file=str(path), error=str(exc))
    aside = _set_aside(path)
    connection = _open(path)
    counts = {table: _salvage(connection, aside, table) for table in TABLES}
    log.error("journal_set_aside", damaged_file=str(aside), recovered=counts, then="look at it, or delete it")
    return connection


def _open(path: Path) -> sqlite3.Connection:
    # Transactions are begun by hand. The connection is made and used in the writer's thread alone.
    connection = sqlite3.connect(path, isolation_level=None, cached_statements=64)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA journal_size_limit = 16777216")
        (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
        if verdict != "ok":
            raise sqlite3.DatabaseError(verdict)
        migrate(connection)
    except BaseException:
        connection.close()
        raise
    connection.row_factory = sqlite3.Row
    return connection


def _is_damage(exc: sqlite3.DatabaseError) -> bool:
    """True for a file that is no database (any more), and not for a disk that is full or cannot be written."""
    return type(exc) is sqlite3.DatabaseError and is_storage_trouble(exc)


def _set_aside(path: Path) -> Path:
    """Rename the file and what belongs to it; its new name."""
    aside = path.with_name(f"{path.name}.damaged-{datetime.now(UTC):%Y%m%dT%H%M%SZ}")
    for suffix in ("-wal", "-shm", ""):
        with suppress(FileNotFoundError):
            path.with_name(path.name + suffix).rename(aside.with_name(aside.name + suffix))
    return aside


def _salvage(connection: sqlite3.Connection, aside: Path, table: str) -> int:
    """Copy a table's rows from both ends of the damaged file, as far as each can be read; how many."""
    copied = 0
    for order in ("ASC", "DESC"):
        with suppress(sqlite3.Error), closing(sqlite3.connect(aside)) as damaged:
            columns = [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]
            key = columns[0]
            rows = damaged.execute(f"SELECT {', '.join(columns)} FROM {table} ORDER BY {key} {order}")  # noqa: S608 -- our own names
            statement = f"INSERT OR IGNORE INTO {table} VALUES ({', '.join('?' * len(columns))})"  # noqa: S608
            connection.execute("BEGIN")
            try:
                for row in rows:
                    copied += connection.execute(statement, row).rowcount
            finally:
                connection.execute("COMMIT")
    return copied
