"""What an earlier process accepted and did not finish: it comes back as it was, once, before anything new."""

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from builder.adapters.memory_cluster import MemoryCluster
from builder.adapters.sqlite_journal import SqliteJournal
from builder.app import Parts, assemble
from builder.errors import AlreadyExists, StorageError, Transient
from builder.events.request import build_request
from builder.flow.dead_letters import REPLAYED
from builder.flow.items import Item, Patience
from builder.flow.ports import Entry, LetterFilter, Unfinished
from builder.flow.results import Results
from builder.jobs.manifest import build_job
from builder.models import DeadLetter, Event, FailureReason, Manifest, Outcome
from tests import building
from tests.flow_parts import ScriptedCluster
from tests.journal_parts import execute, result


class HangingCluster(ScriptedCluster):
    """Gives no answer once its script is over."""

    async def create(self, job: Manifest) -> None:
        """Answer by the script."""
        if not self.script:
            await asyncio.Event().wait()
        await super().create(job)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """The journal's file, which outlives the processes of a test."""
    return tmp_path / "journal.sqlite3"


@asynccontextmanager
async def process(file: Path, cluster: Any = None, **settings: Any) -> AsyncIterator[tuple[Parts, SqliteJournal]]:
    """A service that has opened the file and does nothing yet. What it has at the end is left to the next one."""
    known = building.settings(**settings)
    async with MemoryCluster(known.memory) as memory, SqliteJournal.open(file, known) as journal:
        yield assemble(known, memory if cluster is None else cluster, journal), journal


@asynccontextmanager
async def working(parts: Parts) -> AsyncIterator[None]:
    """The workers run."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(parts.pool.work(number)) for number in parts.pool.busy]
        tasks.append(group.create_task(parts.outage.watch()))
        try:
            yield
        finally:
            parts.pool.room.close()
            for task in tasks:
                task.cancel()


async def until(condition: Callable[[], object]) -> None:
    """Come back when it is true; the test's own time limit is the bound."""
    while not condition():  # noqa: ASYNC110 -- what is waited for has no event of its own
        await asyncio.sleep(0.001)


async def accept(file: Path, *events: Event, **settings: Any) -> None:
    """A process that accepts events and dies before any worker has seen them."""
    async with process(file, **settings) as (parts, _):
        await parts.recovery.run()
        for event in events:
            await parts.intake.offer(event)


def event(name: str, priority: int = 5, **more: Any) -> Event:
    """An event for a target of its own."""
    return building.event(name, target=("acme", name), data={"priority": priority}, **more)


def queued(parts: Parts) -> list[Item]:
    """The items in the queue, the longest there first."""
    return list(parts.pool._queue)


def names(items: Sequence[Item]) -> list[str]:
    """Their events."""
    return [item.event.id for item in items]


async def letters(journal: SqliteJournal) -> Sequence[DeadLetter]:
    """All dead letters."""
    return await journal.letters(LetterFilter(), 100)


async def test_old_order_and_priority(file: Path) -> None:
    """The urgent ones first, and in each priority as they came; whoever was accepted last stays last."""
    given = [("a", 5), ("b", 9), ("c", 1), ("d", 5), ("e", 1)]
    await accept(file, *(event(name, priority) for name, priority in given))
    async with process(file) as (parts, _):
        await parts.recovery.run()
        assert names(queued(parts)) == ["c", "e", "a", "d", "b"]
        assert [item.priority for item in queued(parts)] == [1, 1, 5, 5, 9]
        assert [(await parts.pool._queue.take()).event.id for _ in range(5)] == ["c", "e", "a", "d", "b"]
        assert parts.overview.stats()["brought_back"] == 5


async def test_the_event_is_the_same(file: Path) -> None:
    """Its bytes, its attributes, its identity; its age goes on from when it was accepted."""
    sent = event("a")._replace(extensions={"ext": 'é "%'}, subject="s")
    before = datetime.now(UTC)
    await accept(file, sent)
    async with process(file) as (parts, _):
        await parts.recovery.run()
        (item,) = queued(parts)
        assert (item.event, item.correlation_id) == (sent, "a")
        assert before <= item.accepted_at <= datetime.now(UTC)
        assert item.accepted <= asyncio.get_running_loop().time()
        result = parts.overview.result("a")
        assert result is not None
        assert (result["status"], result["accepted_at"]) == ("queued", item.accepted_at.isoformat())


