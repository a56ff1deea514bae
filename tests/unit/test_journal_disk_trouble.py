"""The journal when the disk is full, cannot be written, or has changed what was on it. Real files, real errors."""

import asyncio
import itertools
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, closing, contextmanager, suppress
from pathlib import Path

import httpx
import pytest
import structlog
from structlog.typing import EventDict

from builder.adapters.memory_cluster import MemoryCluster
from builder.adapters.sqlite_journal import SqliteJournal, room
from builder.adapters.sqlite_journal.file import connect
from builder.adapters.sqlite_journal.schema import VERSION
from builder.app import assemble
from builder.errors import StartError, StorageError
from builder.flow.ports import LetterFilter, Receipt
from builder.models import Result
from tests import building
from tests.journal_parts import (
    check_counts,
    entry,
    execute,
    identity,
    kept,
    letter,
    opened,
    result,
    rows,
    taken,
    unfinished,
    unfinished_ids,
    until,
)
from tests.unit.http.door import QUEUED, _client, numbered, problem_of, structured

ROOT = Path(__file__).parents[2]


def mount(folder: Path, *options: str) -> None:
    """A file system of our own; the test is skipped where that is not allowed."""
    done = subprocess.run(["mount", "-t", "tmpfs", *options, "tmpfs", str(folder)], capture_output=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"may not mount: {done.stderr.decode().strip()}")


@contextmanager
def small(tmp_path: Path, size: str) -> Iterator[Path]:
    """A disk of that size."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount(folder, "-o", f"size={size}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Two MiB."""
    with small(tmp_path, "2m") as folder:
        yield folder


def fill(folder: Path) -> Path:
    """Take all the room that is left; the file that has it."""
    filler = folder / "filler"
    with filler.open("wb", buffering=0) as file:
        try:
            while file.write(bytes(4096)):
                pass
        except OSError:
            pass
    return filler


async def admit_until_full(journal: SqliteJournal) -> list[str]:
    """Events until one is refused; those that were not."""
    admitted: list[str] = []
    try:
        while True:
            one = entry(f"e-{len(admitted)}", note="x" * 1000)
            await journal.admit(one)
            admitted.append(one.event.id)
    except StorageError:
        return admitted


# --- a full disk ------------------------------------------------------------------------------------------------------


async def test_a_full_disk_refuses_and_a_freed_one_goes_on_by_itself(small_disk: Path) -> None:
    """Nothing that was answered is lost, nothing that was refused is kept."""
    path = small_disk / "journal.sqlite3"
    async with opened(path) as journal:
        receipt = taken(await journal.admit(entry("before")))
        filler = fill(small_disk)
        admitted = await admit_until_full(journal)
        refused = f"e-{len(admitted)}"
        assert journal.trouble == "database or disk is full"
        with pytest.raises(StorageError):
            await receipt.settle(result(entry("before").event))
        filler.unlink()
        async with kept(journal):
            await until(lambda: journal.trouble is None)
        assert not await journal.seen(identity(refused))
        assert await journal.admit(entry(refused)) is not None
        await receipt.settle(result(entry("before").event))
    async with opened(path) as journal:
        assert await unfinished_ids(journal) == [*admitted, refused]


@pytest.mark.parametrize("size", ["2m", "12m", "40m"])
async def test_a_disk_that_we_filled_ourselves_is_worked_off(tmp_path: Path, size: str) -> None:
    """What is full of our own events gets room as they end, with nobody's help: the log leaves room for the file."""
    with small(tmp_path, size) as disk:
        async with opened(disk / "journal.sqlite3", idempotency={"maxEntries": 10}) as journal, kept(journal):
            receipts: list[tuple[Receipt, Result]] = []
            with suppress(StorageError):
                while True:
                    one = entry(f"e-{len(receipts)}", note="x" * 10_000)
                    receipts.append((taken(await journal.admit(one)), result(one.event)))
            assert len(receipts) > 20
            for receipt, end in receipts:
                await settled(receipt, end)
            await until(lambda: journal.trouble is None)
            assert await journal.admit(entry("after")) is not None


