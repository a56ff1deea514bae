"""The journal on disk: what survives, what goes, and who may have the file."""

import asyncio
import dataclasses
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from builder.adapters.sqlite_journal import journal_path, writer
from builder.adapters.sqlite_journal.file import connect
from builder.adapters.sqlite_journal.rows import attributes_of, document_of
from builder.adapters.sqlite_journal.schema import MIGRATIONS, VERSION
from builder.errors import StartError, StorageError
from builder.failpoints import Failpoint
from builder.flow.ports import LetterFilter
from builder.models import FailureReason, Outcome
from tests import building
from tests.journal_parts import (
    NOON,
    Clock,
    check_counts,
    copy_as_a_crash_would,
    entry,
    execute,
    finish,
    identity,
    letter,
    opened,
    result,
    rows,
    size,
    taken,
    unfinished,
    unfinished_ids,
)

ROOT = Path(__file__).parents[2]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the journal is. Its folder is there, but see ``test_its_folder_is_made``."""
    return tmp_path / "journal.sqlite3"


# --- a restart --------------------------------------------------------------------------------------------------------


async def test_unfinished_events_come_back_by_priority_and_age(path: Path) -> None:
    """In the order in which the queue had them, with everything that came, over more than one page."""
    async with opened(path) as journal:
        for number in range(250):
            await journal.admit(entry(f"e-{number}", priority=5 - number % 2, note=f"ünicode {number}"))
    async with opened(path) as journal:
        left = await unfinished(journal)
    order = [*range(1, 250, 2), *range(0, 250, 2)]
    assert [one.entry for one in left] == [
        entry(f"e-{number}", priority=5 - number % 2, note=f"ünicode {number}") for number in order
    ]


async def test_progress_comes_back(path: Path) -> None:
    """The last that was noted; None where nothing was."""
    async with opened(path) as journal:
        receipt = taken(await journal.admit(entry("e-1")))
        await journal.admit(entry("e-2"))
        receipt.note("first")
        receipt.note("second")
    async with opened(path) as journal:
        assert [one.progress for one in await unfinished(journal)] == ["second", None]


async def test_a_settled_event_never_runs_again(path: Path) -> None:
    """Nor does it come back by a late note, and its identity is known."""
    async with opened(path) as journal:
        for outcome in Outcome:
            one = entry(f"e-{outcome}")
            receipt = taken(await journal.admit(one))
            await receipt.settle(result(one.event, outcome))
            receipt.note("late")
    async with opened(path) as journal:
        assert await unfinished(journal) == []
        assert [await journal.admit(entry(f"e-{outcome}")) for outcome in Outcome] == [None] * 4


async def test_results_come_back_for_their_hour(path: Path) -> None:
    """The oldest first, failures with their words."""
    clock = Clock()
    async with opened(path, clock) as journal:
        await finish(journal, "e-1")
        clock.time += 1800
        await finish(journal, "e-2", Outcome.FAILED)
    async with opened(path, clock) as journal:
        first, second = await journal.results()
        assert first == result(entry("e-1").event)
        assert second.failure is not None
        assert (second.failure.reason, second.failure.message) == (FailureReason.FORBIDDEN, "the API server says no")
        clock.time += 1801
        assert [one.event_id for one in await journal.results()] == ["e-2"]


async def test_what_is_admitted_after_the_start_is_not_among_the_unfinished(path: Path) -> None:
    """It is in the queue already; while what was left is read, page by page, more may come."""
    async with opened(path) as journal:
        await journal.admit(entry("old"))
    async with opened(path) as journal:
        await journal.admit(entry("new", priority=1))
        assert await unfinished_ids(journal) == ["old"]
        await journal.admit(entry("newer", priority=9))
        assert await unfinished_ids(journal) == ["old"]
    async with opened(path) as journal:
        assert await unfinished_ids(journal) == ["new", "old", "newer"]


async def test_an_event_that_is_left_can_be_settled_by_the_next_process(path: Path) -> None:
    """Its receipt is as good as the first one's."""
    async with opened(path) as journal:
        await journal.admit(entry("e-1"))
    async with opened(path) as journal:
        (one,) = await unfinished(journal)
        await one.receipt.settle(result(one.entry.event))
    async with opened(path) as journal:
        assert await unfinished(journal) == []
        assert await journal.seen(identity("e-1"))


async def test_an_expired_identity_is_a_new_event_behind_those_before_it(path: Path) -> None:
    """Even where housekeeping has not come by yet."""
    clock = Clock()
    async with opened(path, clock, idempotency={"ttl": "1s"}) as journal:
        await finish(journal, "e-1")
        clock.time += 2
        await journal.admit(entry("e-2"))
        assert await journal.admit(entry("e-1")) is not None
    async with opened(path, clock) as journal:
        assert await unfinished_ids(journal) == ["e-2", "e-1"]
    check_counts(path)


