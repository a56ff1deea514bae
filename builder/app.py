"""The composition root: opens every part, runs the root tasks, and closes everything in reverse order."""

import asyncio
import gc
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Protocol

import structlog

from builder import failpoints
from builder.adapters.memory_cluster import MemoryCluster
from builder.adapters.memory_journal import MemoryJournal
from builder.adapters.sqlite_journal import SqliteJournal, journal_path
from builder.adapters.tracing import open_tracing
from builder.adapters.web.dead_letter_routes import DeadLetterRoutes
from builder.adapters.web.dead_letter_sink import DeadLetterSink
from builder.adapters.web.receiver import Receiver
from builder.adapters.web.server import listening
from builder.adapters.web.status_routes import StatusRoutes
from builder.errors import ClusterError, StartError
from builder.flow.build_queue import BuildQueue
from builder.flow.counted_cluster import CountedCluster
from builder.flow.dead_letters import DeadLetterOffice
from builder.flow.intake import Intake
from builder.flow.items import Item
from builder.flow.outage import Outage
from builder.flow.overview import Overview
from builder.flow.permissions import Permissions
from builder.flow.ports import Cluster, DeadLetterBox, Journal, Rights, Tracing
from builder.flow.recovery import Recovery
from builder.flow.results import Results
from builder.flow.worker_pool import WorkerPool
from builder.jobs.status import phase
from builder.metrics import Metrics
from builder.models import Manifest
from builder.settings import Settings
from builder.stats import Stats

if TYPE_CHECKING:
    from builder.adapters.rabbitmq.consumer import Consumer

log = structlog.get_logger(__name__)

LAST_WORDS = 2.0
"""Seconds that dead letters may take on their way to the broker once everything else has ended."""


class Custody(Journal, DeadLetterBox, Protocol):
    """What keeps the events keeps the dead letters as well."""

    async def keep_house(self) -> None:
        """Remove what is over, and look whether trouble is over. Runs for the life of the service."""


class Builds(Cluster, Rights, Protocol):
    """The cluster in which builds run tells what we may do there."""


@dataclass(frozen=True, slots=True)
class Parts:
    """The parts of one service, wired but not yet running."""

    settings: Settings
    journal: Custody
    intake: Intake
    pool: WorkerPool
    outage: Outage
    permissions: Permissions
    recovery: Recovery
    office: DeadLetterOffice
    overview: Overview
    stats: Stats
    consumer: "Consumer | None" = None

    def listening(self) -> AbstractAsyncContextManager[str]:
        """The HTTP door, open; gives its URL."""
        intake = self.settings.intake
        status = StatusRoutes(self.overview, Metrics(self.stats, self.overview.gauges))
        letters = DeadLetterRoutes(self.office, self.settings.admin)
        events = Receiver(self.intake, intake).routes() + DeadLetterSink(self.intake, intake).routes()
        routes = events + letters.routes() + status.routes()
        return listening(self.settings.server, routes, self.stats, intake.max_body_size)


def assemble(
    settings: Settings,
    cluster: Cluster,
    journal: Custody,
    rights: Rights | None = None,
    tracing: Tracing | None = None,
) -> Parts:
    """Wire the use cases to a cluster. Needs a running event loop, whose time is the monotonic clock of all parts.

    Without ``rights`` nobody is asked whether we may do what we do; without ``tracing`` nothing is traced.
    """
    clock = asyncio.get_running_loop().time
    now = never_back(_now)
    policy = settings.async_job_creator
    stats = Stats()
    queue = BuildQueue(policy.max_queue_size)
    results = Results(settings.results.ttl, settings.results.max_entries, clock)
    counted = CountedCluster(cluster if tracing is None else tracing.traced(cluster), stats)
    outage = Outage(counted)
    permissions = Permissions(rights)
    pool = WorkerPool(settings, counted, journal, queue, outage, results, stats, clock, now, tracing=tracing)
    intake = Intake(
        settings, journal, queue, results, stats, clock, now, crowded=lambda: len(pool.room) >= policy.max_waiting
    )
    recovery = Recovery(settings, journal, queue, results, clock, now)
    office = DeadLetterOffice(settings, journal, queue, results, clock, now)
    consumer = _consumer(settings, intake, journal, outage, pool, stats)
    if consumer is not None:
        pool.holders.append(consumer)
    overview = Overview(stats, queue, pool, outage, permissions, results, intake, journal, recovery, clock, consumer)
    return Parts(settings, journal, intake, pool, outage, permissions, recovery, office, overview, stats, consumer)


def _consumer(
    settings: Settings, intake: Intake, journal: Journal, outage: Outage, pool: WorkerPool, stats: Stats
) -> "Consumer | None":
    """The AMQP door, where there is a broker."""
    if not settings.rabbitmq.urls:
        return None
    from builder.adapters.rabbitmq.consumer import Consumer  # noqa: PLC0415 -- a tenth of a second and 8 MiB

    clock = asyncio.get_running_loop().time
    return Consumer(settings, intake, journal, outage, stats, clock, _now, waiting=lambda: len(pool.room))


