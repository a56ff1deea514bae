"""The database's tables, and how a file of an older version becomes one of this."""

import sqlite3

from builder.errors import StartError

MIGRATIONS = (
    # 1: the first. Of a finished event only the identity is left, until its time is over. The counts are kept by
    # triggers, so that nobody has to count a million rows.
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
        identity BLOB NOT NULL UNIQUE,
        reason TEXT NOT NULL,
        error TEXT NOT NULL,
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
    CREATE TABLE counts (
        seen INTEGER NOT NULL,
        letters INTEGER NOT NULL,
        letter_bytes INTEGER NOT NULL,
        evicted INTEGER NOT NULL
    );
    INSERT INTO counts VALUES (0, 0, 0, 0);
    CREATE TRIGGER event_finished AFTER UPDATE OF seen_until ON events BEGIN
        UPDATE counts SET seen = seen + (NEW.seen_until IS NOT NULL) - (OLD.seen_until IS NOT NULL);
    END;
    CREATE TRIGGER event_forgotten AFTER DELETE ON events WHEN OLD.seen_until IS NOT NULL BEGIN
        UPDATE counts SET seen = seen - 1;
    END;
    CREATE TRIGGER letter_kept AFTER INSERT ON dead_letters BEGIN
        UPDATE counts SET letters = letters + 1, letter_bytes = letter_bytes + NEW.bytes;
    END;
    CREATE TRIGGER letter_gone AFTER DELETE ON dead_letters BEGIN
        UPDATE counts SET letters = letters - 1, letter_bytes = letter_bytes - OLD.bytes;
    END;
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
