"""What tests of the journal put in, and how they open one."""

import asyncio
import contextlib
import dataclasses
import shutil
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

from builder.adapters.sqlite_journal import SqliteJournal
from builder.flow.ports import Entry, Receipt, Unfinished
from builder.models import DeadLetter, Event, Failure, FailureReason, Outcome, RejectReason, Result, Target
from tests import building

NOON = building.NOON.timestamp()


class Clock:
    """Time that passes when the test says so."""

    def __init__(self) -> None:
        self.time = NOON

    def __call__(self) -> float:
        return self.time


def entry(event_id: str, priority: int = 5, **data: Any) -> Entry:
    """An event at the door; ``data`` are further members of its data."""
    return Entry(building.event(event_id, data=data), building.NOON, priority)


def identity(event_id: str) -> bytes:
    """What the journal knows an event by."""
    return building.event(event_id).identity


def result(event: Event, outcome: Outcome = Outcome.CREATED) -> Result:
    """How the event ended."""
    failure = Failure(FailureReason.FORBIDDEN, "the API server says no", "Denied 403")
    return Result(
        event_id=event.id,
        event_source=event.source,
        correlation_id=f"c-{event.id}",
        target=Target("acme", "parser1"),
        outcome=outcome,
        accepted_at=building.NOON,
        finished_at=building.NOON,
        attempts=3,
        job_name="kaniko-job-acme-parser1",
        image="registry.example.com/knative-lambdas:x",
        failure=failure if outcome is Outcome.FAILED else None,
    )


def letter(number: int = 1, size: int = 10, **changes: Any) -> DeadLetter:
    """An event that was rejected at the door."""
    rejected = DeadLetter(
        reason=RejectReason.INVALID,
        message="id: must be there",
        attributes={"type": "network.notifi.lambda.job.start", "id": f"r-{number}"},
        content_type="application/json",
        body=b"x" * size,
        first_at=building.NOON,
        last_at=building.NOON,
        third_party_id="acme",
    )
    return dataclasses.replace(rejected, **changes)


def taken(receipt: Receipt | None) -> Receipt:
    """A receipt that must be one."""
    assert receipt is not None
    return receipt


@asynccontextmanager
async def opened(path: Path, now: Callable[[], float] | None = None, **settings: Any) -> AsyncIterator[SqliteJournal]:
    """The journal of one process' life; ``settings`` are top-level keys in the file's spelling."""
    async with SqliteJournal.open(path, building.settings(**settings), Clock() if now is None else now) as journal:
        yield journal


async def finish(journal: SqliteJournal, event_id: str, outcome: Outcome = Outcome.CREATED, **data: Any) -> None:
    """Take an event in and bring it to its end."""
    one = entry(event_id, **data)
    await taken(await journal.admit(one)).settle(result(one.event, outcome))


@asynccontextmanager
async def kept(journal: SqliteJournal) -> AsyncIterator[None]:
    """With its housekeeping, at a pace for tests."""
    keeper = asyncio.create_task(journal.keep_house(0.01))
    try:
        yield
    finally:
        keeper.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await keeper


async def until(condition: Callable[[], object]) -> None:
    """Come back when it is true; the test's own time limit is the bound."""
    while not condition():  # noqa: ASYNC110 -- what is waited for has no event of its own
        await asyncio.sleep(0.002)


async def unfinished(journal: SqliteJournal) -> list[Unfinished]:
    """All that an earlier process left."""
    return [one async for one in journal.unfinished()]


async def unfinished_ids(journal: SqliteJournal) -> list[str]:
    """The same by their ids."""
    return [one.entry.event.id for one in await unfinished(journal)]


def rows(path: Path, query: str) -> list[tuple[Any, ...]]:
    """What a query finds in the file, past the journal."""
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(query).fetchall()


def execute(path: Path, statement: str) -> None:
    """Change the file behind the journal's back."""
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(statement)


def size(path: Path, suffix: str = "") -> int:
    """Bytes of the file, or of one beside it."""
    return Path(f"{path}{suffix}").stat().st_size


def check_counts(path: Path) -> None:
    """The counts that the triggers keep are those that one would count."""
    counted = """
        SELECT (SELECT count(*) FROM seen), (SELECT count(*) FROM results), (SELECT count(*) FROM dead_letters),
        (SELECT coalesce(sum(bytes), 0) FROM dead_letters)
    """
    assert rows(path, "SELECT seen, results, letters, letter_bytes FROM counts") == rows(path, counted)


def copy_as_a_crash_would(source: Path, folder: Path) -> Path:
    """The database as SIGKILL would leave it. Nobody may be writing while it is copied."""
    folder.mkdir()
    for suffix in ("", "-wal"):
        with contextlib.suppress(FileNotFoundError):
            shutil.copyfile(f"{source}{suffix}", folder / f"{source.name}{suffix}")
    return folder / source.name