async def test_a_replayed_letter_comes_back_after_a_crash(path: Path, tmp_path: Path) -> None:
    """The mark and the taking into custody are one step."""
    async with opened(path) as journal:
        await finish(journal, "e-1", Outcome.FAILED)
        (kept_letter,) = await journal.letters(LetterFilter(), 1)
        await journal.readmit(kept_letter.id or 0, entry("e-1"))
        copy = copy_as_a_crash_would(path, tmp_path / "copy")
    async with opened(copy) as journal:
        assert await unfinished_ids(journal) == ["e-1"]
        assert len(await journal.letters(LetterFilter(replayed=True), 10)) == 1


@pytest.mark.parametrize(
    "damage", ["attributes = 'no json'", "attributes = '[]'", "attributes = CAST(x'ff22' AS TEXT)"]
)
async def test_an_event_that_cannot_be_read_back_is_a_dead_letter(path: Path, damage: str) -> None:
    """One bad row must not keep the others, or the service, from coming back."""
    async with opened(path) as journal:
        await journal.admit(entry("e-1"))
        await journal.admit(entry("e-2"))
    execute(path, f"UPDATE events SET {damage} WHERE seq = 1")  # noqa: S608
    async with opened(path) as journal:
        assert await unfinished_ids(journal) == ["e-2"]
        (buried,) = await journal.letters(LetterFilter(), 10)
        assert (buried.reason, buried.body) == (FailureReason.INTERNAL_ERROR, entry("e-1").event.data)
    async with opened(path) as journal:
        assert await unfinished_ids(journal) == ["e-2"]


async def test_a_letter_that_cannot_be_read_back_hides_no_other(path: Path) -> None:
    """It is listed with what is left of it, and can be discarded."""
    async with opened(path) as journal:
        await journal.park(letter(1))
        await journal.park(letter(2))
    execute(path, "UPDATE dead_letters SET attributes = '{' WHERE id = 1")
    async with opened(path) as journal:
        good, bad = await journal.letters(LetterFilter(), 10)
        assert good.attributes["id"] == "r-2"
        assert (bad.id, bad.reason, bad.body) == (1, FailureReason.INTERNAL_ERROR, letter(1).body)
        assert await journal.discard(1)


async def test_an_event_has_one_letter_with_all_its_attempts(path: Path) -> None:
    """Replayed and failed again it is no second letter: first and last failure, and the attempts of both."""
    one = entry("e-1")
    async with opened(path) as journal:
        await finish(journal, "e-1", Outcome.FAILED)
        (first,) = await journal.letters(LetterFilter(), 10)
        receipt = taken(await journal.readmit(first.id or 0, one))
        later = building.NOON.replace(hour=13)
        await receipt.settle(dataclasses.replace(result(one.event, Outcome.FAILED), finished_at=later))
        (second,) = await journal.letters(LetterFilter(), 10)
    assert second == dataclasses.replace(first, attempts=6, last_at=later)


# --- group commit -----------------------------------------------------------------------------------------------------


