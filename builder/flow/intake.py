"""The one door. Every transport brings its events here, and every event leaves with one clear answer.

Route, validate, deduplicate, reserve a slot, take into custody, enqueue: in this order, so that a bad event costs no
slot, a duplicate is answered even when the queue is full, and a full queue refuses what nobody holds yet.
"""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Literal, NamedTuple, TypeAlias

import structlog

from builder.errors import Draining, EventRejected, HttpOff, NotSettled, Problem, QueueFull, StorageError, named
from builder.events.attributes import trace_id
from builder.events.parsing import Rejected
from builder.events.request import build_request, with_data_problems
from builder.events.routing import flow_of, route
from builder.failpoints import reach
from builder.flow.build_queue import BuildQueue
from builder.flow.dead_letters import legible
from builder.flow.items import Item
from builder.flow.ports import Custodian, Entry, Journal
from builder.flow.results import Results
from builder.models import BuildRequest, DeadLetter, Event, Flow, RejectReason, Result
from builder.settings import Settings
from builder.stats import RefusedBecause, Stats

_SWITCHED_OFF: dict[Flow, RejectReason] = {"direct": RejectReason.DIRECT_DISABLED, "queue": RejectReason.QUEUE_DISABLED}
_REJECT_REASONS = {413: RejectReason.TOO_LARGE, 415: RejectReason.NOT_A_CLOUDEVENT}

log = structlog.get_logger(__name__)


Accepted: TypeAlias = Literal["queued", "duplicate"]
"""What happened to an event that we answer for. A sender sees no difference."""


class Ticket(NamedTuple):
    """Our answer for an event, and the id by which its way can be followed.

    ``end`` is there where the event's sender keeps it: the answer counts only once the event has ended well.
    """

    status: Accepted
    correlation_id: str
    end: "asyncio.Future[Result] | None" = None


