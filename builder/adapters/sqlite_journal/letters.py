"""The dead letters' rows. Every function is one step inside a transaction of the writer's."""

import sqlite3
from typing import Any

from builder.adapters.sqlite_journal.rows import LETTER_COLUMNS, letter_of, letter_row
from builder.flow.ports import LetterFilter
from builder.models import DeadLetter
from builder.settings import DeadLetters

# One event has one letter: one that fails again, or is rejected again, adds its attempts to the letter that is there.
_TOLD_ANEW = "reason, error, message, problems, attributes, type, third_party_id, content_type, last_at, bytes, body"
_KEEP = f"""
INSERT INTO dead_letters ({LETTER_COLUMNS}) VALUES ({", ".join("?" * len(LETTER_COLUMNS.split(", ")))})
ON CONFLICT (identity) DO UPDATE SET {", ".join(f"{name} = excluded.{name}" for name in _TOLD_ANEW.split(", "))},
    attempts = attempts + excluded.attempts, replayed_at = NULL
"""  # noqa: S608 -- our own column names


def keep(letter: DeadLetter, key: bytes, bounds: DeadLetters, connection: sqlite3.Connection) -> None:
    """Add a letter; the oldest others make room for it."""
    connection.execute(_KEEP, letter_row(letter, key))
    while True:
        count, size = connection.execute("SELECT letters, letter_bytes FROM counts").fetchone()
        if count <= 1 or (count <= bounds.max_count and size <= bounds.max_bytes):
            return
        oldest = "SELECT min(id) FROM dead_letters WHERE identity <> ?"
        connection.execute(f"DELETE FROM dead_letters WHERE id = ({oldest})", (key,))  # noqa: S608
        connection.execute("UPDATE counts SET evicted = evicted + 1")


def evicted(connection: sqlite3.Connection) -> int:
    """How many made room, or were too old, since the file was made."""
    (letters,) = connection.execute("SELECT evicted FROM counts").fetchone()
    return int(letters)


def count(connection: sqlite3.Connection) -> int:
    """See ``DeadLetterBox.count``."""
    (letters,) = connection.execute("SELECT letters FROM counts").fetchone()
    return int(letters)


def find(wanted: LetterFilter, limit: int, connection: sqlite3.Connection) -> list[DeadLetter]:
    """See ``DeadLetterBox.letters``."""
    conditions: list[tuple[str, Any]] = [
        ("reason = ?", wanted.reason),
        ("type = ?", wanted.type),
        ("third_party_id = ?", wanted.third_party_id),
        ("last_at >= ?", None if wanted.since is None else wanted.since.timestamp()),
        ("last_at < ?", None if wanted.until is None else wanted.until.timestamp()),
        ("(replayed_at IS NOT NULL) = ?", wanted.replayed),
        ("id < ?", wanted.before),
    ]
    used = [(condition, value) for condition, value in conditions if value is not None]
    where = " AND ".join(["1", *(condition for condition, _ in used)])
    found = connection.execute(
        f"SELECT * FROM dead_letters WHERE {where} ORDER BY id DESC LIMIT ?",  # noqa: S608 -- our own conditions
        (*(value for _, value in used), limit),
    )
    return [letter_of(row) for row in found]


def one(letter_id: int, connection: sqlite3.Connection) -> DeadLetter | None:
    """See ``DeadLetterBox.letter``."""
    row = connection.execute("SELECT * FROM dead_letters WHERE id = ?", (letter_id,)).fetchone()
    return None if row is None else letter_of(row)


def discard(letter_id: int, connection: sqlite3.Connection) -> bool:
    """See ``DeadLetterBox.discard``."""
    return connection.execute("DELETE FROM dead_letters WHERE id = ?", (letter_id,)).rowcount == 1


def mark_replayed(letter_id: int, now: float, connection: sqlite3.Connection) -> bool:
    """True if that was news."""
    mark = "UPDATE dead_letters SET replayed_at = ? WHERE id = ? AND replayed_at IS NULL"
    return connection.execute(mark, (now, letter_id)).rowcount == 1


def mark_resolved(identity: bytes, now: float, connection: sqlite3.Connection) -> None:
    """Its event came again, be it without a replay, and has ended well."""
    mark = "UPDATE dead_letters SET replayed_at = ? WHERE identity = ? AND replayed_at IS NULL"
    connection.execute(mark, (now, DeadLetter.key_of(identity)))


def expire(before: float, limit: int, connection: sqlite3.Connection) -> int:
    """Remove at most ``limit`` letters whose last failure was before; how many."""
    old = "SELECT id FROM dead_letters WHERE last_at < ? ORDER BY last_at LIMIT ?"
    removed = connection.execute(f"DELETE FROM dead_letters WHERE id IN ({old})", (before, limit)).rowcount  # noqa: S608
    if removed:
        connection.execute("UPDATE counts SET evicted = evicted + ?", (removed,))
    return removed
