"""What an earlier process accepted and did not finish goes back to the queue."""

import asyncio
import sys
from collections.abc import Callable
from datetime import datetime

import structlog

from builder.errors import EventRejected, StorageError
from builder.events.request import build_request
from builder.events.routing import flow_of
from builder.flow.build_queue import BuildQueue
from builder.flow.dead_letters import legible
from builder.flow.items import Item, Patience
from builder.flow.ports import Journal, Unfinished
from builder.flow.results import Results
from builder.models import Target
from builder.settings import Settings

log = structlog.get_logger(__name__)


class Recovery:
    """Brings unfinished work back, in its old order, as the queue has room. ``clock`` is monotonic."""

    def __init__(
        self,
        settings: Settings,
        journal: Journal,
        queue: BuildQueue,
        results: Results,
        clock: Callable[[], float],
        now: Callable[[], datetime],
    ) -> None:
        self._settings = settings
        self._journal = journal
        self._queue = queue
        self._results = results
        self._clock = clock
        self._now = now
        self._finished = False
        self._last: Unfinished | None = None
        self.count = 0

    @property
    def under_way(self) -> bool:
        """True while work is left that the queue has room for: until then nothing new should come in before it."""
        return not self._finished and not self._queue.full

    async def run(self) -> None:
        """Bring back everything; ends when that is done. What a journal in trouble does not give yet is waited for."""
        while not self._finished:
            try:
                await self._bring_all_back()
            except StorageError as exc:
                log.warning("unfinished_work_not_readable", error=str(exc), again_in_seconds=exc.retry_after)
                await asyncio.sleep(exc.retry_after)
        if self.count:
            log.info("unfinished_work_brought_back", items=self.count)

    async def _bring_all_back(self) -> None:
        self._results.restore(await self._journal.results(), self._now())
        async for one in self._journal.unfinished(self._last):
            await self._queue.reserve(None)
            self._bring_back(one)
            self._last = one
        self._finished = True

    def _bring_back(self, one: Unfinished) -> None:
        item = self._item(one)
        item.patience = Patience.restored(one.progress, self._clock())
        self._results.begin(item)
        self._queue.put(item)
        self.count += 1
        ids = {"event_id": item.event.id, "event_source": item.event.source, "correlation_id": item.correlation_id}
        log.info("event_brought_back", **ids)

    def _item(self, one: Unfinished) -> Item:
        event, accepted_at = one.entry.event, one.entry.accepted_at
        accepted = self._clock() - max(0.0, (self._now() - accepted_at).total_seconds())
        try:
            request = build_request(event, accepted_at, self._settings.build, self._settings.intake)
        except EventRejected:  # other settings, or another version, than when it was accepted
            return self._item_of_wrong(one, accepted)
        item = Item.of(event, request, one.receipt, accepted_at, accepted, flow_of(event))
        # Thousands are of few third parties, and none of these texts came by the door, where it may be shared.
        item.target = item.target._replace(third_party_id=sys.intern(item.target.third_party_id))
        return item

    def _item_of_wrong(self, one: Unfinished, accepted: float) -> Item:
        """For the worker, who finds out what is wrong with it and ends it as any other failure."""
        event, data = one.entry.event, legible(one.entry.event.data)
        return Item(
            event=event,
            receipt=one.receipt,
            accepted_at=one.entry.accepted_at,
            accepted=accepted,
            requested_at=one.entry.accepted_at,
            target=Target(data.third_party_id or "", data.parser_id or ""),
            correlation_id=data.correlation_id or event.extensions.get("correlationid") or event.id,
            priority=one.entry.priority,
            flow=flow_of(event),
        )