@asynccontextmanager
async def open_journal(settings: Settings, environ: Mapping[str, str]) -> AsyncIterator[Custody]:
    """Where accepted events are kept, by the mode of custody."""
    if settings.custody != "journal":
        clock = asyncio.get_running_loop().time
        log.info("custody", mode=settings.custody, promise=settings.promise)
        yield MemoryJournal(settings.idempotency, settings.dead_letters, clock)
        return
    path = journal_path(settings, environ)
    async with SqliteJournal.open(path, settings) as journal:
        log.info("custody", mode="journal", file=str(path), promise=settings.promise)
        yield journal


@asynccontextmanager
async def open_cluster(settings: Settings, environ: Mapping[str, str]) -> AsyncIterator[Builds]:
    """The cluster that the settings name."""
    if settings.cluster == "memory":
        memory = MemoryCluster(settings.memory, on_change=_log_phase)
        try:
            yield memory
        finally:
            memory.close()
        return
    from builder.adapters.kubernetes import KubernetesCluster  # noqa: PLC0415 -- a second and 60 MiB

    async with KubernetesCluster.open(settings.kubernetes, environ) as cluster:
        yield cluster


async def serve(settings: Settings, environ: Mapping[str, str], stop: asyncio.Event) -> None:
    """Run the service until ``stop`` is set and what was accepted is done, or the time for that is over.

    Raises:
        StartError: the surroundings do not allow a start.
        ExceptionGroup: a root task died of a bug; the service cannot go on.
    """
    failpoints.arm(environ)
    async with AsyncExitStack() as stack:
        # Closed in reverse: the journal outlives whatever may still settle something.
        cluster = await stack.enter_async_context(open_cluster(settings, environ))
        journal = await stack.enter_async_context(open_journal(settings, environ))
        tracing = await stack.enter_async_context(open_tracing(environ))
        parts = assemble(settings, cluster, journal, rights=cluster, tracing=tracing)
        await _first_contact(parts.outage)
        await parts.permissions.look()
        async with parts.listening() as url:
            log.info("listening", url=url, cluster=settings.cluster, workers=len(parts.pool.busy))
            _tune_garbage_collector()
            await _run(parts, stop)


async def _run(parts: Parts, stop: asyncio.Event) -> None:
    """The root tasks. When one of them dies the others are cancelled and the service ends, loudly."""
    async with asyncio.TaskGroup() as group:
        roots = [group.create_task(parts.outage.watch(), name="outage")]
        roots.append(group.create_task(parts.permissions.watch(), name="permissions"))
        roots.append(group.create_task(parts.journal.keep_house(), name="journal"))
        roots.append(group.create_task(parts.recovery.run(), name="recovery"))
        roots += [group.create_task(parts.pool.work(number), name=f"worker-{number}") for number in parts.pool.busy]
        if parts.consumer is not None:
            roots.append(group.create_task(parts.consumer.consume(), name="consumer"))
            roots.append(group.create_task(parts.consumer.bury(), name="dead letters"))
        await stop.wait()
        parts.intake.close()
        if parts.consumer is not None:
            await parts.consumer.stop()
        grace = parts.settings.async_job_creator.drain_timeout
        log.info("draining", items=len(parts.pool.unfinished()), at_most_seconds=grace)
        left = await parts.pool.drain(grace)
        for item in left:
            await _tell_left(item, parts)
        if parts.consumer is not None:
            await parts.consumer.close(LAST_WORDS)
        log.info("stopped", left=len(left))
        for task in roots:
            task.cancel()


async def _tell_left(item: Item, parts: Parts) -> None:
    """Name an event that the drain did not finish, by who has it: what the broker has, it gives to others at once."""
    fields = {"event_id": item.event.id, "correlation_id": item.correlation_id, "state": item.state}
    if parts.consumer is not None and await parts.consumer.holds(item.event.identity):
        log.info("left_to_broker", **fields)
    else:
        log.error("left_unfinished", **fields)


async def _first_contact(outage: Outage) -> None:
    """An API server that is away is waited for; one that will not have us is a mistake in the set-up."""
    try:
        await outage.check()
    except ClusterError as exc:
        msg = f"the Kubernetes API server refuses us: {exc} (check the service account, or KUBECONFIG)"
        raise StartError(msg) from exc


def _tune_garbage_collector() -> None:
    """What is loaded now stays, so do not walk it again; 10^5 queued items would stop the world at every full pass."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)


def _log_phase(job: Manifest) -> None:
    log.info("embedded_job", job=job["metadata"]["name"], phase=phase(job))


def never_back(now: Callable[[], datetime]) -> Callable[[], datetime]:
    """The time of day, but standing still when somebody sets it back.

    An event without a time was requested when it was accepted, and who was accepted later must not seem the older.
    """
    latest = now()

    def read() -> datetime:
        nonlocal latest
        latest = max(latest, now())
        return latest

    return read


def _now() -> datetime:
    return datetime.now(UTC)
