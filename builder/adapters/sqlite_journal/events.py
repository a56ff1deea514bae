"""The events' rows, and their results. Every function is one step inside a transaction of the writer's."""

import json
import sqlite3
from collections.abc import Sequence
from functools import cache
from itertools import chain
from typing import Any, NamedTuple

from builder.adapters.sqlite_journal import rows
from builder.adapters.sqlite_journal.seen import Seen
from builder.flow.ports import Entry
from builder.models import Result

PAGE = 200

MAX_ROWS = 64
"""Rows that ``admit`` takes at once: each number of them is a statement of its own, which SQLite compiles."""

_UNLESS_SEEN = "WHERE NOT EXISTS (SELECT 1 FROM seen WHERE identity = column2 AND until > ?)"
_THESE = """
SELECT seq, identity, priority, accepted_at, attributes, progress, data FROM events
WHERE seq IN (SELECT value FROM json_each(?)) ORDER BY priority, seq
"""


class Row(NamedTuple):
    """An event that is to be taken into custody."""

    seq: int
    identity: bytes
    priority: int
    accepted_at: float
    attributes: str
    data: bytes

    @classmethod
    def of(cls, seq: int, entry: Entry) -> "Row":
        """The row of an entry."""
        event = entry.event
        accepted_at = entry.accepted_at.timestamp()
        return cls(seq, event.identity, entry.priority, accepted_at, rows.attributes_of(event), event.data)


def admit(rows: Sequence[Row], connection: sqlite3.Connection) -> set[int]:
    """Take all of them in; their numbers. At most ``MAX_ROWS``.

    That no unfinished event has one of the identities is for the caller to know.
    """
    connection.execute(_insert(len(rows)), _values(rows))
    return {row.seq for row in rows}


def admit_new(rows: Sequence[Row], seen: Seen, now: float, connection: sqlite3.Connection) -> set[int]:
    """The same, but for those whose identity has been seen and its time still runs. Their numbers ascend."""
    if seen.has_none([row.identity for row in rows], connection):
        return admit(rows, connection)
    if connection.execute(f"{_insert(len(rows))} {_UNLESS_SEEN}", [*_values(rows), now]).rowcount == len(rows):
        return {row.seq for row in rows}
    found = connection.execute("SELECT seq FROM events WHERE seq BETWEEN ? AND ?", (rows[0].seq, rows[-1].seq))
    return {seq for (seq,) in found}


def _values(rows: Sequence[Row]) -> list[object]:
    return list(chain.from_iterable(rows))


@cache
def _insert(count: int) -> str:
    """One statement for many rows: each one alone would cost as much again as what it writes."""
    rows = ", ".join(["(?, ?, ?, ?, ?, ?)"] * count)
    columns = "seq, identity, priority, accepted_at, attributes, data"
    return f"INSERT INTO events ({columns}) SELECT * FROM (VALUES {rows})"  # noqa: S608 -- our own question marks


def finish(seq: int, identity: bytes, until: float, seen: Seen, connection: sqlite3.Connection) -> None:
    """Of a settled event the identity is left."""
    connection.execute("DELETE FROM events WHERE seq = ?", (seq,))
    seen.remember(identity, until, connection)


def note(seq: int, progress: str, connection: sqlite3.Connection) -> None:
    """See ``Receipt.note``."""
    connection.execute("UPDATE events SET progress = ? WHERE seq = ?", (progress, seq))


def identities(connection: sqlite3.Connection) -> list[bytes]:
    """Of all unfinished events."""
    return [identity for (identity,) in connection.execute("SELECT identity FROM events")]


def last(connection: sqlite3.Connection) -> int:
    """The number of the youngest unfinished event; 0 if there is none."""
    (number,) = connection.execute("SELECT coalesce(max(seq), 0) FROM events").fetchone()
    return int(number)


def in_order(after: tuple[int, int], up_to: int, connection: sqlite3.Connection) -> list[int]:
    """The numbers of the unfinished events behind (priority, seq), in this order. No index need keep it: it is rare."""
    wanted = "SELECT seq FROM events WHERE (priority, seq) > (?, ?) AND seq <= ? ORDER BY priority, seq"
    return [seq for (seq,) in connection.execute(wanted, (*after, up_to))]


def these(numbers: Sequence[int], connection: sqlite3.Connection) -> list[Any]:
    """The events of these numbers, as far as they are unfinished, in order."""
    return connection.execute(_THESE, (json.dumps(numbers),)).fetchall()


def keep_result(result: Result, until: float, connection: sqlite3.Connection) -> None:
    """The outcome, for those who ask after the next start."""
    connection.execute("INSERT INTO results (until, document) VALUES (?, ?)", (until, rows.document_of(result)))


def results(now: float, limit: int, connection: sqlite3.Connection) -> list[str]:
    """The youngest results as documents, the oldest of them first."""
    newest = "SELECT document FROM results WHERE until > ? ORDER BY seq DESC LIMIT ?"
    return [document for (document,) in connection.execute(newest, (now, limit))][::-1]
