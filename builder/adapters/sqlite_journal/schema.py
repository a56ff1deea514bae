"""The database's tables, and how a file of an older version becomes one of this."""

import sqlite3

from builder.errors import StartError

MIGRATIONS = (
    # 1: the first. An event is unfinished while it has a body; what is left of a finished one is its identity.
    """
    CREATE TABLE events (
        seq INTEGER PRIMARY KEY,
        identity BLOB NOT NULL UNIQUE,
        seen_until REAL,
        priority INTEGER,
        accepted_at REAL,
        attributes TEXT,
        data BLOB,
        patience TEXT
    );
    CREATE INDEX events_unfinished ON events (priority, seq) WHERE seen_until IS NULL;
    CREATE INDEX events_seen ON events (seen_until) WHERE seen_until IS NOT NULL;
    CREATE TABLE dead_letters (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        identity BLOB UNIQUE,
        reason TEXT NOT NULL,
        error TEXT,
        message TEXT NOT NULL,
        problems TEXT NOT NULL,
        attributes TEXT NOT NULL,
        type TEXT,
        third_party_id TEXT,
        content_type TEXT NOT NULL,
        body BLOB NOT NULL,
        attempts INTEGER NOT NULL,
        first_at REAL NOT NULL,
        last_at REAL NOT NULL,
        replayed_at REAL,
        bytes INTEGER NOT NULL
    );
    CREATE TABLE results (
        correlation_id TEXT PRIMARY KEY,
        until REAL NOT NULL,
        document TEXT NOT NULL
    ) WITHOUT ROWID;
    CREATE INDEX results_until ON results (until);
    """,
)
VERSION = len(MIGRATIONS)


def migrate(connection: sqlite3.Connection) -> None:
    """Bring the file to this version, one step after the other, each whole or not at all.

    Raises:
        StartError: it was written by a newer version, whose work we must not misread.
    """
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version > VERSION:
        msg = (
            f"the journal is of version {version} and this program knows {VERSION}: it was written by a newer one; "
            "run that, or set journal.path to another file"
        )
        raise StartError(msg)
    for number, script in enumerate(MIGRATIONS[version:], start=version + 1):
        connection.executescript(f"BEGIN IMMEDIATE; {script} PRAGMA user_version = {number}; COMMIT;")