class Intake:
    """Takes events in until ``close``.

    ``clock`` is monotonic seconds, ``now`` the time of day in UTC. ``crowded`` tells that no more may be set aside.
    """

    def __init__(
        self,
        settings: Settings,
        journal: Journal,
        queue: BuildQueue,
        results: Results,
        stats: Stats,
        clock: Callable[[], float],
        now: Callable[[], datetime],
        crowded: Callable[[], bool],
    ) -> None:
        self._settings = settings
        self._custody = settings.custody
        self._flows = settings.intake.flows
        self._journal = journal
        self._crowded = crowded
        self._queue = queue
        self._results = results
        self._stats = stats
        self._clock = clock
        self._now = now
        self._log = log.bind()
        self.closed = False

    def close(self) -> None:
        """Take nothing more; what is in stays in."""
        self.closed = True

    async def offer(self, item: Event | Rejected) -> Ticket:
        """Take one event in, and see it to its end where its sender keeps it. Raises what the two steps raise."""
        ticket = await self.take(item)
        if ticket.end is not None:
            await self.settled(ticket)
        return ticket

    async def take(self, item: Event | Rejected, *, custodian: Custodian | None = None) -> Ticket:
        """Take one event in, after at most ``intake.slotWait`` for a slot in a full queue.

        A transport that can hold its events itself brings its ``custodian``, and waits for a slot as long as it takes.

        Raises:
            EventRejected: it can never be built; it is kept as a dead letter.
            QueueFull, Draining, HttpOff, StorageError: not now; nothing of it is kept.
        """
        self._check_open()
        if custodian is None and self._custody == "broker":
            self._stats.refused[RefusedBecause.HTTP_OFF] += 1
            msg = "events are taken from RabbitMQ only (setting custody: broker)"
            raise HttpOff(msg, retry_after=60.0)
        if isinstance(item, Rejected):
            # Its data may be wrong as well, and one answer names everything.
            raise await self._reject(with_data_problems(item, self._settings.build, self._settings.intake), custodian)
        accepted_at = self._now()
        try:
            route(item)
            request = build_request(item, accepted_at, self._settings.build, self._settings.intake)
        except EventRejected as exc:
            attributes, data = item.attributes(), item.data
            rejected = Rejected(attributes, "application/json", data, exc.problems, exc.status, data)
            raise await self._reject(rejected, custodian) from exc
        flow = flow_of(item) if custodian is None else "queue"
        if self._flows not in ("both", flow):
            raise await self._turn_away(item, flow, custodian)
        if custodian is not None:
            await self._queue.reserve(None)
            return await self._take_in(item, request, accepted_at, custodian, flow)
        # A duplicate needs no slot, so it does not wait for one; where there is a slot, ``admit`` finds it out.
        if self._queue.full and await self._journal.seen(item.identity):
            ticket = self._duplicate(item, request, flow)
        else:
            if self._crowded() or not self._queue.try_reserve():
                await self._reserve(item)
            ticket = await self._take_in(item, request, accepted_at, self._journal, flow)
        if self._custody == "sender":
            return ticket._replace(end=self._journal.outcome(item.identity))
        return ticket

    async def settled(self, ticket: Ticket) -> None:
        """Return once the answer counts, after at most ``intake.custodyWait``.

        Raises:
            NotSettled: the event has not ended well yet; its sender must keep it, and may send it again.
        """
        if ticket.end is None:
            return
        try:
            async with asyncio.timeout(self._settings.intake.custody_wait):
                result = await asyncio.shield(ticket.end)
        except TimeoutError:
            msg = "it is being worked on; keep it and send it again"
            raise NotSettled(msg, retry_after=1.0) from None
        if result.failure is not None:
            msg = f"it failed: {result.failure.message}"
            raise NotSettled(msg, retry_after=self._settings.intake.custody_wait)

    async def _turn_away(self, event: Event, flow: Flow, custodian: Custodian | None) -> EventRejected:
        """Keep an event whose flow is switched off in this phase of the migration (004); it can be replayed."""
        setting = f"events of the {flow} flow are not taken (setting intake.flows: {self._settings.intake.flows})"
        attributes = event.attributes()
        rejected = Rejected(attributes, "application/json", event.data, (Problem("", setting),), 403, event.data)
        return await self._reject(rejected, custodian, _SWITCHED_OFF[flow])

    async def _reject(
        self, rejected: Rejected, custodian: Custodian | None, reason: RejectReason | None = None
    ) -> EventRejected:
        """Keep what cannot be accepted: a broker drops an event that was answered with a 4xx."""
        error = EventRejected(rejected.problems, rejected.status)
        if reason is None:
            reason = _REJECT_REASONS.get(rejected.status, RejectReason.INVALID)
        await self._park(rejected, str(error), reason, self._journal if custodian is None else custodian, named(error))
        return error

    async def bury(self, item: Event | Rejected, words: str, marks: Mapping[str, str]) -> None:
        """Keep an event that a broker could not deliver, whatever is wrong with it; ``marks`` are the broker's own.

        Raises:
            Draining, HttpOff, StorageError: not now.
        """
        self._check_open()
        if self._settings.custody != "journal":
            msg = "dead letters are kept with custody: journal only; give the Trigger another dead letter sink"
            raise HttpOff(msg, retry_after=60.0)
        if isinstance(item, Event):
            item = Rejected(item.attributes(), "application/json", item.data, (), 202, item.data)
        kept = replace(item, attributes={**item.attributes, **marks})
        await self._park(kept, words, RejectReason.UNDELIVERED, self._journal)

    def _check_open(self) -> None:
        if self.closed:
            self._stats.refused[RefusedBecause.DRAINING] += 1
            msg = "shutting down"
            raise Draining(msg, retry_after=1.0)

    async def _park(
        self, rejected: Rejected, message: str, reason: RejectReason, custodian: Custodian, error: str = ""
    ) -> None:
        now = self._now()
        await custodian.park(
            DeadLetter(
                reason=reason,
                message=message,
                attributes=rejected.attributes,
                content_type=rejected.content_type,
                body=rejected.body,
                first_at=now,
                last_at=now,
                problems=rejected.problems,
                error=error,
                third_party_id=None if rejected.data is None else legible(rejected.data).third_party_id,
            )
        )
        self._stats.rejected[reason] += 1
        fields = [problem.field for problem in rejected.problems][:10]
        log.warning("event_rejected", reason=reason.value, fields=fields, event_id=rejected.attributes.get("id"))

    async def _reserve(self, event: Event) -> None:
        try:
            await self._slot()
        except QueueFull:
            self._stats.refused[RefusedBecause.QUEUE_FULL] += 1
            log.warning("event_refused", reason="queue_full", event_id=event.id, event_source=event.source)
            raise

    async def _slot(self) -> None:
        if self._crowded():
            msg = "too many events wait for other builds or for room (setting asyncJobCreator.maxWaiting)"
            raise QueueFull(msg, retry_after=self._settings.async_job_creator.max_retry_delay)
        await self._queue.reserve(self._settings.intake.slot_wait)

    async def _take_in(
        self, event: Event, request: BuildRequest, accepted_at: datetime, custodian: Custodian, flow: Flow
    ) -> Ticket:
        receipt = None
        reach("slot_reserved")
        try:
            receipt = await custodian.admit(Entry(event, accepted_at, request.priority))
        except StorageError:
            self._stats.refused[RefusedBecause.JOURNAL] += 1
            raise
        finally:
            if receipt is None:
                self._queue.release()
        if receipt is None:
            return self._duplicate(event, request, flow)
        reach("admitted")
        item = Item.of(event, request, receipt, accepted_at, self._clock(), flow)
        self._results.begin(item)
        self._queue.put(item)
        reach("enqueued")
        self._stats.accepted[item.flow] += 1
        log = self._log if request.traceparent is None else self._log.bind(trace_id=trace_id(request.traceparent))
        log.info(
            "event_accepted",
            event_id=event.id,
            event_source=event.source,
            correlation_id=request.correlation_id,
            priority=request.priority,
        )
        if request.overruled_priority is not None:
            log.warning(
                "priorities_differ", event_id=event.id, taken=request.priority, overruled=request.overruled_priority
            )
        return Ticket("queued", request.correlation_id)

    def _duplicate(self, event: Event, request: BuildRequest, flow: Flow) -> Ticket:
        self._stats.duplicates[flow] += 1
        log.info("event_duplicate", event_id=event.id, event_source=event.source)
        return Ticket("duplicate", request.correlation_id)