async def test_age_counts_the_time_of_being_down(file: Path) -> None:
    """An hour between two processes is an hour of waiting, in the metrics as for the sender."""
    async with process(file) as (_, journal):
        accepted_at = datetime.now(UTC) - timedelta(hours=1)
        await journal.admit(Entry(event("a"), accepted_at, 5))
    async with process(file) as (parts, _):
        await parts.recovery.run()
        assert parts.overview.gauges().oldest_age >= 3600


async def test_more_than_the_queue_has_slots(file: Path) -> None:
    """It flows in as slots free up; a service with a full queue is ready, for it works and says 429 by itself."""
    await accept(file, *(event(f"e-{number}") for number in range(7)))
    async with process(file, asyncJobCreator={"maxQueueSize": 2}) as (parts, _):
        recovery = asyncio.create_task(parts.recovery.run())
        await until(lambda: len(queued(parts)) == 2)
        assert (parts.overview.not_ready(), recovery.done()) == (None, False)
        taken: list[str] = []
        while len(taken) < 7:
            await until(lambda: len(queued(parts)) == min(2, 7 - len(taken)))
            taken.append((await parts.pool._queue.take()).event.id)
        await recovery
        assert taken == [f"e-{number}" for number in range(7)]


async def test_what_comes_meanwhile_stands_behind(file: Path) -> None:
    """A new event of the same priority waits for its slot behind the old ones, and is not brought back twice."""
    await accept(file, *(event(f"old-{number}") for number in range(3)))
    async with process(file, asyncJobCreator={"maxQueueSize": 1}) as (parts, _):
        recovery = asyncio.create_task(parts.recovery.run())
        await until(lambda: queued(parts))
        offer = asyncio.create_task(parts.intake.offer(event("new")))
        await until(lambda: len(parts.pool._queue._for_slot) == 2)
        taken = []
        for _ in range(4):
            await until(lambda: queued(parts))
            taken.append((await parts.pool._queue.take()).event.id)
        await asyncio.gather(recovery, offer)
        assert (sorted(taken), queued(parts), parts.recovery.count) == (["new", "old-0", "old-1", "old-2"], [], 3)
        assert taken.index("old-1") < taken.index("new")


async def test_duplicate_of_unfinished_work(file: Path) -> None:
    """A redelivery is recognised before and after its event was brought back."""
    await accept(file, event("a"))
    async with process(file) as (parts, _):
        assert (await parts.intake.offer(event("a"))).status == "duplicate"
        await parts.recovery.run()
        assert (await parts.intake.offer(event("a"))).status == "duplicate"
        assert names(queued(parts)) == ["a"]


async def test_ready_only_after(file: Path) -> None:
    """Until the old work is in the queue, nothing new is invited."""
    await accept(file, event("a"))
    async with process(file) as (parts, _):
        assert parts.overview.not_ready() == "bringing back unfinished work"
        await parts.recovery.run()
        assert parts.overview.not_ready() is None


async def test_nothing_to_bring_back(file: Path) -> None:
    """A new file is ready at once."""
    async with process(file) as (parts, _):
        await parts.recovery.run()
        assert (parts.overview.not_ready(), parts.recovery.count, queued(parts)) == (None, 0, [])


async def test_retries_survive(file: Path) -> None:
    """A crash is no new set of retries: with three allowed and two used up, one is left."""
    policy = {"maxRetries": 3, "retryDelay": "1ms", "maxRetryDelay": "1ms"}
    api: ScriptedCluster = HangingCluster(*(Transient("try again", status=500) for _ in range(2)))

    async with process(file, api, asyncJobCreator=policy) as (parts, _):
        await parts.intake.offer(event("a"))
        async with working(parts):
            await until(lambda: not api.script and parts.stats.retries == 2)
    api = ScriptedCluster(*(Transient("try again", status=500) for _ in range(4)))
    async with process(file, api, asyncJobCreator=policy) as (parts, journal):
        await parts.recovery.run()
        (item,) = queued(parts)
        assert (item.patience.retries, item.patience.attempts) == (2, 2)
        async with working(parts):
            await until(lambda: not parts.pool.unfinished())
        (letter,) = await letters(journal)
        assert (letter.reason, letter.attempts, len(api.script)) == (FailureReason.RETRIES_EXHAUSTED, 4, 2)


