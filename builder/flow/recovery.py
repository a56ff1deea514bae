"""What an earlier process accepted and did not finish goes back to the queue."""

from collections.abc import Callable
from datetime import datetime

import structlog

from builder.errors import EventRejected
from builder.events.request import build_request
from builder.events.routing import flow_of
from builder.flow.build_queue import BuildQueue
from builder.flow.items import Done, Item, Patience
from builder.flow.ports import Journal, Unfinished
from builder.flow.results import Results
from builder.flow.verdicts import no_longer_valid
from builder.models import Outcome, Result, Target
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
        self.count = 0

    @property
    def under_way(self) -> bool:
        """True while work is left that the queue has room for: until then nothing new should come in before it."""
        return not self._finished and not self._queue.full

    async def run(self) -> None:
        """Bring back everything; ends when that is done."""
        self._results.restore(await self._journal.results())
        async for one in self._journal.unfinished():
            await self._queue.reserve(None)
            await self._bring_back(one)
        self._finished = True
        if self.count:
            log.info("unfinished_work_brought_back", items=self.count)

    async def _bring_back(self, one: Unfinished) -> None:
        event, accepted_at = one.entry.event, one.entry.accepted_at
        try:
            request = build_request(event, accepted_at, self._settings.build, self._settings.intake)
        except EventRejected as exc:  # other settings, or another version, than when it was accepted
            self._queue.release()
            await one.receipt.settle(_rejected(one, no_longer_valid(exc), self._now()))
            return
        age = max(0.0, (self._now() - accepted_at).total_seconds())
        item = Item.of(event, request, one.receipt, accepted_at, self._clock() - age, flow_of(event))
        item.patience = Patience.restored(one.progress, self._clock())
        self._results.begin(item)
        self._queue.put(item)
        self.count += 1
        log.info("event_brought_back", event_id=event.id, event_source=event.source, correlation_id=item.correlation_id)


def _rejected(one: Unfinished, done: Done, now: datetime) -> Result:
    event = one.entry.event
    return Result(
        event_id=event.id,
        event_source=event.source,
        correlation_id=event.extensions.get("correlationid", event.id),
        target=Target("", ""),
        outcome=Outcome.FAILED,
        accepted_at=one.entry.accepted_at,
        finished_at=now,
        attempts=0,
        failure=done.failure,
    )
