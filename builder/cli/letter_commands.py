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
from builder.cli.options import amqp_settings
from builder.errors import EventRejected, StartError
from builder.flow.broker_letters import BROKERS_REASONS
from builder.flow.build_queue import BuildQueue
from builder.flow.dead_letters import DeadLetterOffice
from builder.flow.letter_document import document, page, read_query, report_document
from builder.flow.results import Results
from builder.models import DeadLetter
from builder.settings import Settings

_FILTERS = ("reason", "type", "third_party_id", "since", "until")


class Letters(Protocol):
    """The dead letters, wherever they are. Documents are as the service shows them."""

    async def find(self, query: Mapping[str, str]) -> dict[str, Any]:
        """A page: ``items`` and ``next_before``."""

    async def show(self, letter_id: str, *, with_data: bool) -> dict[str, Any]:
        """One letter."""

    async def replay(self, letter_id: str) -> None:
        """Send one again."""

    async def replay_many(self, query: Mapping[str, str]) -> dict[str, Any]:
        """Send a page of them again: ``queued``, ``rejected``, ``stopped`` and ``until``."""

    async def discard(self, letter_id: str) -> None:
        """Forget one."""


async def execute(parsed: argparse.Namespace) -> int:
    """The exit code."""
    # Nothing is built here, so no cluster needs to be set up.
    settings = amqp_settings(parsed)
    query = {name: getattr(parsed, name) for name in _FILTERS if getattr(parsed, name, None) is not None}
    if complaint := _complaint(parsed, query):
        print(f"dead-letters {parsed.part}: {complaint}", file=sys.stderr)
        return 2
    async with _letters(parsed, settings) as letters:
        match parsed.part:
            case "list":
                await _list(parsed, letters, query)
            case "show":
                print(json.dumps(await letters.show(parsed.id, with_data=parsed.body), indent=2))
            case "discard":
                await letters.discard(parsed.id)
                _say(parsed, f"discarded {parsed.id}", {"discarded": 1})
            case _ if parsed.id is None:
                return await _replay_all(parsed, letters, query)
            case _:
                await letters.replay(parsed.id)
                _say(parsed, f"queued {parsed.id}", {"queued": 1, "rejected": [], "stopped": None})
    return 0


def _complaint(parsed: argparse.Namespace, query: Mapping[str, str]) -> str | None:
    """What is wrong with what was asked for."""
    if parsed.place == "amqp" and parsed.url is not None:
        return "--url is of a service; say --amqp for a broker"
    if parsed.place == "service" and parsed.amqp is not None:
        return "--amqp goes with --from amqp"
    if parsed.place == "service" and not str(getattr(parsed, "id", None) or 1).isdecimal():
        return "that ID is of a letter in the broker: say --from amqp"
    if parsed.part == "replay" and (parsed.id is None) != parsed.all:
        return "say which: an ID, or --all with filters"
    if parsed.part == "replay" and query and not parsed.all:
        return "filters go with --all"
    try:
        read_query(query, tuple(BROKERS_REASONS) if parsed.place == "amqp" else ())
    except EventRejected as exc:
        return "; ".join(f"--{problem.field.replace('_', '-')} {problem.message}" for problem in exc.problems)
    return None


async def _list(parsed: argparse.Namespace, letters: Letters, query: Mapping[str, str]) -> None:
    """All pages."""
    found = await letters.find(query)
    items: list[dict[str, Any]] = found["items"]
    while found["next_before"] is not None:
        found = await letters.find({**query, "before": str(found["next_before"])})
        items += found["items"]
    if parsed.output == "json":
        print(json.dumps(items, indent=2))
        return
    for letter in items:
        replayed = " (replayed)" if letter["replayed_at"] else ""
        event = letter["event"].get("id", "-")
        line = f"{(letter['last_at'] or '-')[:19]}  {letter['reason']}{replayed}  event={event}  {letter['message']}"
        print(f"{letter['id']:>6}  {_printable(line)}")
    if not items:
        print("none")


def _printable(text: str) -> str:
    """A stranger's text on one line, without what a terminal would obey."""
    return "".join(char if char.isprintable() else f"\\x{ord(char):02x}" for char in text)


async def _replay_all(parsed: argparse.Namespace, letters: Letters, query: Mapping[str, str]) -> int:
    """1 if any letter is left that was asked for."""
    queued = 0
    while (report := await letters.replay_many(query))["queued"]:
        queued += report["queued"]
        # What fails again meanwhile has failed after this, and is not tried for ever.
        query = {**query, "until": report["until"]}
    rejected, stopped = report["rejected"], report["stopped"]
    _say(parsed, f"queued {queued}", {"queued": queued, "rejected": rejected, "stopped": stopped})
    for one in rejected:
        print(f"still wrong {one['id']}: {_printable(one['message'])}", file=sys.stderr)
    if stopped is not None:
        print(f"stopped: {stopped}", file=sys.stderr)
    return 1 if rejected or stopped is not None else 0


def _say(parsed: argparse.Namespace, text: str, data: Mapping[str, Any]) -> None:
    print(json.dumps(data) if parsed.output == "json" else text)


@asynccontextmanager
async def _letters(parsed: argparse.Namespace, settings: Settings) -> AsyncIterator[Letters]:
    """In the broker, if asked for; else through the service that was named, or runs here; else in the file."""
    if parsed.place == "amqp":
        from builder.adapters.rabbitmq.dead_letter_queue import DeadLetterQueue  # noqa: PLC0415 -- who has none pays not

        async with DeadLetterQueue.open(settings.rabbitmq) as in_broker:
            yield in_broker
        return
    token = None if settings.admin.token is None else settings.admin.token.get_secret_value()
    here = f"http://localhost:{settings.server.port}"
    async with DeadLetterClient.open(here if parsed.url is None else parsed.url, token) as client:
        if parsed.url is not None or await _answers(client):
            yield client
            return
    path = journal_path(settings, os.environ)
    if not path.exists():
        msg = f"no service at {here} (--url says where it is), and no journal at {path}"
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
        wanted, limit = read_query(query)
        return page(await self._journal.letters(wanted, limit), limit)

    async def show(self, letter_id: str, *, with_data: bool) -> dict[str, Any]:
        return document(await self._letter(letter_id), with_data=with_data)

    async def replay(self, letter_id: str) -> None:
        try:
            await self._office.replay(await self._letter(letter_id))
        except EventRejected as exc:
            msg = f"still wrong: {exc}"
            raise StartError(msg) from exc

    async def replay_many(self, query: Mapping[str, str]) -> dict[str, Any]:
        return report_document(await self._office.replay_many(*read_query(query), sleep=_at_once))

    async def discard(self, letter_id: str) -> None:
        if not await self._journal.discard(int(letter_id)):
            raise _unknown(letter_id)

    async def _letter(self, letter_id: str) -> DeadLetter:
        letter = await self._journal.letter(int(letter_id))
        if letter is None:
            raise _unknown(letter_id)
        return letter


async def _at_once(_delay: float) -> None:
    """Nothing is built meanwhile, so there is nothing to go easy on."""


def _unknown(letter_id: str) -> StartError:
    return StartError(f"there is no dead letter {letter_id} (any more)")
