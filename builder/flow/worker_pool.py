"""The workers: each takes an item, makes sure that its Job exists, and settles it. No item can end a worker."""

import asyncio
import random
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from typing import assert_never

import structlog

from builder.errors import ClusterError, EventRejected, HandedBack, StorageError
from builder.events.attributes import trace_id
from builder.events.request import build_request
from builder.failpoints import reach
from builder.flow.build_queue import BuildQueue
from builder.flow.capacity_line import CapacityLine
from builder.flow.ensure_job import Blocked, ensure_job
from builder.flow.items import Again, Done, Item, Wait
from builder.flow.outage import Outage
from builder.flow.ports import Cluster, Holder, Tracing
from builder.flow.results import Results
from builder.flow.verdicts import Verdicts, failed, no_longer_valid
from builder.flow.waiting_room import WaitingRoom
from builder.jobs import labels
from builder.jobs.conflict import Wanted
from builder.jobs.manifest import build_job
from builder.jobs.succession import with_note
from builder.models import Decision, FailureReason, Manifest, Outcome, identity_of
from builder.settings import Settings
from builder.stats import Example, Histogram, Stats

log = structlog.get_logger(__name__)


class WorkerPool:
    """``workerCount`` tasks over one queue.

    ``clock`` is the event loop's time, ``now`` the time of day in UTC; ``draw`` gives the jitter, in [0, 1).
    ``holders`` are all who may hold an event: the journal, and the road from the broker where there is one.
    """

    def __init__(
        self,
        settings: Settings,
        cluster: Cluster,
        holder: Holder,
        queue: BuildQueue,
        outage: Outage,
        results: Results,
        stats: Stats,
        clock: Callable[[], float],
        now: Callable[[], datetime],
        draw: Callable[[], float] = random.random,
        tracing: Tracing | None = None,
    ) -> None:
        self._settings = settings
        self._tracing = tracing
        self._cluster = cluster
        self.holders = [holder]
        self._queue = queue
        self._outage = outage
        self._results = results
        self._stats = stats
        self._clock = clock
        self._now = now
        self._verdicts = Verdicts(settings.async_job_creator, draw)
        self._changed = asyncio.Event()
        self.room = WaitingRoom(queue.put_back)
        self.line = CapacityLine(self.room.release, draw)
        self.busy: dict[int, Item | None] = dict.fromkeys(range(settings.async_job_creator.worker_count))

    async def work(self, number: int) -> None:
        """One worker's life. Ends only by being cancelled; what it was at then is in ``unfinished``."""
        while True:
            await self._outage.over()
            item = await self._queue.take()
            self.busy[number] = item
            reach("taken")
            if self._tracing is None:
                await self._handle(item)
            else:
                await self._handle_traced(item, self._tracing)
            self.busy[number] = None
            self._changed.set()

    def close(self) -> None:
        """Stop the timers. Who waits goes on waiting."""
        self.room.close()
        self.line.close()

    def unfinished(self) -> list[Item]:
        """The items that have not come to their end: in work, set aside, queued."""
        return [*(item for item in self.busy.values() if item is not None), *self.room, *self._queue]

    async def drain(self, grace: float) -> list[Item]:
        """Work on until nothing is left or ``grace`` seconds have passed; what is left then."""
        try:
            async with asyncio.timeout(grace):
                while self.unfinished():
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            pass
        return self.unfinished()

    async def _handle_traced(self, item: Item, tracing: Tracing) -> None:
        if item.trace is None:
            item.trace = tracing.begin(item.event, item.accepted_at)
        with item.trace.working():
            await self._handle(item)

    async def _handle(self, item: Item) -> None:
        """Take an item one step further: to its end, or aside."""
        item.state = "working"
        wanted = None
        try:
            wanted = self._wanted(item)
            while (step := await self._try(item, wanted)) is None:
                await self._outage.over()
        except EventRejected as exc:
            step = no_longer_valid(exc)
        except Exception as exc:  # whatever it is, it must not shrink the pool
            log.exception("item_crashed", **_ids(item))
            step = failed(FailureReason.INTERNAL_ERROR, f"{type(exc).__name__}: {exc}", exc)
        await self._finish(item, step, None if wanted is None else wanted.job)

    def _wanted(self, item: Item) -> Wanted:
        request = build_request(item.event, item.accepted_at, self._settings.build, self._settings.intake)
        if item.trace is not None:
            request = request._replace(traceparent=item.trace.traceparent)
        return Wanted(build_job(request, self._settings), request.source)

    async def _try(self, item: Item, wanted: Wanted) -> Done | Again | None:
        """One try at the cluster; None if it fell into an outage and says nothing about the item."""
        item.patience.attempts += 1
        began, outages = self._clock(), self._outage.count
        try:
            policy = self._settings.on_active_build
            wanted = replace(wanted, job=with_note(wanted.job, item.patience.note))
            step = await ensure_job(
                self._cluster,
                wanted,
                policy,
                self._count_conflict,
                self._is_unsettled,
                lambda note: self._keep_note(item, note),
                self.line.before(item),
            )
        except ClusterError as exc:
            if await self._outage.suspect(exc, outages):
                return None
            return self._verdicts.after_error(exc, item.patience, self._clock())
        except StorageError as exc:  # a Job that may be another event's is not replaced on a guess
            return Again(Wait.RETRY, exc.retry_after, f"the journal cannot be read: {exc}")
        finally:
            self._observe(self._stats.api_calls, self._clock() - began, item)
        if isinstance(step, Blocked):
            waiting = self.room.waiting
            crowd = waiting[Wait.ACTIVE_BUILD] + waiting[Wait.DELETION]
            return self._verdicts.after_block(step, item.patience, self._clock(), crowd)
        return step

    def _keep_note(self, item: Item, note: str) -> None:
        """For the next try, be it in another process."""
        if note != item.patience.note:
            item.patience.note = note
            item.receipt.note(item.patience.saved(self._clock()))

    async def _is_unsettled(self, job: Manifest) -> bool:
        """True if the event that the Job was made of is still on its way here: a crash came between the two.

        The journal knows, and not only of what is queued: after a restart an event may still wait for a slot.
        """
        annotations = labels.annotations(job)
        source, event_id = annotations.get(labels.EVENT_SOURCE), annotations.get(labels.EVENT_ID)
        if source is None or event_id is None:
            return False
        identity = identity_of(source, event_id)
        return any([await holder.holds(identity) for holder in self.holders])

    async def _finish(self, item: Item, step: Done | Again, job: Manifest | None) -> None:
        if not (isinstance(step, Again) and step.wait is Wait.CAPACITY):
            self.line.passed(item, found_room=isinstance(step, Done) and step.outcome is Outcome.CREATED)
        if isinstance(step, Again):
            await self._set_aside(item, step, job)
            return
        try:
            await self._settle(item, step, job)
        except HandedBack as exc:
            self._results.forget(item)
            log.info("event_handed_back", **_ids(item), why=str(exc))
        except Exception:  # the item is still in custody: its Job will be found there, and adopted
            log.exception("settle_failed", **_ids(item))
            retry = Again(Wait.RETRY, self._settings.async_job_creator.max_retry_delay, "its outcome could not be kept")
            await self._set_aside(item, retry, job)

    async def _set_aside(self, item: Item, again: Again, job: Manifest | None) -> None:
        if again.wait is Wait.RETRY:
            self._stats.retries += 1
        item.receipt.note(item.patience.saved(self._clock()))
        log.info("item_waits", **_ids(item), wait=again.wait.value, seconds=round(again.delay, 3), why=again.message)
        reach("set_aside")
        loser = self.room.enter(item, again, None if job is None else job["metadata"]["name"])
        if again.wait is Wait.CAPACITY:
            self.line.join(item, again.message)
        if loser is not None:
            await self._finish(loser, Done(Outcome.SUPERSEDED), job)

    async def _settle(self, item: Item, done: Done, job: Manifest | None) -> None:
        result = item.result(done, self._now(), None if job is None else job["metadata"]["name"])
        reach("before_settle")
        await item.receipt.settle(result)
        reach("settled")
        self._results.finish(item, result)
        self._count(item, done)
        if item.trace is not None:
            item.trace.end(result)
        fields = {} if done.failure is None else {"reason": done.failure.reason.value, "error": done.failure.message}
        emit = log.info if done.failure is None else log.error
        emit(_LOG_LINES[done.outcome], **_ids(item), job=result.job_name, attempts=result.attempts, **fields)

    def _count(self, item: Item, done: Done) -> None:
        self._stats.outcomes[done.outcome] += 1
        self._stats.ended[item.flow, done.outcome] += 1
        match done.outcome:
            case Outcome.CREATED | Outcome.ADOPTED:
                self._observe(self._stats.creation, self._clock() - item.accepted, item)
            case Outcome.FAILED:
                if done.failure is not None:
                    self._stats.failures[done.failure.reason] += 1
            case Outcome.SUPERSEDED:
                pass
            case _:
                assert_never(done.outcome)

    def _observe(self, histogram: Histogram, seconds: float, item: Item) -> None:
        if item.trace is None or item.trace.example_id is None:
            histogram.observe(seconds)
        else:
            histogram.observe(seconds, Example(item.trace.example_id, seconds, self._now().timestamp()))

    def _count_conflict(self, decision: Decision) -> None:
        self._stats.conflicts[decision] += 1


_LOG_LINES = {
    Outcome.CREATED: "job_created",
    Outcome.ADOPTED: "job_adopted",
    Outcome.SUPERSEDED: "event_superseded",
    Outcome.FAILED: "event_failed",
}


def _ids(item: Item) -> dict[str, str | None]:
    ids: dict[str, str | None] = {
        "event_id": item.event.id,
        "event_source": item.event.source,
        "correlation_id": item.correlation_id,
    }
    traceparent = item.event.extensions.get("traceparent") if item.trace is None else item.trace.traceparent
    return ids if traceparent is None else ids | {"trace_id": trace_id(traceparent)}
