"""``dead-letters``: through a service that runs, and on its file where none does."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import structlog

from builder import log
from builder.adapters.sqlite_journal import SqliteJournal
from builder.cli import main
from builder.flow.ports import LetterFilter
from tests import building
from tests.unit.http.door import Document, Door, binary, numbered, serving, until

WRONG = {"data.priority": 0}
INSIDE = {"data.parameters.source_url": "https://git.corp.internal/a/b.git"}
ALLOWED = {"allowedSourceHosts": ["git.corp.internal", "github.com"]}
ROOT = Path(__file__).parents[2]
NOWHERE = "http://127.0.0.1:1"


class Ran(NamedTuple):
    """What a command left."""

    code: int
    out: str
    err: str


class Shell:
    """Runs commands with a journal in ``file`` and no service at the default place, unless a test says otherwise."""

    def __init__(self, file: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.file = file
        self._capsys = capsys

    def run(self, *arguments: str | int) -> Ran:
        """One command, in this thread; a traceback would be seen by the test itself."""
        self._capsys.readouterr()
        try:
            code = main(["dead-letters", *map(str, arguments)])
        except SystemExit as exc:  # argparse's way
            code = int(str(exc.code))
        ran = Ran(code, *self._capsys.readouterr())
        assert "Traceback" not in ran.out + ran.err
        return ran

    async def ask(self, door: Door, *arguments: str | int) -> Ran:
        """One command to a running service, whose loop is this one."""
        return await asyncio.to_thread(self.run, *arguments, "--url", str(door.client.base_url))


@pytest.fixture
def shell(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Shell]:
    """A shell of its own. The log is left out, for it is that of the services in the same process as well."""
    file = tmp_path / "journal.sqlite3"
    monkeypatch.setenv("BUILDER_JOURNAL__PATH", str(file))
    monkeypatch.setenv("PORT", "1")
    monkeypatch.setattr(log, "configure", lambda *_, **__: None)
    with structlog.testing.capture_logs():
        yield Shell(file, capsys)


@asynccontextmanager
async def service(file: Path, **settings: Any) -> AsyncIterator[Door]:
    """A service with its journal in ``file`` whose replays take no time."""
    async with serving(file=file, deadLetters={"replayRate": 1000}, **settings) as door:
        yield door


async def leave(shell: Shell, *changes: Document) -> None:
    """A service that rejected events, numbered from 1, and has ended."""
    async with service(shell.file) as door:
        for number, change in enumerate(changes, start=1):
            await door.deliver(binary(numbered(number, change)))


def allow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Mend what is wrong with ``INSIDE``."""
    monkeypatch.setenv("BUILDER_INTAKE__ALLOWED_SOURCE_HOSTS", json.dumps(ALLOWED["allowedSourceHosts"]))


async def unfinished(shell: Shell) -> list[str]:
    """The events in the file that the next service will build."""
    async with SqliteJournal.open(shell.file, building.settings()) as journal:
        return [one.entry.event.id async for one in journal.unfinished()]


# --- with a service ---------------------------------------------------------------------------------------------------


async def test_list_and_show(shell: Shell) -> None:
    """A line for each, the newest first; all of one, with its data where that is asked for."""
    async with service(shell.file) as door:
        assert await shell.ask(door, "list") == Ran(0, "none\n", "")
        await door.deliver(binary(numbered(1, WRONG)))
        await door.deliver(binary(numbered(2, {"type": "x"})))
        listed = await shell.ask(door, "list")
        lines = listed.out.splitlines()
        assert (listed.code, [line.split()[0] for line in lines]) == (0, ["2", "1"])
        assert lines[1].endswith("invalid  event=e-1  data.priority: must be a whole number from 1 (first) to 10")
        assert (await shell.ask(door, "list", "--type", "x")).out.splitlines() == lines[:1]
        data = json.loads((await shell.ask(door, "list", "-o", "json", "--reason", "invalid")).out)
        assert data == await door.letters()
        assert json.loads((await shell.ask(door, "show", 1)).out) == data[1]
        shown = json.loads((await shell.ask(door, "show", 1, "--body")).out)
        assert shown["data"]["parameters"]["environment"] == {"NODE_ENV": "***", "BUILD_MODE": "***"}


