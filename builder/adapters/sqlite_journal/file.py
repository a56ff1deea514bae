"""The journal's file: who may have it, how it is opened, and what is done with one that is damaged."""

import errno
import fcntl
import os
import socket
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

import structlog

from builder.adapters.sqlite_journal.room import log_limit
from builder.adapters.sqlite_journal.salvage import salvage
from builder.adapters.sqlite_journal.schema import migrate, version_of
from builder.adapters.sqlite_journal.writer import is_damage
from builder.errors import StartError
from builder.settings import Settings

_ITS_FILES = ("", "-wal", "-shm")

log = structlog.get_logger(__name__)


def journal_path(settings: Settings, environ: Mapping[str, str]) -> Path:
    """``journal.path``, else in the user's state folder (https://specifications.freedesktop.org/basedir-spec).

    Raises:
        StartError: there is neither.
    """
    if settings.journal.path is not None:
        return Path(settings.journal.path)
    state = Path(environ.get("XDG_STATE_HOME", ""))
    if not state.is_absolute():  # unset, or to be ignored as the specification says
        home = Path(environ.get("HOME", ""))
        if not home.is_absolute():
            msg = "journal.path is not set and there is no home folder: set it to a file in a folder that lasts"
            raise StartError(msg)
        state = home / ".local" / "state"
    return state / "knative-lambda-builder" / "journal.sqlite3"


@contextmanager
def locked(path: Path) -> Iterator[Path]:
    """Own the file until the end of the block, or of the process however it ends; its true name.

    Raises:
        StartError: another process has it, or there is no writing in its folder.
    """
    path = path.resolve()  # two names of one file must not come to two locks
    lock = path.with_name(path.name + ".lock")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as exc:
        mend = "free it" if exc.errno in {errno.ENOSPC, errno.EDQUOT} else "mend that"
        advice = f"{mend}, or set journal.path to a folder that lasts"
        msg = f"journal.path: cannot write in {path.parent}: {exc.strerror} ({advice})"
        raise StartError(msg) from exc
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            holder = os.read(descriptor, 200).decode(errors="replace").strip() or "another process"
            msg = f"journal.path: {path} is in use by {holder}; each service needs a file of its own"
            raise StartError(msg) from exc
        _sign(descriptor)
        yield path
    finally:
        os.close(descriptor)


def _sign(lock: int) -> None:
    """Leave our name for whoever finds the file locked."""
    with suppress(OSError):  # a full disk: the lock holds without it
        os.truncate(lock, 0)
        os.pwrite(lock, f"process {os.getpid()} on {socket.gethostname()}\n".encode(), 0)


def connect(path: Path, *, suspect: bool) -> sqlite3.Connection:
    """A connection to a sound file of this version. A damaged one is set aside, and what can be read is taken over.

    A ``suspect`` file is read whole, indexes too.

    Raises:
        sqlite3.Error, OSError: the disk would not.
        StartError: the file is of a newer version.
    """
    rebuilt = path.with_name(f"{path.name}.rebuilt")
    if rebuilt.exists() and not path.exists():  # we died between the two steps of ``_exchange``
        _exchange(path, rebuilt)
    try:
        return _open(path, "integrity_check" if suspect else "quick_check")
    except sqlite3.DatabaseError as exc:
        if not is_damage(exc):
            raise
        log.error("journal_damaged", file=str(path), error=str(exc))  # noqa: TRY400 -- the disk's fault: no traceback
    for suffix in _ITS_FILES:
        _beside(rebuilt, suffix).unlink(missing_ok=True)
    with closing(_open(rebuilt)) as fresh:
        recovered = salvage(fresh, path)
    aside = _exchange(path, rebuilt)
    log.error("journal_set_aside", damaged_file=str(aside), recovered=recovered, then="look at it, or delete it")
    return _open(path)


def _open(path: Path, check: str = "quick_check") -> sqlite3.Connection:
    # Events may hold secrets: nobody else reads the file, nor those that SQLite puts beside it with the same mode.
    os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    # Transactions are begun by hand. The connection is made and used in the writer's thread alone.
    connection = sqlite3.connect(path, isolation_level=None, cached_statements=128)
    try:
        version = version_of(connection)  # before anything is written
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA cache_size = -1024")  # a group's pages, and the upper levels of 10^6 identities
        # Seldom enough that one commit in a thousand, not in a hundred, has to copy pages into the file as well.
        limit = log_limit(path)
        connection.execute(f"PRAGMA wal_autocheckpoint = {limit // 4096}")
        connection.execute(f"PRAGMA journal_size_limit = {limit}")
        _demand_soundness(connection, check)
        migrate(connection, version)
    except BaseException:
        connection.close()
        raise
    connection.row_factory = sqlite3.Row
    # A byte that the disk changed is for the reader of the value to find, and no reason to refuse the whole file.
    connection.text_factory = lambda text: text.decode(errors="replace")
    return connection


def _demand_soundness(connection: sqlite3.Connection, check: str) -> None:
    (verdict,) = connection.execute(f"PRAGMA {check}(1)").fetchone()
    if verdict != "ok":
        raise sqlite3.DatabaseError(verdict)


def _exchange(path: Path, rebuilt: Path) -> Path:
    """Rename the damaged file, and what belongs to it, and put the rebuilt one in its place; the damaged one's name.

    In this order: a crash after the first step leaves no file at all, which ``connect`` understands.
    """
    aside = path.with_name(f"{path.name}.damaged-{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}")
    for suffix in _ITS_FILES:
        if _beside(path, suffix).exists():
            _beside(path, suffix).rename(_beside(aside, suffix))
    rebuilt.rename(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
    return aside


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)
