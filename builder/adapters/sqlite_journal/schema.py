"""The database's tables, and how a file of an older version becomes one of this."""

import sqlite3

from builder.errors import StartError

MIGRATIONS = (
    # 1: the first. An event has its row in ``events`` until it is settled, and from then on, until its time is over,
    # its identity in ``seen``: rows that shrink in place would leave the pages around them half empty. The counts are
    # kept by triggers, so that nobody has to count a million rows.
    """
    CREATE TABLE events (
        seq INTEGER PRIMARY KEY,
        identity BLOB NOT NULL UNIQUE,
        priority INTEGER NOT NULL,
        accepted_at REAL NOT NULL,
        attributes TEXT NOT NULL,
        progress TEXT,
        data BLOB NOT NULL
    );
    CREATE INDEX events_in_order ON events (priority, seq);
    CREATE TABLE seen (
        identity BLOB PRIMARY KEY,
        until REAL NOT NULL
    ) WITHOUT ROWID;
    CREATE INDEX seen_until ON seen (until);
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
        attempts INTEGER NOT NULL,
        first_at REAL NOT NULL,
        last_at REAL NOT NULL,
        replayed_at REAL,
        bytes INTEGER NOT NULL,
        body BLOB NOT NULL
    );
    CREATE INDEX dead_letters_last ON dead_letters (last_at);
    CREATE TABLE results (
        correlation_id TEXT PRIMARY KEY,
        until REAL NOT NULL,
        document TEXT NOT NULL
    ) WITHOUT ROWID;
    CREATE INDEX results_until ON results (until);
    CREATE TABLE counts (
        seen INTEGER NOT NULL,
        results INTEGER NOT NULL,
        letters INTEGER NOT NULL,
        letter_bytes INTEGER NOT NULL,
        evicted INTEGER NOT NULL
    );
    INSERT INTO counts VALUES (0, 0, 0, 0, 0);
    CREATE TRIGGER seen_kept AFTER INSERT ON seen BEGIN
        UPDATE counts SET seen = seen + 1;
    END;
    CREATE TRIGGER seen_gone AFTER DELETE ON seen BEGIN
        UPDATE counts SET seen = seen - 1;
    END;
    CREATE TRIGGER result_kept AFTER INSERT ON results BEGIN
        UPDATE counts SET results = results + 1;
    END;
    CREATE TRIGGER result_gone AFTER DELETE ON results BEGIN
        UPDATE counts SET results = results - 1;
    END;
    CREATE TRIGGER letter_kept AFTER INSERT ON dead_letters BEGIN
        UPDATE counts SET letters = letters + 1, letter_bytes = letter_bytes + NEW.bytes;
    END;
    CREATE TRIGGER letter_changed AFTER UPDATE OF bytes ON dead_letters BEGIN
        UPDATE counts SET letter_bytes = letter_bytes + NEW.bytes - OLD.bytes;
    END;
    CREATE TRIGGER letter_gone AFTER DELETE ON dead_letters BEGIN
        UPDATE counts SET letters = letters - 1, letter_bytes = letter_bytes - OLD.bytes;
    END;
    """,
    # 2: the order of unfinished events is asked for once in a process's life, and an index was kept for each of them.
    """
    DROP INDEX events_in_order;
    """,
    # 3: who owns the file remembers the identities of unfinished events (``Admission``), so that none is indexed. A
    # table's own index goes only with the table.
    """
    CREATE TABLE unindexed (
        seq INTEGER PRIMARY KEY,
        identity BLOB NOT NULL,
        priority INTEGER NOT NULL,
        accepted_at REAL NOT NULL,
        attributes TEXT NOT NULL,
        progress TEXT,
        data BLOB NOT NULL
    );
    INSERT INTO unindexed SELECT seq, identity, priority, accepted_at, attributes, progress, data FROM events;
    DROP TABLE events;
    ALTER TABLE unindexed RENAME TO events;
    """,
    # 4: results are read once, at the start, and looked up in memory. So each stands behind the one before, and not by
    # its correlation id on a page of its own.
    """
    CREATE TABLE appended (
        seq INTEGER PRIMARY KEY,
        until REAL NOT NULL,
        document TEXT NOT NULL
    );
    INSERT INTO appended (until, document) SELECT until, document FROM results ORDER BY until;
    DROP TABLE results;
    ALTER TABLE appended RENAME TO results;
    CREATE TRIGGER result_kept AFTER INSERT ON results BEGIN
        UPDATE counts SET results = results + 1;
    END;
    CREATE TRIGGER result_gone AFTER DELETE ON results BEGIN
        UPDATE counts SET results = results - 1;
    END;
    """,
)
VERSION = len(MIGRATIONS)
TABLES = ("events", "seen", "dead_letters", "results")
"""What a damaged file is searched for; the counts follow."""


def version_of(connection: sqlite3.Connection) -> int:
    """The file's version; 0 is an empty one.

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
    return int(version)


def migrate(connection: sqlite3.Connection, version: int) -> None:
    """Bring the file from ``version`` to this one, one step after the other, each whole or not at all."""
    for number, script in enumerate(MIGRATIONS[version:], start=version + 1):
        connection.executescript(f"BEGIN IMMEDIATE; {script} PRAGMA user_version = {number}; COMMIT;")