async def test_all_pages(shell: Shell) -> None:
    """The list is whole, however long."""
    async with service(shell.file) as door:
        for number in range(201):
            await door.deliver(binary(numbered(number, WRONG)))
        assert len((await shell.ask(door, "list")).out.splitlines()) == 201


async def test_strangers_text(shell: Shell) -> None:
    """What a sender wrote moves no cursor and adds no line."""
    async with service(shell.file) as door:
        headers = {"Content-Type": "application/cloudevents+json"}
        await door.client.post("/", content=json.dumps({"id": "a\x1b[2J\nb"}), headers=headers)
        (line,) = (await shell.ask(door, "list")).out.splitlines()
        assert r"event=a\x1b[2J\x0ab" in line


async def test_replay_and_discard(shell: Shell) -> None:
    """One that is right now is queued; one that is not says so, and may be thrown away."""
    await leave(shell, WRONG, INSIDE)
    async with service(shell.file, intake=ALLOWED) as door:
        assert await shell.ask(door, "replay", 2) == Ran(0, "queued 2\n", "")
        assert await shell.ask(door, "replay", 2) == Ran(0, "queued 2\n", "")
        assert [event.id for event in door.queued()] == ["e-2"]
        wrong = await shell.ask(door, "replay", 1)
        assert (wrong.code, wrong.out) == (1, "")
        assert "data.priority: must be a whole number" in wrong.err
        assert await shell.ask(door, "discard", 1) == Ran(0, "discarded 1\n", "")
        gone = await shell.ask(door, "discard", 1)
        assert (gone.code, gone.out) == (1, "")
        assert "404: there is no dead letter 1 (any more)" in gone.err


async def test_replay_of_all(shell: Shell) -> None:
    """What is still wrong is named and makes the exit code 1; without any, it is 0."""
    await leave(shell, INSIDE, WRONG, INSIDE)
    async with service(shell.file, intake=ALLOWED) as door:
        ran = await shell.ask(door, "replay", "--all")
        assert (ran.code, ran.out) == (1, "queued 2\n")
        assert ran.err == "still wrong 2: data.priority: must be a whole number from 1 (first) to 10\n"
        assert [event.id for event in door.queued()] == ["e-1", "e-3"]
        ran = await shell.ask(door, "replay", "--all", "--type", "nothing.like.it", "-o", "json")
        assert (ran.code, json.loads(ran.out)) == (0, {"queued": 0, "rejected": [], "stopped": None})


async def test_replay_of_all_ends(shell: Shell) -> None:
    """An event that fails again and again is sent again once, not for ever."""
    taken = {"data.job_name": "nightly"}
    async with service(shell.file) as door:
        await door.deliver(binary(numbered(0, {**taken, "data.third_party_id": "acme"})))
        await door.work()
        await door.deliver(binary(numbered(1, taken)))
        await door.work()
        async with door.working():
            assert await shell.ask(door, "replay", "--all") == Ran(0, "queued 1\n", "")
            await until(lambda: not door.queued())
        (letter,) = await door.letters()
        assert (letter["reason"], letter["attempts"], letter["replayed_at"]) == ("name_taken", 2, None)


async def test_replay_into_a_full_queue(shell: Shell) -> None:
    """Exit code 1 and the reason: there are more."""
    await leave(shell, INSIDE, INSIDE, INSIDE)
    settings = {"intake": {**ALLOWED, "slotWait": "1ms"}, "asyncJobCreator": {"maxQueueSize": 2}}
    async with service(shell.file, **settings) as door:
        ran = await shell.ask(door, "replay", "--all")
        assert ran == Ran(1, "queued 2\n", "stopped: the queue of 2 is full\n")