async def test_waiting_survives(file: Path) -> None:
    """What it waits for, and how long it still may: being down is no fresh start of the wait."""
    clock = asyncio.get_running_loop().time
    async with process(file) as (parts, journal):
        receipt = await journal.admit(Entry(event("a"), datetime.now(UTC), 5))
        assert receipt is not None
        receipt.note(Patience(7, 1, 5, "quota", clock() + 100).saved(clock()))
    async with process(file) as (parts, _):
        await parts.recovery.run()
        (item,) = queued(parts)
        patience = item.patience
        assert (patience.attempts, patience.retries, patience.waits, patience.waiting_for) == (7, 1, 5, "quota")
        assert 0 < patience.until - clock() <= 100


async def test_event_that_settings_refuse_today(file: Path) -> None:
    """It ends as a dead letter with the reason, is counted and can be asked for; the others are built."""
    url = "https://git.corp.internal/a/b.git"
    inside, outside = event("inside", source_url=url), event("outside")
    await accept(file, inside, outside, intake={"allowedSourceHosts": ["git.corp.internal", "git.example.com"]})
    async with process(file) as (parts, journal):
        await parts.recovery.run()
        async with working(parts):
            await until(lambda: not parts.pool.unfinished())
        (letter,) = await letters(journal)
        assert (letter.reason, letter.error) == (FailureReason.INVALID_REQUEST, "EventRejected 400")
        assert letter.message.startswith("data.parameters.source_url: ")
        assert (letter.attributes["id"], letter.body, letter.third_party_id) == ("inside", inside.data, "acme")
        stats = parts.overview.stats()
        assert (stats["outcomes"]["created"], stats["outcomes"]["failed"]) == (1, 1)
        assert stats["failures"] == {"invalid_request": 1}
        result = parts.overview.result("inside")
        assert result is not None
        assert (result["status"], result["message"]) == ("failed", letter.message)


@pytest.mark.parametrize("disk", ["well", "failing"])
async def test_a_job_waits_for_its_event_that_is_not_even_queued(
    file: Path, monkeypatch: pytest.MonkeyPatch, disk: str
) -> None:
    """A crash left an event and its Job: until the one has found the other, no newer event replaces the Job.

    Nor while the journal cannot say whether it holds that event.
    """
    older, newer = building.event("older"), building.event("newer", time=building.NOON + timedelta(seconds=1))
    await accept(file, older)
    settings = building.settings()
    job = build_job(build_request(older, building.NOON, settings.build, settings.intake), settings)
    done = {"conditions": [{"type": "Complete", "status": "True"}]}
    finished = job | {"metadata": job["metadata"] | {"uid": "u-1"}, "status": done}
    cluster = HangingCluster(AlreadyExists("exists", status=409), finished)
    async with process(file, cluster) as (parts, journal):
        if disk == "failing":

            async def failing(_: bytes) -> bool:
                msg = "disk I/O error"
                raise StorageError(msg, retry_after=60.0)

            monkeypatch.setattr(journal, "holds", failing)
        await parts.intake.offer(newer)
        async with working(parts):
            await until(lambda: len(parts.pool.room))
            result = parts.overview.result("newer")
            assert result is not None
            assert result["status"] == "waiting"
            assert [call[0] for call in cluster.calls] == ["create", "get"]


async def test_results_are_restored(file: Path) -> None:
    """The outcome of a request can be asked for across a restart."""
    async with process(file) as (parts, _):
        for name in ("a", "b"):
            await parts.intake.offer(event(name))
        async with working(parts):
            await until(lambda: not parts.pool.unfinished())
        before = [parts.overview.result(name) for name in ("a", "b")]
    async with process(file) as (parts, _):
        await parts.recovery.run()
        assert [parts.overview.result(name) for name in ("a", "b")] == before
        assert [result["status"] for result in before if result is not None] == [Outcome.CREATED] * 2
        assert parts.overview.stats()["results_count"] == 2


