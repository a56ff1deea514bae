"""The journal's writer: what shares a commit, and who hears what of it."""

import asyncio
import os
import sqlite3
import sys
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from builder.adapters.sqlite_journal import writer
from builder.adapters.sqlite_journal.writer import CROWD, Writer
from builder.errors import StorageError
from builder.failpoints import Failpoint
from tests.journal_parts import rows


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the database is."""
    return tmp_path / "numbers.sqlite3"


class Bench:
    """A writer over a small table, that can be held up so that operations gather."""

    def __init__(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.commits = 0
        self.writer = Writer(partial(self._connect, path))
        self._free = threading.Event()
        monkeypatch.setattr(writer, "reach", self._reach)

    @asynccontextmanager
    async def held_up(self) -> AsyncIterator[None]:
        """What is submitted in here goes into one group."""
        began = threading.Event()

        def hold(_: sqlite3.Connection) -> None:
            began.set()
            self._free.wait(30)

        self._free.clear()
        self.writer.submit(hold)
        await asyncio.to_thread(began.wait, 30)
        self.commits = -1  # the one that waits
        yield
        while self.writer._gathering:  # noqa: ASYNC110 -- a turn of the loop each
            await asyncio.sleep(0)
        self._free.set()

    def _connect(self, path: Path, *, suspect: bool) -> sqlite3.Connection:
        assert not suspect
        connection = sqlite3.connect(path, isolation_level=None)
        connection.execute("CREATE TABLE IF NOT EXISTS numbers (number INTEGER UNIQUE)")
        return connection

    def _reach(self, point: Failpoint) -> None:
        self.commits += point == "after_commit"


def add(number: int) -> Callable[[sqlite3.Connection], int]:
    """An operation that answers with its number."""

    def work(connection: sqlite3.Connection) -> int:
        connection.execute("INSERT INTO numbers VALUES (?)", (number,))
        return number

    return work


async def test_what_waits_is_committed_at_once_and_a_lone_operation_waits_for_nobody(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One commit for a hundred; one for one, without another that pushes it."""
    bench = Bench(path, monkeypatch)
    async with bench.held_up():
        answers = [bench.writer.submit(add(number)) for number in range(100)]
    assert await asyncio.gather(*answers) == list(range(100))
    assert bench.commits == 1
    assert await bench.writer.submit(add(100)) == 100
    assert bench.commits == 2
    await bench.writer.close()


async def test_what_comes_while_the_loop_is_busy_is_committed_at_once(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As long as each turn brings more, up to a crowd: under load there are few commits, and each waits for few."""
    bench = Bench(path, monkeypatch)

    async def trickle(numbers: range) -> int:
        """Three in each turn of the loop; the most that waited to be sent."""
        answers, most = [], 0
        for number in numbers:
            answers.append(bench.writer.submit(add(number)))
            most = max(most, len(bench.writer._gathering))
            if number % 3 == 0:
                await asyncio.sleep(0)
        assert await asyncio.gather(*answers) == list(numbers)
        return most

    few = range(1, CROWD - 5)
    assert await trickle(few) == len(few)
    assert bench.commits == 1
    assert await trickle(range(1000, 1000 + 10 * CROWD)) <= CROWD + 3
    await bench.writer.close()


async def test_an_operation_at_fault_fails_alone(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The others of its group are committed, once each."""
    bench = Bench(path, monkeypatch)
    async with bench.held_up():
        answers = [bench.writer.submit(add(number)) for number in (1, 2, 2, 3)]
    got = await asyncio.gather(*answers, return_exceptions=True)
    assert [got[0], got[1], got[3]] == [1, 2, 3]
    assert isinstance(got[2], sqlite3.IntegrityError)
    await bench.writer.close()
    assert rows(path, "SELECT number FROM numbers ORDER BY 1") == [(1,), (2,), (3,)]


async def test_what_was_committed_before_the_disk_failed_is_answered_so(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sender that hears 503 of an event that is on disk would send it again, and be told that it is a duplicate."""
    bench = Bench(path, monkeypatch)

    def disk_fails(_: sqlite3.Connection) -> None:
        msg = "disk I/O error"
        raise sqlite3.OperationalError(msg)

    async with bench.held_up():
        works: list[Callable[[sqlite3.Connection], Any]] = [add(1), add(1), disk_fails, add(2)]
        answers = [bench.writer.submit(work) for work in works]
    got = await asyncio.gather(*answers, return_exceptions=True)
    await bench.writer.close()
    assert [type(one) for one in got] == [int, sqlite3.IntegrityError, StorageError, StorageError]
    assert rows(path, "SELECT number FROM numbers") == [(1,)]


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's policies are Linux's")
async def test_the_event_loop_is_not_interrupted_for_it(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The writer's thread has the policy of those that preempt nobody, and nobody else has it."""
    bench = Bench(path, monkeypatch)
    policy = await bench.writer.submit(lambda _: os.sched_getscheduler(0))
    await bench.writer.close()
    assert policy == os.SCHED_BATCH != os.sched_getscheduler(0)