async def test_token_comes_from_the_settings(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who has the service's settings has its token; others are told what is missing."""
    async with service(shell.file, admin={"token": "s3cret-of-the-house"}) as door:
        await door.deliver(binary(numbered(1, WRONG)))
        assert (await shell.ask(door, "list")).code == 0
        refused = await shell.ask(door, "discard", 1)
        assert (refused.code, refused.out) == (1, "")
        assert "401: needs the bearer token of admin.token" in refused.err
        monkeypatch.setenv("BUILDER_ADMIN__TOKEN", "a-s3cret-of-another-house")
        assert (await shell.ask(door, "discard", 1)).code == 1
        monkeypatch.setenv("BUILDER_ADMIN__TOKEN", "s3cret-of-the-house")
        assert (await shell.ask(door, "discard", 1)).code == 0


async def test_service_at_the_default_place(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without --url the settings' own port is asked first: the same settings find the same service."""
    async with service(shell.file) as door:
        await door.deliver(binary(numbered(1, WRONG)))
        monkeypatch.setenv("PORT", str(door.client.base_url.port))
        ran = await asyncio.to_thread(shell.run, "list")
        assert (ran.code, len(ran.out.splitlines())) == (0, 1)


# --- without one ------------------------------------------------------------------------------------------------------


async def test_on_the_file(shell: Shell) -> None:
    """The same commands, the same words."""
    await leave(shell, WRONG, {"type": "x"})
    lines = (await asyncio.to_thread(shell.run, "list")).out.splitlines()
    assert [line.split()[0] for line in lines] == ["2", "1"]
    shown = json.loads((await asyncio.to_thread(shell.run, "show", 1, "--body")).out)
    assert (shown["event"]["id"], shown["data"]["priority"]) == ("e-1", 0)
    assert await asyncio.to_thread(shell.run, "discard", 1) == Ran(0, "discarded 1\n", "")
    for part in ("show", "replay", "discard"):
        gone = await asyncio.to_thread(shell.run, part, 1)
        assert (gone.code, gone.out) == (1, "")
        assert "there is no dead letter 1 (any more)" in gone.err


async def test_replay_on_the_file(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    """It becomes unfinished work, which is built when a service starts."""
    await leave(shell, INSIDE)
    refused = await asyncio.to_thread(shell.run, "replay", 1)
    assert (refused.code, refused.out) == (1, "")
    assert "still wrong: data.parameters.source_url: " in refused.err
    allow(monkeypatch)
    assert await asyncio.to_thread(shell.run, "replay", 1) == Ran(0, "queued 1\n", "")
    assert await asyncio.to_thread(shell.run, "replay", 1) == Ran(0, "queued 1\n", "")
    assert await unfinished(shell) == ["e-1"]
    async with service(shell.file, intake=ALLOWED) as door:
        assert [event.id for event in door.queued()] == ["e-1"]
        await door.work()
        assert len(list(door.cluster.jobs())) == 1
    assert await unfinished(shell) == []


async def test_replay_of_all_on_the_file(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    """More than a page, without the pauses that a running service needs."""
    await leave(shell, *([INSIDE] * 150), WRONG)
    allow(monkeypatch)
    monkeypatch.setenv("BUILDER_DEAD_LETTERS__REPLAY_RATE", "1")
    ran = await asyncio.to_thread(shell.run, "replay", "--all")
    assert (ran.code, ran.out) == (1, "queued 150\n")
    assert ran.err.startswith("still wrong 151: ")
    assert len(await unfinished(shell)) == 150
    async with SqliteJournal.open(shell.file, building.settings()) as journal:
        assert len(await journal.letters(LetterFilter(replayed=False), 1000)) == 1


async def test_only_the_answer_is_on_stdout(shell: Shell) -> None:
    """A program of its own, whose output another program reads: log lines would be no JSON."""
    await leave(shell, WRONG, INSIDE)
    environ = {**os.environ, "PYTHONPATH": str(ROOT), "BUILDER_INTAKE__ALLOWED_SOURCE_HOSTS": '["git.corp.internal"]'}
    command = [sys.executable, "-m", "builder", "dead-letters", "replay", "--all", "-o", "json"]
    ran = await asyncio.to_thread(subprocess.run, command, env=environ, capture_output=True, text=True, check=False)
    report = json.loads(ran.stdout)
    assert (ran.returncode, report["queued"], [one["id"] for one in report["rejected"]]) == (1, 1, [1])
    assert ran.stderr == f"still wrong 1: {report['rejected'][0]['message']}\n"


async def test_file_in_use(shell: Shell) -> None:
    """A service runs elsewhere: it is named, and nobody writes beside it."""
    async with service(shell.file):
        ran = await asyncio.to_thread(shell.run, "list")
        assert (ran.code, ran.out) == (1, "")
        assert "is in use by process" in ran.err


def test_nothing_there(shell: Shell) -> None:
    """Neither a service nor a file: both places are named, and no file is made."""
    ran = shell.run("list")
    assert (ran.code, ran.out) == (1, "")
    assert "no service at http://localhost:1 (--url says where it is)" in ran.err
    assert str(shell.file) in ran.err
    assert not shell.file.exists()


# --- asked wrongly ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["list", "--since", "yesterday"], "--since must be a time such as 2024-01-01T00:00:00Z"),
        (["list", "--reason", "forbiden"], "--reason must be one of invalid, "),
        (["replay", "--all", "--until", "noon"], "--until must be a time"),
        (["replay"], "say which: an ID, or --all with filters"),
        (["replay", "7", "--all"], "say which: an ID, or --all with filters"),
        (["replay", "7", "--reason", "invalid"], "filters go with --all"),
        (["show", "seven"], "must be the id of a dead letter"),
        (["show", "0"], "must be the id of a dead letter"),
        (["discard", "9" * 30], "must be the id of a dead letter"),
        (["show"], "required: ID"),
        (["list", "-o", "yaml"], "invalid choice: 'yaml'"),
        ([], "required: PART"),
    ],
)
def test_asked_wrongly(shell: Shell, arguments: list[str], words: str) -> None:
    """Exit code 2, before anything was asked or opened."""
    ran = shell.run(*arguments)
    assert (ran.code, ran.out) == (2, "")
    assert words in ran.err
    assert not shell.file.exists()


@pytest.mark.parametrize("url", [NOWHERE, "localhost:8080", "http://[", "", "ftp://example.com", "nonsense"])
def test_url_that_leads_nowhere(shell: Shell, url: str) -> None:
    """Exit code 1 with the URL in the message."""
    ran = shell.run("list", "--url", url)
    assert (ran.code, ran.out) == (1, "")
    assert ran.err.startswith("knative-lambda-builder dead-letters: ")
    assert len(ran.err.splitlines()) == 1


@pytest.mark.parametrize("answer", [b"<html>hello</html>", b"[]", b"{}"])
async def test_url_of_something_else(shell: Shell, answer: bytes) -> None:
    """Another web server that says 200 to everything."""

    async def answer_all(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s" % (len(answer), answer))
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    async with await asyncio.start_server(answer_all, "127.0.0.1", 0) as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        ran = await asyncio.to_thread(shell.run, "list", "--url", url)
    assert (ran.code, ran.out) == (1, "")
    assert f"{url} is no builder: it answered" in ran.err


@pytest.mark.parametrize("part", [[], ["list"], ["show"], ["replay"], ["discard"]])
def test_help(shell: Shell, part: list[str]) -> None:
    """Each has an example."""
    ran = shell.run(*part, "--help")
    assert (ran.code, ran.err) == (0, "")
    assert "example:\n  knative-lambda-builder dead-letters " in ran.out