def test_a_disk_that_does_not_tell_its_size_is_not_full(tmp_path: Path) -> None:
    """Some file systems say nothing but zeros."""
    with small(tmp_path, "0") as disk:
        path = disk / "journal.sqlite3"
        with closing(connect(path, suspect=False)) as connection:
            assert room.left(path, connection) > 2**40


async def settled(receipt: Receipt, end: Result) -> None:
    """As a worker does it, which tries again."""
    while True:
        try:
            return await receipt.settle(end)
        except StorageError:
            await asyncio.sleep(0.01)


async def test_reading_on_a_full_disk_does_not_end_the_trouble(small_disk: Path) -> None:
    """Readiness must not say yes because somebody looked at the dead letters."""
    async with opened(small_disk / "journal.sqlite3") as journal:
        filler = fill(small_disk)
        await admit_until_full(journal)
        assert await journal.letters(LetterFilter(), 10) == []
        assert await journal.seen(identity("e-0")) in (True, False)
        assert journal.trouble is not None
        async with kept(journal):
            await asyncio.sleep(0.05)  # housekeeping looks, and looks again
            assert journal.trouble is not None
            filler.unlink()
            await until(lambda: journal.trouble is None)


@pytest.mark.parametrize("left", [[], ["e-1", "e-2"]])
async def test_a_full_disk_at_the_start_is_waited_for(small_disk: Path, left: list[str]) -> None:
    """As one that fills up later: nothing is accepted, the reason is told, and it goes on by itself."""
    path = small_disk / "journal.sqlite3"
    if left:
        async with opened(path) as journal:
            for event_id in left:
                await journal.admit(entry(event_id))
    filler = fill(small_disk)
    async with opened(path) as journal, kept(journal):
        if not left:  # a file that is there can still be read
            assert journal.trouble is not None
            with pytest.raises(StorageError, match=r"full|No space left|disk I/O error"):
                await unfinished(journal)
        refused = await admit_until_full(journal)
        assert journal.trouble is not None
        filler.unlink()
        await until(lambda: journal.trouble is None)
        assert await unfinished_ids(journal) == left
        assert await journal.admit(entry("new")) is not None
    async with opened(path) as journal:
        assert await unfinished_ids(journal) == [*left, *refused, "new"]


async def test_what_no_time_will_mend_stops_the_start(tmp_path: Path) -> None:
    """A folder in the file's place is a mistake, and the message names the setting."""
    path = tmp_path / "journal.sqlite3"
    path.mkdir()
    with pytest.raises(StartError, match=r"^journal\.path: .*[Ii]s a directory.* set journal\.path to another file"):
        async with opened(path):
            pass


_BOUNDED = """
import asyncio, pathlib, resource, sys
from builder.errors import StorageError
from tests.journal_parts import *

async def main(path):
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    admitted = []
    async with opened(path) as journal, kept(journal):
        resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, hard))
        try:
            while len(admitted) < 1000:
                await journal.admit(entry(f"e-{len(admitted)}", note="x" * 1000))
                admitted.append(f"e-{len(admitted)}")
        except StorageError:
            pass
        assert 5 < len(admitted) < 1000, len(admitted)
        assert journal.trouble is not None
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
        await until(lambda: journal.trouble is None)
        assert await journal.admit(entry("after")) is not None
    async with opened(path) as journal:
        assert await unfinished_ids(journal) == [*admitted, "after"]

asyncio.run(main(pathlib.Path(sys.argv[1])))
"""


