"""What ``dead-letters`` does: through the running service, or in the journal's file where none runs."""

import argparse
import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any, Protocol

from builder.adapters.dead_letter_client import DeadLetterClient
from builder.adapters.sqlite_journal import SqliteJournal, journal_path
from builder.errors import EventRejected, StartError
from builder.flow.build_queue import BuildQueue
from builder.flow.dead_letters import DeadLetterOffice
from builder.flow.letter_document import document, read_query
from builder.flow.results import Results
from builder.models import DeadLetter
from builder.settings import Settings
from builder.settings_sources import load

LOCAL = "http://localhost:8080"
_FILTERS = ("reason", "type", "third_party_id", "since", "until")


class Letters(Protocol):
    """The dead letters, wherever they are. Documents are as the service shows them."""

    async def find(self, query: Mapping[str, str]) -> dict[str, Any]:
        """A page: ``items`` and ``next_before``."""

    async def show(self, letter_id: int, *, with_data: bool) -> dict[str, Any]:
        """One letter."""

    async def replay(self, letter_id: int) -> None:
        """Send one again."""

    async def replay_many(self, query: Mapping[str, str]) -> dict[str, Any]:
        """Send a page of them again."""

    async def discard(self, letter_id: int) -> None:
        """Forget one."""


async def execute(parsed: argparse.Namespace) -> int:
    """The exit code."""
    # Nothing is built here, so no cluster needs to be set up.
    settings = load(os.environ, parsed.config, {"cluster": "memory"})
    query = {name: getattr(parsed, name) for name in _FILTERS if getattr(parsed, name, None) is not None}
    async with _letters(parsed, settings) as letters:
        match parsed.part:
            case "list":
                _print_list(parsed, await letters.find(query))
            case "show":
                print(json.dumps(await letters.show(parsed.id, with_data=parsed.body), indent=2))
            case "discard":
                await letters.discard(parsed.id)
                print(f"discarded {parsed.id}")
            case _:
                return await _replay(parsed, letters, query)
    return 0


async def _replay(parsed: argparse.Namespace, letters: Letters, query: Mapping[str, str]) -> int:
    if parsed.id is not None:
        await letters.replay(parsed.id)
        print(f"queued {parsed.id}")
        return 0
    if not parsed.all:
        print("dead-letters replay: say which: an ID, or --all with filters", file=sys.stderr)
        return 2
    rejected: dict[int, str] = {}
    queued = 0
    while (report := await letters.replay_many(query))["queued"]:
        queued += report["queued"]
        rejected |= {one["id"]: one["message"] for one in report["rejected"]}
    rejected |= {one["id"]: one["message"] for one in report["rejected"]}
    print(f"queued {queued}")
    for letter_id, message in rejected.items():
        print(f"still wrong {letter_id}: {message}", file=sys.stderr)
    return 1 if rejected else 0


@asynccontextmanager
async def _letters(parsed: argparse.Namespace, settings: Settings) -> AsyncIterator[Letters]:
    """Through the service that was named, or runs here; else in the file."""
    token = None if settings.admin.token is None else settings.admin.token.get_secret_value()
    async with DeadLetterClient.open(LOCAL if parsed.url is None else parsed.url, token) as client:
        if parsed.url is not None or await _answers(client):
            yield client
            return
    path = journal_path(settings, os.environ)
    if not path.exists():
        msg = f"no service at {LOCAL} (--url says where it is), and no journal at {path}"
        raise StartError(msg)
    async with SqliteJournal.open(path, settings) as journal:
        yield _File(settings, journal)


async def _answers(client: DeadLetterClient) -> bool:
    try:
        await client.find({"limit": "1"})
    except StartError:
        return False
    return True


class _File:
    """The letters in a journal that no service has open. What is replayed is built when the service starts."""

    def __init__(self, settings: Settings, journal: SqliteJournal) -> None:
        self._journal = journal
        clock = asyncio.get_running_loop().time
        queue = BuildQueue(settings.dead_letters.max_count)
        self._office = DeadLetterOffice(
            settings, journal, queue, Results(0, 1, clock), clock, lambda: datetime.now(UTC)
        )

    async def find(self, query: Mapping[str, str]) -> dict[str, Any]:
        letters = await self._journal.letters(*read_query(query))
        return {"items": [document(letter) for letter in letters]}

    async def show(self, letter_id: int, *, with_data: bool) -> dict[str, Any]:
        return document(await self._letter(letter_id), with_data=with_data)

    async def replay(self, letter_id: int) -> None:
        try:
            await self._office.replay(await self._letter(letter_id))
        except EventRejected as exc:
            msg = f"still wrong: {exc}"
            raise StartError(msg) from exc

    async def replay_many(self, query: Mapping[str, str]) -> dict[str, Any]:
        report = await self._office.replay_many(*read_query(query))
        rejected = [{"id": letter_id, "message": message} for letter_id, message in report.rejected.items()]
        return {"queued": report.queued, "rejected": rejected}

    async def discard(self, letter_id: int) -> None:
        if not await self._journal.discard(letter_id):
            raise _unknown(letter_id)

    async def _letter(self, letter_id: int) -> DeadLetter:
        letter = await self._journal.letter(letter_id)
        if letter is None:
            raise _unknown(letter_id)
        return letter


def _unknown(letter_id: int) -> StartError:
    return StartError(f"there is no dead letter {letter_id} (any more)")


def _print_list(parsed: argparse.Namespace, page: Mapping[str, Any]) -> None:
    if parsed.output == "json":
        print(json.dumps(page["items"], indent=2))
        return
    for letter in page["items"]:
        replayed = " (replayed)" if letter["replayed_at"] else ""
        event = letter["event"].get("id", "-")
        print(
            f"{letter['id']:>6}  {letter['last_at'][:19]}  {letter['reason']}{replayed}  event={event}  {letter['message']}"
        )
    if not page["items"]:
        print("none")
