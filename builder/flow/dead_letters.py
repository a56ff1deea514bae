"""Dead letters sent again: by the same door, under the same identity, once."""

import asyncio
import dataclasses
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import TypeAlias

import structlog

from builder.errors import EventRejected, NotNow, Problem
from builder.events.job_start import JobStart, read_job_start
from builder.events.parsing import Mode, Rejected, parse_http
from builder.events.request import build_request
from builder.events.routing import flow_of, route
from builder.flow.build_queue import BuildQueue
from builder.flow.items import Item
from builder.flow.ports import DeadLetterBox, Entry, LetterFilter
from builder.flow.results import Results
from builder.models import DeadLetter, Event
from builder.settings import Settings

REPLAYED = "replayed"
"""The extension attribute that marks an event as sent again."""

BROKER_MARKS = "knativeerror"
"""How the attributes begin by which a Knative broker says why it gave an event up: ``…code``, ``…dest``, ``…data``."""

_PAGE = 100
_MAY_BE_MENDED = ("", "Content-Type", "body", "data", "type")
"""What we judge by our settings and our tables. What an attribute may be, the specification says."""

Sleep: TypeAlias = Callable[[float], Awaitable[None]]
"""``asyncio.sleep``."""

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Replayed:
    """What became of many letters: how many were queued, by id why others were not, and why it ended early if so.

    Whoever goes on asks with the same ``until``: a letter that was replayed and failed once more is then left alone.
    """

    until: datetime
    queued: int = 0
    stopped: str | None = None
    rejected: dict[int, str] = field(default_factory=dict)


class DeadLetterOffice:
    """Sends letters again. ``clock`` is monotonic, ``now`` the time of day in UTC."""

    def __init__(
        self,
        settings: Settings,
        box: DeadLetterBox,
        queue: BuildQueue,
        results: Results,
        clock: Callable[[], float],
        now: Callable[[], datetime],
    ) -> None:
        self._settings = settings
        self.box = box
        self._queue = queue
        self._results = results
        self._clock = clock
        self._now = now

    async def replay(self, letter: DeadLetter) -> None:
        """Queue the letter's event again; without effect if that was done before.

        Raises:
            EventRejected: it is still wrong. The letter stays.
            NotNow: the queue is full, or the journal cannot be written.
        """
        if letter.replayed_at is not None or letter.id is None:
            return
        event = self._event_of(letter)
        accepted_at = self._now()
        request = build_request(event, accepted_at, self._settings.build, self._settings.intake)
        await self._queue.reserve(self._settings.intake.slot_wait)
        receipt = None
        try:
            receipt = await self.box.readmit(letter.id, Entry(event, accepted_at, request.priority))
        finally:
            if receipt is None:
                self._queue.release()
        if receipt is not None:
            item = Item.of(event, request, receipt, accepted_at, self._clock(), flow_of(event))
            self._results.begin(item)
            self._queue.put(item)
        log.info("event_replayed", event_id=event.id, event_source=event.source, dead_letter=letter.id)

    async def replay_many(self, wanted: LetterFilter, limit: int, sleep: Sleep = asyncio.sleep) -> Replayed:
        """Queue at most ``limit`` letters, the oldest first, at ``deadLetters.replayRate``.

        A letter that is still wrong does not hold up those behind it; a full queue ends it early.

        Raises:
            StorageError: the letters cannot be read.
        """
        until = self._now() if wanted.until is None else wanted.until
        report = Replayed(until)
        if wanted.replayed:
            return report
        for letter_id in await self._oldest_first(dataclasses.replace(wanted, replayed=False, until=until)):
            letter = await self.box.letter(letter_id)
            if letter is None or letter.replayed_at is not None:
                continue
            try:
                await self.replay(letter)
            except EventRejected as exc:
                report.rejected[letter_id] = str(exc)
                continue
            except NotNow as exc:
                report.stopped = str(exc)
                break
            report.queued += 1
            if report.queued == limit:
                break
            await sleep(1 / self._settings.dead_letters.replay_rate)
        return report

    async def _oldest_first(self, wanted: LetterFilter) -> list[int]:
        """Only their ids, and page by page: all together may be larger than what we should hold at once."""
        ids: list[int] = []
        while page := await self.box.letters(wanted, _PAGE):
            ids += [letter.id for letter in page if letter.id is not None]
            wanted = dataclasses.replace(wanted, before=ids[-1])
        return ids[::-1]

    def _event_of(self, letter: DeadLetter) -> Event:
        """The letter's event, read as it was at the door."""
        headers = [(f"ce-{name}", _as_header(value)) for name, value in letter.attributes.items() if _is_events(name)]
        mode, (item, *_) = parse_http(letter.content_type, headers, letter.body)
        if isinstance(item, Rejected):
            raise EventRejected(item.problems, item.status)
        lost = [problem for problem in letter.problems if not letter.body or _is_lost(problem)]
        if lost and mode is Mode.BINARY:
            raise EventRejected(lost)
        route(item)
        return item._replace(extensions={**item.extensions, REPLAYED: "true"})


def legible(data: bytes) -> JobStart:
    """What can be read of data that is wrong, or may be."""
    try:
        return read_job_start(data, {})
    except EventRejected:
        return JobStart()


def _is_lost(problem: Problem) -> bool:
    """True if it is about an attribute of binary mode, of which a letter keeps only what was right."""
    return problem.field not in _MAY_BE_MENDED and not problem.field.startswith("data.")


def _is_events(name: str) -> bool:
    """True for what the event came with, and not got from us or from the broker that gave it up."""
    return name != REPLAYED and not name.startswith(BROKER_MARKS)


def _as_header(value: str) -> str:
    """As a sender would write it: what is read back must be the same."""
    return value.replace("%", "%25").replace('"', "%22")
