"""The identities of finished events, each for its time: who comes again under one of them is not new."""

import sqlite3
from collections.abc import Iterable

from rbloom import Bloom

MORE = 50_000
"""Identities that a filter has room for beside those that it begins with, if these are fewer."""
ERRORS = 0.01
"""How often a full filter says "perhaps" of one that it does not hold."""
STEP = 1_000
"""Identities that ``learn`` reads at once."""

_HAS = "SELECT EXISTS (SELECT 1 FROM seen WHERE identity = ? AND until > ?)"
_REMEMBER = "INSERT INTO seen VALUES (?, ?) ON CONFLICT (identity) DO UPDATE SET until = excluded.until"
_NEXT = "SELECT identity FROM seen WHERE identity > ? ORDER BY identity LIMIT ?"


class Seen:
    """The table ``seen``, and a Bloom filter of what is in it.

    To look among a million identities costs more than to write the event, and nearly every event is new. The filter
    holds all that are in the file, and perhaps some that no longer are: what it does not hold needs no look.

    Every method that is given the connection is one step inside a transaction of the writer's.
    """

    def __init__(self) -> None:
        self._connection: sqlite3.Connection | None = None
        self._filter: Bloom | None = None
        self._next: Bloom | None = None
        self._read_up_to = b""
        self._room = 0

    def has(self, identity: bytes, now: float, connection: sqlite3.Connection) -> bool:
        """True while its time runs."""
        (found,) = connection.execute(_HAS, (identity, now)).fetchone()
        return bool(found)

    def has_none(self, identities: Iterable[bytes], connection: sqlite3.Connection) -> bool:
        """True if certainly none of them is in the file; False tells nothing."""
        known = self._filter
        if known is None or connection is not self._connection:
            return False
        return not any(map(known.__contains__, identities))

    def remember(self, identity: bytes, until: float, connection: sqlite3.Connection) -> None:
        """Its time runs ``until`` then, in seconds since 1970."""
        connection.execute(_REMEMBER, (identity, until))
        self._room -= 1
        for known in (self._filter, self._next):
            if known is not None:
                known.add(identity)

    def learn(self, connection: sqlite3.Connection) -> bool:
        """Read on in the file, if the filter is missing or full; True if there is more to read.

        A new connection may be to another file, or to one that was mended.
        """
        if connection is not self._connection:
            self._connection, self._filter, self._next = connection, None, None
        if self._next is None:
            if self._filter is not None and self._room > 0:
                return False
            self._next = self._empty(connection)
        found = [identity for (identity,) in connection.execute(_NEXT, (self._read_up_to, STEP))]
        self._next.update(found)
        if len(found) == STEP:
            self._read_up_to = found[-1]
            return True
        self._filter, self._next = self._next, None
        return False

    def _empty(self, connection: sqlite3.Connection) -> Bloom:
        """One with room for as many again as the file has."""
        (kept,) = connection.execute("SELECT seen FROM counts").fetchone()
        self._read_up_to = b""
        self._room = max(kept, MORE)
        return Bloom(2 * self._room, ERRORS)
