"""Room on the disk. Some of it is never given to new events, so that those that were accepted can always end.

To end an event something must be written, first into SQLite's log and then into the file. Without room for both, a disk
that the journal itself has filled would stay full for ever.
"""

import os
import sqlite3
from pathlib import Path

_MOST, _LEAST = 16 * 2**20, 2**18
_SHARE = 8
_UNKNOWN = 2**62
"""Of a file system that does not say how large it is: then only the writing itself shows."""

GROWTH = 3
"""Bytes that the disk is asked for by one byte of an event: in the log, in the file, and what goes with it."""
NONE = "the disk is full, but for the room that it takes to end what was accepted"


def log_limit(path: Path) -> int:
    """Bytes that the write-ahead log may come to: 16 MiB, less on a small disk."""
    disk = os.statvfs(path.parent)
    return max(_LEAST, min(_MOST, disk.f_frsize * disk.f_blocks // _SHARE))


def left(path: Path, connection: sqlite3.Connection) -> int:
    """Bytes that new events may take; 0 if that is next to nothing."""
    disk, limit = os.statvfs(path.parent), log_limit(path)
    if disk.f_blocks == 0:
        return _UNKNOWN
    (page,) = connection.execute("PRAGMA page_size").fetchone()
    (pages,) = connection.execute("PRAGMA page_count").fetchone()
    (free_pages,) = connection.execute("PRAGMA freelist_count").fetchone()
    log = path.with_name(path.name + "-wal")
    growing = max(0, page * pages - path.stat().st_size)  # what stands in the log alone
    spare = disk.f_frsize * disk.f_bavail + (log.stat().st_size if log.exists() else 0) - growing - 2 * limit
    room = max(0, spare) + page * free_pages if spare > -limit else 0
    return room if room > limit // 4 else 0
