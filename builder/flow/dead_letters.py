"""Dead letters sent again: by the same door, under the same identity, once."""

import asyncio
import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

import structlog

from builder.errors import EventRejected, NotNow
from builder.events.parsing import Rejected, parse_http
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

log = structlog.get_logger(__name__)


class Sleep(Protocol):
    """``asyncio.sleep``."""

    async def __call__(self, delay: float) -> None:
        """Wait ``delay`` seconds."""


@dataclass(slots=True)
class Replayed:
    """What became of many letters: how many were queued, and by id why others were not."""

    queued: int = 0
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
        """Replay at most ``limit`` letters, the oldest first, at ``deadLetters.replayRate``.

        A letter that is still wrong does not hold up those behind it; a full queue ends it early.
        """
        report = Replayed()
        letters = await self.box.letters(
            dataclasses.replace(wanted, replayed=False), self._settings.dead_letters.max_count
        )
        for letter in letters[::-1][:limit]:
            try:
                await self.replay(letter)
                report.queued += 1
            except EventRejected as exc:
                report.rejected[letter.id or 0] = str(exc)
            except NotNow:
                break
            await sleep(1 / self._settings.dead_letters.replay_rate)
        return report

    def _event_of(self, letter: DeadLetter) -> Event:
        """The letter's event, read as it was at the door."""
        headers = [(f"ce-{name}", _as_header(value)) for name, value in letter.attributes.items()]
        (item, *_) = parse_http(letter.content_type, headers, letter.body).items
        if isinstance(item, Rejected):
            raise EventRejected(item.problems, item.status)
        route(item)
        return dataclasses.replace(item, extensions={**item.extensions, REPLAYED: "true"})


def _as_header(value: str) -> str:
    """As a sender would write it: what is read back must be the same."""
    return value.replace("%", "%25").replace('"', "%22")
