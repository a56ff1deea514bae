"""What is over goes, what is bounded stays bounded, and the counts are right, while the journal works on."""

import asyncio
import itertools
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from builder.adapters.sqlite_journal import SqliteJournal, housekeeping
from builder.adapters.sqlite_journal.file import connect
from builder.flow.ports import LetterFilter
from builder.models import Outcome
from tests import building
from tests.journal_parts import (
    Clock,
    check_counts,
    entry,
    execute,
    finish,
    identity,
    kept,
    letter,
    opened,
    rows,
    size,
    until,
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the journal is."""
    return tmp_path / "journal.sqlite3"


async def test_what_is_over_goes_in_small_steps(path: Path) -> None:
    """Ten thousand expired rows of two kinds take twenty transactions; more where the disk takes its time."""
    async with opened(path):
        pass
    ten_thousand = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 10000)"
    execute(path, f"INSERT INTO seen {ten_thousand} SELECT randomblob(16), i FROM n")  # noqa: S608
    execute(path, f"INSERT INTO results {ten_thousand} SELECT NULL, i, '{{}}' FROM n")  # noqa: S608
    check_counts(path)
    with closing(connect(path, suspect=False)) as connection:
        ages = itertools.count()
        clocks: list[Callable[[], float]] = [lambda: 0.0, lambda: next(ages)]
        left: list[tuple[int, int]] = []
        while housekeeping.sweep(1e10, building.settings(), connection, clocks[len(left) == 1]):
            left.append(connection.execute("SELECT seen, results FROM counts").fetchone()[:])
    assert left == [(count, count) for count in (9500, 9450, *range(8950, 0, -500))]
    assert rows(path, "SELECT seen, results FROM counts") == [(0, 0)]


async def test_bounds_hold_whatever_the_time(path: Path) -> None:
    """Identities and results over their number go, the oldest first; letters when they are too old."""
    clock = Clock()
    bounds: dict[str, Any] = {
        "idempotency": {"ttl": "1h", "maxEntries": 10},
        "results": {"ttl": "1h", "maxEntries": 5},
        "deadLetters": {"maxAge": "30m"},
    }
    async with opened(path, clock, **bounds) as journal:
        await journal.park(letter(1))
        for number in range(30):
            await finish(journal, f"e-{number}")
            clock.time += 1
        await journal.park(letter(2, last_at=building.NOON.replace(hour=13)))
        clock.time += 1800
        async with kept(journal):
            await until(lambda: rows(path, "SELECT seen, results, letters FROM counts") == [(10, 5, 1)])
        assert [await journal.seen(identity(f"e-{number}")) for number in (19, 20)] == [False, True]
        assert [one.event_id for one in await journal.results()] == [f"e-{number}" for number in range(25, 30)]
        assert [one.attributes["id"] for one in await journal.letters(LetterFilter(), 9)] == ["r-2"]
    check_counts(path)


async def stream(journal: SqliteJournal, clock: Clock, numbers: range, size: int = 600) -> None:
    """Events through their whole life, two hundred at a time, a hundredth of a second each."""
    for start in numbers[::200]:
        clock.time += 2
        batch = range(start, start + 200)
        await asyncio.gather(*(finish(journal, f"e-{number}", note="x" * size) for number in batch))


async def test_the_file_stays_small_under_an_endless_stream(path: Path) -> None:
    """Twenty thousand events of which a thousand are remembered leave a file for a thousand, and a bounded log."""
    clock = Clock()
    short = {"idempotency": {"ttl": "10s"}, "results": {"ttl": "1s"}}
    async with opened(path, clock, **short) as journal, kept(journal):
        await stream(journal, clock, range(20_000))
        assert size(path) < 2 * 2**20
        assert size(path, "-wal") < 17 * 2**20
    check_counts(path)


async def test_a_remembered_identity_takes_less_than_200_bytes(path: Path) -> None:
    """Though its event took a kilobyte."""
    clock = Clock()
    sizes = []
    async with opened(path, clock, results={"ttl": "1s"}) as journal, kept(journal):
        for start in (0, 5_000, 10_000):
            await stream(journal, clock, range(start, start + 5_000))
            await until(lambda: rows(path, "SELECT results < 500 FROM counts") == [(1,)])
            rows(path, "PRAGMA wal_checkpoint(TRUNCATE)")
            sizes.append(size(path))
    assert (sizes[2] - sizes[0]) / 10_000 < 200
    check_counts(path)


async def test_counts_are_right_after_everything(path: Path) -> None:
    """Nobody ever counts the rows, so nothing may put the counts wrong."""
    clock = Clock()
    bounds = {"idempotency": {"ttl": "10s"}, "deadLetters": {"maxCount": 3, "maxBytes": 3000}}
    async with opened(path, clock, **bounds) as journal:
        for number in range(6):
            await finish(journal, f"e-{number % 4}-{number // 4}", Outcome.FAILED, note="x" * 100 * number)
            await journal.park(letter(number % 2, size=100))
        for one in await journal.letters(LetterFilter(), 2):
            await journal.readmit(one.id or 0, entry(one.attributes["id"]))
            await journal.discard(one.id or 0)
        clock.time += 11
        await finish(journal, "e-0-0", Outcome.FAILED, note="longer than before")
        async with kept(journal):
            await until(lambda: rows(path, "SELECT seen FROM counts") == [(1,)])
    check_counts(path)
    assert rows(path, "SELECT evicted > 0 FROM counts") == [(1,)]