async def test_settled_events_never_run_again(file: Path) -> None:
    """Whatever its end was, and however often the service starts; a redelivery gets the old answer."""
    bad = event("bad", source_url="https://git.corp.internal/a/b.git")
    await accept(file, event("good"), bad, intake={"allowedSourceHosts": ["git.corp.internal", "git.example.com"]})
    async with process(file) as (parts, _):
        await parts.recovery.run()
        async with working(parts):
            await until(lambda: not parts.pool.unfinished())
    for _ in range(2):
        async with process(file) as (parts, _):
            await parts.recovery.run()
            assert (queued(parts), parts.recovery.count) == ([], 0)
            assert (await parts.intake.offer(event("good"))).status == "duplicate"


async def test_replayed_event_comes_back(file: Path) -> None:
    """What was replayed and not finished is work like any other, and still marked as replayed."""
    intake = {"allowedSourceHosts": ["git.corp.internal"]}
    await accept(file, event("a", source_url="https://git.corp.internal/a/b.git"), intake=intake)
    async with process(file) as (parts, _):
        await parts.recovery.run()
        async with working(parts):
            await until(lambda: not parts.pool.unfinished())
    async with process(file, intake=intake) as (parts, journal):
        (letter,) = await letters(journal)
        await parts.office.replay(letter)
    async with process(file, intake=intake) as (parts, _):
        await parts.recovery.run()
        (item,) = queued(parts)
        assert (item.event.id, item.event.extensions) == ("a", {REPLAYED: "true"})


def test_results_keep_their_time_across_a_restart() -> None:
    """``results.ttl`` runs from the end of the event, not from the start of the process."""
    ended = [
        dataclasses.replace(result(event(f"e-{age}")), finished_at=building.NOON - timedelta(seconds=age))
        for age in (10, 150, 90)
    ]
    now = 0.0
    results = Results(ttl=100.0, max_entries=10, clock=lambda: now)
    results.restore(ended, building.NOON)
    assert [results.get(f"c-e-{age}") is not None for age in (150, 90, 10)] == [False, True, True]
    now = 11.0
    assert [results.get(f"c-e-{age}") is not None for age in (150, 90, 10)] == [False, False, True]


def test_of_a_shared_correlation_id_the_last_answers_after_a_restart_too() -> None:
    """The journal keeps both, the oldest first."""
    ended = [dataclasses.replace(result(event(name)), correlation_id="shared") for name in ("first", "last")]
    results = Results(ttl=100.0, max_entries=10, clock=lambda: 0.0)
    results.restore(ended, building.NOON)
    found = results.get("shared")
    assert found is not None
    assert found["event"]["id"] == "last"


@pytest.mark.parametrize(
    "damage",
    [
        "progress = 'x'",
        "priority = 99",
        "priority = 'x'",
        "accepted_at = 1e300",
        "attributes = '[1, 2, 3, 4, 5, 6]'",
        "data = 'text'",
    ],
)
async def test_a_row_that_the_disk_changed_keeps_nobody_from_starting(file: Path, damage: str) -> None:
    """It is a dead letter, or has lost its progress; the others come back."""
    await accept(file, event("good"), event("bad"), event("well"))
    execute(file, f"UPDATE events SET {damage} WHERE seq = 2")  # noqa: S608 -- the test's own words
    async with process(file) as (parts, journal):
        await parts.recovery.run()
        assert set(names(queued(parts))) | {"bad"} == {"good", "bad", "well"}
        assert len(queued(parts)) + len(await letters(journal)) == 3


async def test_disk_that_recovers(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trouble in the middle is waited for: each event comes back once, and the service does not die of it."""
    await accept(file, *(event(f"e-{number}") for number in range(4)))
    async with process(file) as (parts, journal):
        good, tries = journal.unfinished, 0

        async def stumbling(after: Unfinished | None) -> AsyncIterator[Unfinished]:
            nonlocal tries
            tries += 1
            read = 0
            async for one in good(after):
                if tries < 3 and read == 1:
                    msg = "disk I/O error"
                    raise StorageError(msg, retry_after=0.001)
                read += 1
                yield one

        monkeypatch.setattr(journal, "unfinished", stumbling)
        await parts.recovery.run()
        assert (names(queued(parts)), tries) == (["e-0", "e-1", "e-2", "e-3"], 3)
        assert (parts.recovery.count, parts.overview.not_ready()) == (4, None)