def test_a_file_that_may_not_grow_is_a_full_disk(tmp_path: Path) -> None:
    """A quota, as anyone may have; here the system says so with another error, and the file is opened anew."""
    program = [sys.executable, "-W", "error", "-c", _BOUNDED, str(tmp_path / "journal.sqlite3")]
    done = subprocess.run(program, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@asynccontextmanager
async def serving(path: Path) -> AsyncIterator[httpx.AsyncClient]:
    """The door before a journal on disk; nobody works, so that what was accepted stays."""
    server = {"host": "127.0.0.1", "port": 0}
    settings = building.settings(server=server, asyncJobCreator={"maxQueueSize": 10_000})
    async with (
        MemoryCluster(settings.memory) as cluster,
        SqliteJournal.open(path, settings) as journal,
        kept(journal),
    ):
        parts = assemble(settings, cluster, journal)
        await parts.recovery.run()
        async with parts.listening() as url, _client(url) as client:
            yield client


async def send(client: httpx.AsyncClient, number: int) -> httpx.Response:
    """Deliver one event."""
    delivery = structured(numbered(number, {"data.parameters.environment": {"NOTE": "x" * 1000}}))
    return await client.post("/", content=delivery.content, headers=delivery.headers)


async def test_the_door_answers_503_while_the_disk_is_full_and_202_again_afterwards(small_disk: Path) -> None:
    """Every 202 is on disk; readiness says why there are none."""
    path = small_disk / "journal.sqlite3"
    async with serving(path) as client:
        filler = fill(small_disk)
        accepted: list[str] = []
        for number in itertools.count():
            answer = await send(client, number)
            if answer.status_code != 202:
                break
            assert answer.content == QUEUED
            accepted.append(f"e-{number}")
        assert answer.status_code == 503
        assert int(answer.headers["Retry-After"]) >= 1
        assert "full" in problem_of(answer)["detail"]
        ready = await client.get("/health/ready")
        assert ready.status_code == 503
        assert ready.json()["detail"].startswith("journal: ")
        assert "disk is full" in ready.text
        assert (await client.get("/async-jobs/stats")).json()["journal"]["writable"] is False
        assert (await client.get("/health/live")).status_code == 200
        rejected = await client.post("/", content=b"no event", headers={"Content-Type": "application/json"})
        assert rejected.status_code == 503, "what cannot be kept as a dead letter must not be dropped by a 400"

        filler.unlink()
        while (await client.get("/health/ready")).status_code != 200:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        assert (await send(client, len(accepted))).status_code == 202
        accepted.append(f"e-{len(accepted)}")
    async with opened(path) as journal:
        assert await unfinished_ids(journal) == accepted


# --- a disk that cannot be written ------------------------------------------------------------------------------------


async def test_a_read_only_disk_stops_the_start(tmp_path: Path) -> None:
    """A journal that is there already does not help."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount(folder, "-o", "size=2m")
    try:
        async with opened(folder / "journal.sqlite3"):
            pass
        subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)  # noqa: ASYNC221
        with pytest.raises(StartError, match=r"^journal.path: cannot write in .*: Read-only file system"):
            async with opened(folder / "journal.sqlite3"):
                pass
    finally:
        subprocess.run(["umount", str(folder)], check=True)  # noqa: ASYNC221


def mode(path: Path, bits: int) -> None:
    """Who may read and write it."""
    path.chmod(bits)


@contextmanager
def somebody(folder: Path) -> Iterator[None]:
    """Root may write any file, so be somebody else who owns the folder."""
    if os.geteuid() != 0:
        yield
        return
    os.chown(folder, 65534, 65534)
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


async def test_a_read_only_file_stops_the_start(tmp_path: Path) -> None:
    """Once it may be written again, nothing is lost."""
    async with opened(tmp_path / "first"):  # whatever is imported late is imported now
        pass
    with tempfile.TemporaryDirectory() as name, somebody(Path(name)):
        path = Path(name, "journal.sqlite3")
        async with opened(path) as journal:
            await journal.admit(entry("e-1"))
        mode(path, 0o400)
        with pytest.raises(StartError, match=r"^journal.path: .*Permission denied"):
            async with opened(path):
                pass
        mode(path, 0o600)
        async with opened(path) as journal:
            assert await unfinished_ids(journal) == ["e-1"]


def delete(path: Path) -> None:
    """As a person who tidies up does."""
    for one in path.parent.glob(path.name + "*"):
        one.unlink()


async def test_a_file_that_is_deleted_in_use_is_made_anew(tmp_path: Path) -> None:
    """Events would go on into a file without a name; what is held can still be settled."""
    path = tmp_path / "journal.sqlite3"
    async with opened(path) as journal:
        receipt = taken(await journal.admit(entry("held")))
        delete(path)
        with structlog.testing.capture_logs() as logs:
            async with kept(journal):
                await until(lambda: [line for line in logs if line["event"] == "journal_writable_again"])
        assert "deleted while it was in use" in logs[0]["error"]
        await receipt.settle(result(entry("held").event))
        await journal.admit(entry("new"))
    async with opened(path) as journal:
        assert await unfinished_ids(journal) == ["new"]
        assert await journal.seen(identity("held"))


# --- a damaged file ---------------------------------------------------------------------------------------------------


def overwrite_the_middle(path: Path) -> None:
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(size // 3 // 4096 * 4096)
        file.write(random.Random(7).randbytes(size // 4))  # noqa: S311 -- no secret


def zero_the_header(path: Path) -> None:
    with path.open("r+b") as file:
        file.write(bytes(4096))


def cut_off_the_end(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def write_something_else(path: Path) -> None:
    path.write_text("server:\n  port: 8080\n" * 100)


Damage = Callable[[Path], None]
EVERY_DAMAGE = [overwrite_the_middle, zero_the_header, cut_off_the_end, write_something_else]
LEGIBLE = {overwrite_the_middle, cut_off_the_end}


async def filled(path: Path, half: int = 300) -> None:
    """A journal with some hundred rows of each kind."""
    async with opened(path) as journal:
        events = [entry(f"e-{number}", note="x" * 500) for number in range(2 * half)]
        receipts = await asyncio.gather(*(journal.admit(one) for one in events))
        settled = zip(events[:half], receipts[:half], strict=True)
        await asyncio.gather(*(taken(receipt).settle(result(one.event)) for one, receipt in settled))
        await asyncio.gather(*(journal.park(letter(number, size=1000)) for number in range(half)))


def set_aside(path: Path) -> list[Path]:
    """The damaged files that were kept, without what SQLite had beside them."""
    return sorted(one for one in path.parent.glob("*.damaged-*") if not one.name.endswith(("-wal", "-shm")))


def told(logs: list[EventDict]) -> EventDict:
    """The line of the log that says what was done."""
    (line,) = (line for line in logs if line["event"] == "journal_set_aside")
    return line


@pytest.mark.parametrize("damage", EVERY_DAMAGE)
async def test_a_damaged_file_is_set_aside_and_what_can_be_read_is_taken_over(tmp_path: Path, damage: Damage) -> None:
    """It is not deleted, not changed, and named in the log with the number of rows that were saved."""
    path = tmp_path / "journal.sqlite3"
    await filled(path)
    damage(path)
    damaged = path.read_bytes()
    with structlog.testing.capture_logs() as logs:
        async with opened(path) as journal:
            left = await unfinished(journal)
            assert await journal.admit(entry("new")) is not None
            assert journal.trouble is None
    (aside,) = set_aside(path)
    assert aside.read_bytes() == damaged
    line = told(logs)
    assert line["damaged_file"] == str(aside)
    recovered = line["recovered"]
    assert recovered["events"] >= len(left)
    assert (sum(recovered.values()) > 100) == (damage in LEGIBLE)
    assert (recovered["dead_letters"],) == rows(path, "SELECT letters FROM counts")[0]
    check_counts(path)
    async with opened(path) as journal:
        assert (await unfinished_ids(journal))[-1] == "new"
    assert set_aside(path) == [aside], "the new one is sound"


async def test_damage_that_shows_while_running_costs_one_answer(tmp_path: Path) -> None:
    """Then the service goes on with what could be read; an event that it holds can still be settled."""
    path = tmp_path / "journal.sqlite3"
    async with opened(path) as journal:
        receipt = taken(await journal.admit(entry("held")))
        for number in range(300):
            await journal.park(letter(number, size=20_000))
        rows(path, "PRAGMA wal_checkpoint(TRUNCATE)")
        overwrite_the_middle(path)
        with structlog.testing.capture_logs() as logs:
            with pytest.raises(StorageError, match="malformed"):
                await journal.letters(LetterFilter(), 300)
            assert journal.trouble is not None
            async with kept(journal):
                await until(lambda: journal.trouble is None)
        assert 0 < await journal.count() < 300
        await receipt.settle(result(entry("held").event))
        assert await journal.admit(entry("held")) is None
        assert await journal.admit(entry("new")) is not None
    assert told(logs)["damaged_file"] == str(set_aside(path)[0])
    check_counts(path)


async def test_an_index_that_lies_is_found_once_it_shows(tmp_path: Path) -> None:
    """The quick look at the start does not compare indexes with their tables: a file that errs is read whole."""
    path = tmp_path / "journal.sqlite3"
    await filled(path)
    ((page,),) = rows(path, "SELECT rootpage FROM sqlite_schema WHERE name = 'sqlite_autoindex_dead_letters_1'")
    ((leaf,),) = rows(path, "SELECT rootpage FROM sqlite_schema WHERE name = 'dead_letters_last'")
    with path.open("r+b") as file:  # two indexes change places
        file.seek((page - 1) * 4096)
        one = file.read(4096)
        file.seek((leaf - 1) * 4096)
        other = file.read(4096)
        file.seek((leaf - 1) * 4096)
        file.write(one)
        file.seek((page - 1) * 4096)
        file.write(other)
    async with opened(path) as journal, kept(journal):
        (first,) = await journal.letters(LetterFilter(), 1)
        with pytest.raises(StorageError, match="malformed"):
            await journal.discard(first.id or 0)
        await until(lambda: journal.trouble is None)
        assert await journal.discard(first.id or 0)
        assert await journal.count() == 299
    check_counts(path)


async def test_every_damage_leaves_a_file_of_its_own(tmp_path: Path) -> None:
    """No name is taken twice, however soon the next follows."""
    path = tmp_path / "journal.sqlite3"
    for _ in range(4):
        path.write_text("no database " * 1000)
        async with opened(path):
            pass
    assert len(set_aside(path)) == 4


async def test_a_crash_while_a_damaged_file_is_exchanged_loses_nothing(tmp_path: Path) -> None:
    """The damaged one has its new name, the rebuilt one not yet its own."""
    path = tmp_path / "journal.sqlite3"
    async with opened(path) as journal:
        await journal.admit(entry("e-1"))
    path.rename(path.with_name("journal.sqlite3.rebuilt"))
    async with opened(path) as journal:
        assert await unfinished_ids(journal) == ["e-1"]


async def test_without_room_for_the_rebuilt_file_the_damaged_one_stays(small_disk: Path) -> None:
    """Half a recovery would be taken for a whole one; it is done once there is room."""
    path = small_disk / "journal.sqlite3"
    await filled(path, half=100)
    overwrite_the_middle(path)
    damaged = path.read_bytes()
    filler = fill(small_disk)
    async with opened(path) as journal, kept(journal):
        assert journal.trouble is not None
        assert path.read_bytes() == damaged
        filler.unlink()
        await until(lambda: journal.trouble is None)
        assert len(await unfinished(journal)) > 10
    assert len(set_aside(path)) == 1


async def test_a_damaged_file_of_a_newer_version_is_not_ours_to_mend(tmp_path: Path) -> None:
    """It is left where it is."""
    path = tmp_path / "journal.sqlite3"
    await filled(path)
    execute(path, f"PRAGMA user_version = {VERSION + 1}")
    overwrite_the_middle(path)
    with pytest.raises(StartError, match="newer"):
        async with opened(path):
            pass
    assert set_aside(path) == []