async def test_an_answer_is_on_the_disk_before_anybody_hears_it(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A copy of the files between commit and answer has the event, one from before the commit has not."""
    async with opened(path) as journal:
        seen_at: dict[Failpoint, int] = {}

        def copy(point: Failpoint) -> None:
            assert not admission.done()
            there = copy_as_a_crash_would(path, tmp_path / point)
            seen_at.setdefault(point, rows(there, "SELECT count(*) FROM events")[0][0])

        admission = asyncio.ensure_future(journal.admit(entry("e-1")))
        monkeypatch.setattr(writer, "reach", copy)
        await admission
        monkeypatch.undo()
    assert seen_at == {"before_commit": 0, "after_commit": 1}


async def test_many_at_once_each_get_their_own_answer(path: Path) -> None:
    """More than one statement's worth in one turn of the loop, with some among them that are known, or come twice."""
    async with opened(path) as journal:
        for number in (3, 70):
            await finish(journal, f"e-{number}")
        await journal.admit(entry("e-100"))
        numbers = [*range(150), 5, 5]
        receipts = await asyncio.gather(*(journal.admit(entry(f"e-{number}")) for number in numbers))
        refused = [number for number, receipt in zip(numbers, receipts, strict=True) if receipt is None]
        assert sorted(refused) == [3, 5, 5, 70, 100]
        await asyncio.gather(*(receipt.settle(result(entry("x").event)) for receipt in receipts if receipt is not None))
        assert await journal.holds(identity("e-100"))
    assert rows(path, "SELECT count(*) FROM events") == [(1,)]


def fail_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the next transaction fail as on a failing disk."""

    def fail(_: Failpoint) -> None:
        monkeypatch.undo()
        raise sqlite3.OperationalError

    monkeypatch.setattr(writer, "reach", fail)


async def test_what_is_on_its_way_is_not_seen_yet(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full queue asks, and answers 202 to what was seen: it must hear of nothing that may still fail."""
    async with opened(path) as journal:
        fail_once(monkeypatch)
        first = asyncio.ensure_future(journal.admit(entry("e-1")))
        await asyncio.sleep(0)
        assert not await journal.seen(identity("e-1"))
        with pytest.raises(StorageError):
            await first
        again = asyncio.ensure_future(journal.admit(entry("e-1")))
        await asyncio.sleep(0)
        assert await journal.seen(identity("e-1"))
        assert await again is not None


async def test_the_second_delivery_is_tried_if_the_first_could_not_be_kept(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is told of a duplicate only once there is something on the disk that it is a duplicate of."""
    async with opened(path) as journal:
        fail_once(monkeypatch)
        first, second = (asyncio.ensure_future(journal.admit(entry("e-1"))) for _ in range(2))
        with pytest.raises(StorageError):
            await first
        assert await second is not None
        assert await journal.admit(entry("e-1")) is None


async def test_an_event_whose_sender_is_gone_is_held_all_the_same(path: Path) -> None:
    """What is on its way to the disk gets there, and is not taken in a second time."""
    async with opened(path) as journal:
        first = asyncio.ensure_future(journal.admit(entry("e-1")))
        await asyncio.sleep(0)
        first.cancel()
        assert await journal.admit(entry("e-1")) is None
        assert await journal.holds(identity("e-1"))
    async with opened(path) as journal:
        assert await unfinished_ids(journal) == ["e-1"]


async def test_replay_and_redelivery_at_once_take_the_event_in_once(path: Path) -> None:
    """Whichever comes first; the letter is marked in any case."""
    async with opened(path) as journal:
        for order in (1, -1):
            one = entry(f"e-{order}")
            await finish(journal, one.event.id, Outcome.FAILED)
            (kept_letter,) = await journal.letters(LetterFilter(replayed=False), 1)
            execute(path, "UPDATE seen SET until = 0")
            ways = [journal.admit(one), journal.readmit(kept_letter.id or 0, one)][::order]
            receipts = await asyncio.gather(*ways)
            assert [receipt is None for receipt in receipts] == [False, True]
            assert await journal.letters(LetterFilter(replayed=False), 1) == []
    assert rows(path, "SELECT count(*) FROM events") == [(2,)]


async def test_a_new_event_sees_what_was_said_of_it_before(path: Path) -> None:
    """An event that ended elsewhere is seen, though others that came before it go to the disk in one statement with it."""
    async with opened(path) as journal:
        early = asyncio.ensure_future(journal.admit(entry("e-1")))
        await asyncio.sleep(0)
        ended = entry("e-2").event
        journal.remember(ended, result(ended))
        late = asyncio.ensure_future(journal.admit(entry("e-2")))
        assert [await early is None, await late is None] == [False, True]


async def test_nobody_waits_for_a_journal_that_is_closed(path: Path) -> None:
    """An operation after the end is refused, not forgotten."""
    async with opened(path) as journal:
        pass
    with pytest.raises(StorageError, match="closed"):
        await journal.admit(entry("e-1"))


def content(path: Path) -> bytes:
    """All bytes of the file."""
    return path.read_bytes()


# --- the file ---------------------------------------------------------------------------------------------------------


async def test_an_empty_file_becomes_one_of_this_version(path: Path) -> None:
    """Version 0 is a file without tables."""
    execute(path, "PRAGMA user_version = 0")
    async with opened(path) as journal:
        assert await journal.count() == 0
    assert rows(path, "PRAGMA user_version") == [(VERSION,)]


async def test_a_file_of_the_first_version_is_brought_forward(path: Path) -> None:
    """What it holds is still there, and in its order."""
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(MIGRATIONS[0] + "PRAGMA user_version = 1")
        row = "INSERT INTO events VALUES (?, ?, ?, ?, ?, NULL, ?)"
        for seq, event_id, priority in ((1, "low", 9), (2, "high", 1), (3, "high-too", 1)):
            old = building.event(event_id)
            connection.execute(row, (seq, old.identity, priority, NOON, attributes_of(old), old.data))
        for age, ended in enumerate(("last", "first")):
            document = document_of(result(building.event(ended)))
            connection.execute("INSERT INTO results VALUES (?, ?, ?)", (ended, NOON + 3600 - age, document))
        connection.commit()
    async with opened(path) as journal:
        assert await unfinished_ids(journal) == ["high", "high-too", "low"]
        assert await journal.holds(identity("low"))
        assert await journal.admit(entry("new")) is not None
        assert [one.event_id for one in await journal.results()] == ["first", "last"]
    check_counts(path)
    assert rows(path, "PRAGMA user_version") == [(VERSION,)]


async def test_a_file_of_a_newer_version_is_left_alone(path: Path) -> None:
    """The start fails with the way out, and not a byte of the file changes."""
    async with opened(path) as journal:
        await journal.admit(entry("e-1"))
    execute(path, f"PRAGMA user_version = {VERSION + 1}")
    before = content(path)
    with pytest.raises(StartError, match=r"written by a newer one; run that, or set journal\.path to another file"):
        async with opened(path):
            pass
    assert content(path) == before


_HOLDER = """
import asyncio, sys
from tests.journal_parts import opened
async def hold():
    async with opened(__import__("pathlib").Path(sys.argv[1])):
        print("open", flush=True)
        await asyncio.sleep(60)
asyncio.run(hold())
"""


@pytest.fixture
def link(path: Path, tmp_path: Path) -> Path:
    """Another name of the file."""
    link = tmp_path / "link"
    link.symlink_to(path)
    return link


async def test_a_second_process_is_told_who_has_the_file_until_that_is_killed(path: Path, link: Path) -> None:
    """By whatever name it asks for it; the lock dies with its holder."""
    command = [sys.executable, "-c", _HOLDER, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT) as holder:  # noqa: ASYNC220
        try:
            assert holder.stdout is not None
            assert holder.stdout.readline() == b"open\n"
            for name in (path, link):
                with pytest.raises(StartError, match=rf"is in use by process {holder.pid} on "):
                    async with opened(name):
                        pass
        finally:
            holder.kill()
    async with opened(path) as journal:
        assert await journal.admit(entry("e-1")) is not None


@pytest.mark.parametrize(
    ("place", "words"),
    [("/proc/journal.sqlite3", "cannot write in /proc"), ("/dev/null/j", "cannot write in /dev/null")],
)
async def test_a_folder_that_cannot_be_written_stops_the_start(place: str, words: str) -> None:
    """With the setting's name."""
    with pytest.raises(StartError, match=f"^journal.path: {words}"):
        async with opened(Path(place)):
            pass


async def test_a_folder_is_no_file(tmp_path: Path) -> None:
    """Said at the start, in words."""
    with pytest.raises(StartError, match=r"^journal.path: .*Is a directory"):
        async with opened(tmp_path):
            pass


async def test_its_folder_is_made(tmp_path: Path) -> None:
    """With those above it: a new machine has no state folder."""
    path = tmp_path / "some" / "state" / "journal.sqlite3"
    async with opened(path):
        assert size(path) > 0


def test_a_commit_waits_for_the_disk(path: Path) -> None:
    """The two settings that make an answer outlive a power loss: a log, and a sync of it at each commit."""
    with closing(connect(path, suspect=False)) as connection:
        found = [connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("journal_mode", "synchronous")]
    assert found == ["wal", 2]


def modes_in(folder: Path) -> dict[str, int]:
    """Who may do what with the files of a folder."""
    return {one.name: one.stat().st_mode & 0o777 for one in folder.iterdir()}


async def test_nobody_else_reads_the_file(path: Path) -> None:
    """An event's environment may hold secrets."""
    async with opened(path) as journal:
        await journal.admit(entry("e-1"))
        modes = modes_in(path.parent)
    names = ["journal.sqlite3", "journal.sqlite3-shm", "journal.sqlite3-wal", "journal.sqlite3.lock"]
    assert modes == dict.fromkeys(names, 0o600)


def test_the_path_is_the_settings_or_the_users_state_folder() -> None:
    """https://specifications.freedesktop.org/basedir-spec: a relative folder is ignored."""
    file = "knative-lambda-builder/journal.sqlite3"
    unset = building.settings()
    assert journal_path(building.settings(journal={"path": "/data/j"}), {"HOME": "/root"}) == Path("/data/j")
    assert journal_path(unset, {"HOME": "/srv/me", "XDG_STATE_HOME": "/state"}) == Path("/state", file)
    assert journal_path(unset, {"HOME": "/srv/me", "XDG_STATE_HOME": "x"}) == Path("/srv/me/.local/state", file)
    with pytest.raises(StartError, match=r"^journal.path is not set and there is no home folder"):
        journal_path(unset, {})
