"""Which identities need no look into the file: those that are certainly not in it."""

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from builder.adapters.sqlite_journal import seen
from builder.adapters.sqlite_journal.file import connect
from builder.adapters.sqlite_journal.housekeeping import sweep
from builder.adapters.sqlite_journal.seen import Seen
from tests import building

NEVER = 1e18


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the file is."""
    return tmp_path / "journal.sqlite3"


@pytest.fixture
def connection(path: Path) -> Iterator[sqlite3.Connection]:
    """To an empty file."""
    connection = connect(path, suspect=False)
    yield connection
    connection.close()


def identity(number: int) -> bytes:
    """One of many."""
    return number.to_bytes(16, "big")


def fill(connection: sqlite3.Connection, numbers: range) -> None:
    """As earlier processes left them, in the order of their numbers."""
    connection.executemany("INSERT INTO seen VALUES (?, ?)", ((identity(number), float(number)) for number in numbers))


def learnt(connection: sqlite3.Connection) -> Seen:
    """One that has read the whole file."""
    known = Seen()
    while known.learn(connection):
        pass
    return known


def missed(known: Seen, numbers: range, connection: sqlite3.Connection) -> int:
    """How many of them are said to be new."""
    return sum(known.has_none([identity(number)], connection) for number in numbers)


def test_all_that_is_in_the_file_is_known_and_hardly_anything_else(connection: sqlite3.Connection) -> None:
    """Whatever the number of steps in which it was read; and one known identity among others is enough."""
    count = 2 * seen.STEP + 1
    fill(connection, range(count))
    known = learnt(connection)
    assert missed(known, range(count), connection) == 0
    assert missed(known, range(count, 2 * count), connection) > 0.9 * count
    new = next(number for number in range(count, 2 * count) if known.has_none([identity(number)], connection))
    assert not known.has_none([identity(new), identity(0)], connection)


def test_until_the_whole_file_is_read_nothing_is_said(connection: sqlite3.Connection) -> None:
    """Of the part that is not read yet nobody knows."""
    fill(connection, range(seen.STEP + 1))
    known = Seen()
    said = [known.has_none([identity(10**6)], connection)]
    while known.learn(connection):
        said.append(known.has_none([identity(10**6)], connection))
    assert said == [False, False]
    assert known.has_none([identity(10**6)], connection)


@pytest.mark.parametrize("number", [0, 10**6], ids=["before what is read", "behind it"])
def test_what_ends_while_the_file_is_read_is_known(connection: sqlite3.Connection, number: int) -> None:
    """Wherever the reading is."""
    fill(connection, range(1, seen.STEP + 10))
    known = Seen()
    assert known.learn(connection)
    known.remember(identity(number), NEVER, connection)
    while known.learn(connection):
        pass
    assert missed(known, range(number, number + 1), connection) == 0


def test_a_full_filter_is_made_anew_of_what_is_left(
    connection: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So an endless stream does not fill it with those whose time was over long ago; and none is missed meanwhile."""
    monkeypatch.setattr(seen, "MORE", 500)
    monkeypatch.setattr(seen, "STEP", 100)
    settings = building.settings(idempotency={"maxEntries": 400})
    known = learnt(connection)
    for number in range(10_000):
        known.remember(identity(number), float(number), connection)
        if number % 50 == 0:
            sweep(0.0, settings, connection)
            known.learn(connection)
            assert missed(known, range(max(0, number - 399), number + 1), connection) == 0
    assert missed(known, range(8_000), connection) > 7_000


def test_another_file_is_read_anew(path: Path, connection: sqlite3.Connection) -> None:
    """After trouble with the disk the journal opens its file again, and who knows what was put there."""
    known = learnt(connection)
    path.rename(path.with_suffix(".old"))
    other = connect(path, suspect=False)
    fill(other, range(3))
    assert not known.has_none([identity(1)], other)
    while known.learn(other):
        pass
    assert not known.has_none([identity(1)], other)
    assert known.has_none([identity(10**6)], other)
    other.close()
